"""Publish as a task. The create-only write of the manifest is the commit, so a retry is safe."""

from prefect import task

from candist_core.config import RunConfig
from candist_core.publish import Published
from candist_core.reports import RunReports
from candist_core.stages import publish as stage
from tasks.policy import STAGE


@task(name="publish", task_run_name="publish {config.name}", **STAGE)
def publish_version(config: RunConfig, reports: RunReports, run_id: str) -> Published:
    """Publish the labelled data set as an immutable version."""
    return stage.publish_version(config, reports, run_id)
