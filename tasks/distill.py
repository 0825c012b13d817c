"""Distill as a task."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, DistillReport
from candist_core.stages import distill as stage
from candist_core.tables import TableRef
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="distill", task_run_name="distill {config.student.model}", **STAGE)
def distill_student(config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]) -> DistillReport:
    """Train the student on all candidate sets, or return the one an earlier run trained."""
    return stage.distill_student(config, texts, annotated, progress_reporter())
