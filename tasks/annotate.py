"""Annotate as a task: one shard."""

from prefect import task

from candist_core.reports import AnnotateReport
from candist_core.stages import annotate as stage
from candist_core.stages.annotate import Plan
from candist_core.tables import TableRef
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="annotate-shard", task_run_name="annotate {texts.uri}", **STAGE)
def annotate_shard(plan: Plan, texts: TableRef, allowance_usd: float | None, in_flight: int) -> AnnotateReport:
    """Annotate one shard, or return what an earlier run left of it."""
    return stage.annotate_shard(plan, texts, allowance_usd, in_flight, progress_reporter())
