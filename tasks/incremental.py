"""Taking over the student of an earlier version as a task."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport
from candist_core.stages import incremental as stage
from candist_core.tables import TableRef
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="reuse-student", task_run_name="reuse {config.student.model}", **STAGE)
def adopt_student(
    config: RunConfig, base: stage.Base, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> stage.Adopted:
    """Ask the student of the latest version about new texts, and measure their drift."""
    return stage.adopt_student(config, base, texts, annotated, progress_reporter())
