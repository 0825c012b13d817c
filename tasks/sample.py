"""Sample as a task: which texts the teacher reads next."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, IngestReport
from candist_core.sampling import SampleRound
from candist_core.stages import sample as stage
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="sample", task_run_name="sample {config.name}", **STAGE)
def draw_round(
    config: RunConfig, ingested: IngestReport, rounds: Sequence[SampleRound], annotated: Sequence[AnnotateReport]
) -> SampleRound:
    """Choose the texts of the next round, or find that no more are worth reading."""
    return stage.draw_round(config, ingested, rounds, annotated, progress_reporter())
