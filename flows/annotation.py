"""The annotation of all shards: what is done already, who may spend how much, when to stop."""

from collections.abc import Sequence

from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.errors import BudgetError
from candist_core.reports import AnnotateReport
from candist_core.stages.annotate import Plan, find_annotations
from candist_core.tables import TableRef
from flows.gate import stop_if_failed
from flows.progress import Watch
from flows.runner import Cluster, run_window
from tasks.annotate import annotate_shard


class Purse:
    """Splits a hard cap over shards that run at once: what is spent plus what is granted never passes it.

    A shard's cost counts all replies it rests on, those that an earlier run paid for included.

    Args:
        max_usd: the cap in US dollars; grants have no bound when None.

    Example:
        >>> purse = Purse(5.0)
        >>> purse.grant(0, n_sharers=2), purse.grant(1, n_sharers=1)
        (2.5, 2.5)
        >>> purse.settle(0, cost_usd=0.5)
        >>> purse.grant(2, n_sharers=1)
        2.0
    """

    def __init__(self, max_usd: float | None) -> None:
        self.max_usd = max_usd
        self._cost: dict[int, float] = {}
        self._granted: dict[int, float] = {}

    @property
    def spent_usd(self) -> float:
        """What the settled shards cost."""
        return sum(self._cost.values())

    @property
    def n_granted(self) -> int:
        """Shards that hold a grant now."""
        return len(self._granted)

    def cost_usd(self, shard: int) -> float:
        """What one shard cost so far."""
        return self._cost.get(shard, 0.0)

    def grant(self, shard: int, n_sharers: int) -> float | None:
        """Bound one shard's whole cost: what it cost so far and an equal part of what nobody holds."""
        if self.max_usd is None:
            self._granted[shard] = 0.0
            return None
        free = max(0.0, self.max_usd - self.spent_usd - sum(self._granted.values()))
        self._granted[shard] = free / max(1, n_sharers)
        return self.cost_usd(shard) + self._granted[shard]

    def settle(self, shard: int, cost_usd: float) -> None:
        """Note what a shard cost in the end and take back what it did not spend."""
        self._granted.pop(shard, None)
        self._cost[shard] = cost_usd


def annotate_shards(plan: Plan, texts: Sequence[TableRef], cluster: Cluster, watch: Watch) -> list[AnnotateReport]:
    """Annotate every shard, or take what earlier runs left.

    Raises:
        BudgetError: the cap is reached with texts left.
        GateError: a check that fails the run did not pass.
        TeacherError: no request will ever be answered.
        TransientError: shards that failed after their retries, once all the others have ended.
    """
    reports = {i: report for i, shard in enumerate(texts) if (report := find_annotations(plan, shard))}
    purse = Purse(plan.config.budget.max_usd)
    for i, report in reports.items():
        purse.settle(i, cost_of(report))
    todo = [i for i in range(len(texts)) if i not in reports]
    n_slots = min(cluster.n_slots, len(todo)) or 1
    already = sum(texts[i].rows for i in reports)
    stopped: list[int] = []

    def submit(i: int) -> PrefectDaskFuture[AnnotateReport]:
        cluster.connect()
        share = max(1, plan.config.teacher.max_in_flight // n_slots)
        grant = purse.grant(i, n_sharers=max(1, n_slots - purse.n_granted))
        future: PrefectDaskFuture[AnnotateReport] = annotate_shard.submit(plan, texts[i], grant, share)
        return future

    def on_result(i: int, report: AnnotateReport) -> Sequence[int]:
        has_bought = cost_of(report) > purse.cost_usd(i)
        purse.settle(i, cost_of(report))
        stop_if_failed("annotations", report.checks)
        reports[i] = report
        if report.n_left and has_bought:
            stopped.append(i)
        if purse.n_granted:
            return ()
        # Nobody holds a grant: shards that theirs stopped go on with what is left, as long as that buys replies.
        again = list(stopped)
        stopped.clear()
        return again

    with watch.stage("annotate", sum(shard.rows for shard in texts), already=already):
        run_window(submit, todo, n_slots, on_result, watch.tick)
    if n_left := sum(report.n_left for report in reports.values()):
        raise BudgetError(purse.spent_usd, purse.max_usd or 0.0, n_left)
    return [reports[i] for i in range(len(texts))]


def cost_of(report: AnnotateReport) -> float:
    """US dollars that a shard's replies cost, whenever they were paid."""
    return report.usage.cost_usd + report.usage.reused_usd
