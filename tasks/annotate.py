"""Annotate as a task: one shard."""

from prefect import task

from candist_core.reports import AnnotateReport
from candist_core.stages import annotate as stage
from candist_core.stages.plan import Plan
from candist_core.tables import TableRef
from tasks.policy import STAGE
from tasks.progress import progress_reporter
from tasks.secrets import read_api_keys
from tasks.shares import share_of_run


@task(name="annotate-shard", task_run_name="annotate {texts.uri}", **STAGE)
def annotate_shard(
    plan: Plan, texts: TableRef, allowance_usd: float | None, run_id: str, n_expected: int
) -> tuple[AnnotateReport, bool]:
    """Annotate one shard with its part of the run's limits, or return what an earlier run left of it.

    Args:
        plan: from `plan_annotation`.
        texts: the shard, under `texts/1`.
        allowance_usd: what its replies may cost; no bound when None.
        run_id: the flow run, whose limits are shared.
        n_expected: shards that are about to run at once.

    Returns:
        The shard's tables, and whether it left texts because its worker is closing: it is to run again elsewhere.
    """
    with share_of_run(run_id, n_expected) as share:
        report = stage.annotate_shard(
            plan,
            texts,
            allowance_usd,
            share=share,
            on_progress=progress_reporter(),
            api_keys=read_api_keys(plan.config),
        )
        return report, bool(report.n_left) and not share()
