"""Distill as a task."""

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import DistillReport
from candist_core.stages import distill as stage
from candist_core.stages.lesson import DistillInputs
from tasks.policy import STAGE, Sealed
from tasks.progress import progress_reporter


@task(name="distill", task_run_name="distill {config.student.model}", **STAGE)
def distill_student(config: RunConfig, inputs: Sealed[DistillInputs]) -> DistillReport:
    """Train the student on all candidate sets, or return the one an earlier run trained."""
    return stage.distill_student(config, inputs.content.texts, inputs.content.annotated, progress_reporter())
