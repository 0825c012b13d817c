"""Ingest as a task."""

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import IngestReport
from candist_core.stages import ingest as stage
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="ingest", task_run_name="ingest {config.name}", **STAGE)
def ingest_corpus(config: RunConfig) -> IngestReport:
    """Read the corpus into shards."""
    return stage.ingest_corpus(config, progress_reporter())
