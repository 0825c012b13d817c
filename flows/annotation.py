"""The annotation of all shards: what is done already, who may spend how much, when to stop."""

from collections.abc import Iterable, Mapping, Sequence

from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.errors import BudgetError, TransientError
from candist_core.reports import AnnotateReport
from candist_core.stages.annotate import find_annotations
from candist_core.stages.paid import kept_usd, paid_at_most_usd
from candist_core.stages.plan import Plan
from candist_core.tables import TableRef
from candist_core.teacher_config import TeacherKind, TeacherMode
from flows.gate import Gate
from flows.progress import Watch
from flows.runner import Cluster
from flows.window import Shards, run_window, told
from tasks.annotate import Grant, annotate_group
from tasks.groups import GroupResult, name_of_group

_DRIFT = 1e-9


class Purse:
    """Splits a hard cap over groups of shards that run at once: what is spent plus what is granted never passes it.

    A shard's cost counts all replies it rests on, those that an earlier run paid for included. A group holds its grant
    under the number of its first shard. Once a grant ended before its group, the next ones wait until no group holds
    any: what the others did not spend is then split anew, as long as more is left than has proved too little for a
    reply.

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
        self._too_little_usd = 0.0
        self._is_draining = False

    @property
    def spent_usd(self) -> float:
        """What the settled shards cost."""
        return sum(self._cost.values())

    @property
    def free_usd(self) -> float:
        """What is neither spent nor granted; without a cap, infinite."""
        if self.max_usd is None:
            return float("inf")
        return max(0.0, self.max_usd - self.spent_usd - sum(self._granted.values()))

    @property
    def n_granted(self) -> int:
        """Groups that hold a grant now."""
        return len(self._granted)

    def cost_usd(self, shard: int) -> float:
        """What a shard's replies cost so far."""
        return self._cost.get(shard, 0.0)

    @property
    def may_grant(self) -> bool:
        """Whether a grant made now may buy a reply."""
        # Sums of floats drift, and a hair's breadth more buys nothing more.
        return not self._is_draining and self.free_usd > self._too_little_usd * (1 + _DRIFT)

    def grant(self, shard: int, n_sharers: int) -> float | None:
        """Bound one shard's whole cost: what it cost so far and an equal part of what nobody holds."""
        if self.max_usd is None:
            self._granted[shard] = 0.0
            return None
        part = self.free_usd / max(1, n_sharers)
        # Where equal parts are too small for anyone, one shard gets all.
        self._granted[shard] = part if part > self._too_little_usd else self.free_usd
        return self._cost.get(shard, 0.0) + self._granted[shard]

    def settle(
        self, shard: int, cost_usd: float, is_short: bool = False, others: Mapping[int, float] | None = None
    ) -> None:
        """Take back what a group did not spend of its grant.

        Args:
            shard: the group's first.
            cost_usd: what that shard cost in the end.
            is_short: the grant ended before the group.
            others: what its other shards cost in the end.
        """
        granted, costs = self._granted.pop(shard, 0.0), {shard: cost_usd, **(others or {})}
        if is_short:
            left_usd = granted - sum(cost - self.cost_usd(i) for i, cost in costs.items())
            self._too_little_usd = max(self._too_little_usd, left_usd)
        self._cost.update(costs)
        self._is_draining = (self._is_draining or is_short) and bool(self._granted)

    def forfeit(
        self, shard: int, known: Mapping[int, float] | None = None, at_most: Mapping[int, float] | None = None
    ) -> None:
        """Count as spent what a group with a failed shard may have spent.

        Args:
            shard: the group's first.
            known: what those of its shards cost that did not fail.
            at_most: what the failed ones may have cost; of a group about which this is not known, the whole grant.
        """
        costs = dict(known or {})
        rest = self._granted.get(shard, 0.0) - sum(cost - self.cost_usd(i) for i, cost in costs.items())
        for i, usd in (at_most or {}).items():
            more = min(max(0.0, rest), max(0.0, usd - self.cost_usd(i)))
            costs[i], rest = self.cost_usd(i) + more, rest - more
        left_usd = 0.0 if at_most else max(0.0, rest)
        self.settle(shard, costs.pop(shard, self.cost_usd(shard)) + left_usd, others=costs)


def annotate_shards(
    plan: Plan, texts: Sequence[TableRef], cluster: Cluster, watch: Watch, gate: Gate
) -> list[AnnotateReport]:
    """Annotate every shard, or take what earlier runs left.

    Raises:
        BudgetError: the cap is reached with texts left.
        GateError: a check that fails the run did not pass.
        TeacherError: no request will ever be answered.
        TransientError: shards that failed after their retries, once all the others have ended.
    """
    run = _Run(plan, texts, cluster, gate)
    # What an earlier run has found wrong is no better now, and nothing more is to be paid for it.
    for report in run.reports.values():
        gate.pass_or_stop("annotations", report.checks)
    todo = sorted(run.still_open)
    already = sum(texts[i].rows for i in run.reports)
    with watch.stage("annotate", sum(shard.rows for shard in texts), already=already), cluster.counted_run():
        run_window(run.submit, todo, run.n_slots, run.keep, watch.tick, run.give_up, told(watch, texts))
    if n_left := sum(run.reports[i].n_left if i in run.reports else texts[i].rows for i in run.still_open):
        unpriced_usd = sum(report.usage.unpriced_bound_usd for report in run.reports.values())
        raise BudgetError(run.purse.spent_usd, run.purse.max_usd or 0.0, n_left, unpriced_usd)
    return [run.reports[i] for i in range(len(texts))]


class _Run:
    """What came of each shard so far, and what the next ones may spend."""

    def __init__(self, plan: Plan, texts: Sequence[TableRef], cluster: Cluster, gate: Gate) -> None:
        self._plan, self._texts, self._cluster, self._gate = plan, texts, cluster, gate
        self.reports = {i: done for i, shard in enumerate(texts) if (done := find_annotations(plan, shard))}
        self.still_open = set(range(len(texts))) - set(self.reports)
        self.purse = Purse(plan.config.budget.max_usd)
        for i, report in self.reports.items():
            self.purse.settle(i, report.usage.charged_usd)
        if self.purse.max_usd is not None:
            self._settle_kept()

    def _settle_kept(self) -> None:
        """Count kept replies that no report counts, before anybody is granted what they cost.

        They are those of unfinished shards, and those of shards that were done when nobody knew a price.
        """
        usages = {i: report.usage for i, report in self.reports.items()}
        unknown = {i for i, usage in usages.items() if usage.n_unpriced and not usage.unpriced_bound_usd}
        shards = sorted(self.still_open | unknown)
        for i, usd in zip(shards, kept_usd(self._plan, [self._texts[i] for i in shards]), strict=True):
            self.purse.settle(i, max(usd, self.purse.cost_usd(i)))

    def n_slots(self) -> int:
        """Groups at once: each has one request under way at least; one alone until a paid shard has passed its checks.

        A mistake in the configuration shows in the first shard, and costs no more than that. One shard may use all of
        the run's limits, so little time is lost; a batch takes up to a day whatever its size, so there it would be.
        """
        teachers = self._plan.config.teachers
        is_paid = any(one.kind is TeacherKind.OPENAI and one.mode is TeacherMode.LIVE for one in teachers)
        if is_paid and not any(report.checks for report in self.reports.values()):
            return 1
        live = [one for one in teachers if one.mode is TeacherMode.LIVE]
        bounds = [teacher.max_in_flight for teacher in live if teacher.max_in_flight]
        return min([self._cluster.n_slots, *bounds])

    def submit(self, group: Shards) -> PrefectDaskFuture[GroupResult[AnnotateReport]] | None:
        """Start a group, unless there is no money for it now."""
        if not self.purse.may_grant:
            return None
        self._cluster.connect()
        n_expected = min(self.n_slots(), len(self.still_open))
        granted = self.purse.grant(group[0], n_sharers=n_expected - self.purse.n_granted)
        costs = tuple(self.purse.cost_usd(i) for i in group)
        grant = None if granted is None else Grant(granted - costs[0], costs)
        shards = [self._texts[i] for i in group]
        future: PrefectDaskFuture[GroupResult[AnnotateReport]] = annotate_group.submit(
            self._plan, shards, grant, self._cluster.run_id, n_expected, name_of_group(shards)
        )
        return future

    def keep(self, group: Shards, result: GroupResult[AnnotateReport]) -> Iterable[int]:
        """Note what came of a group; those of its shards again whose texts are left and may still be asked."""
        failed = [outcome for outcome in result.outcomes if isinstance(outcome, TransientError)]
        reports = {
            i: outcome
            for i, outcome in zip(group, result.outcomes, strict=False)
            if not isinstance(outcome, TransientError)
        }
        costs = {i: report.usage.charged_usd for i, report in reports.items()}
        n_left = sum(report.n_left for report in reports.values())
        if failed:
            self.purse.forfeit(group[0], costs, self._failed_usd(group, result))
        else:
            first = costs.pop(group[0], self.purse.cost_usd(group[0]))
            self.purse.settle(group[0], first, n_left > 0 and not result.was_stopped, costs)
        self.reports |= reports
        for report in reports.values():
            self._gate.pass_or_stop("annotations", report.checks)
        tried = group[: len(result.outcomes)]
        unfinished = [i for i, report in reports.items() if report.n_left]
        self.still_open -= set(tried) - set(unfinished)
        return unfinished if result.was_stopped or self.purse.max_usd is not None else ()

    def _failed_usd(self, group: Shards, result: GroupResult[AnnotateReport]) -> dict[int, float]:
        """What the failed shards of a group may have cost; without a cap nobody asks."""
        if self.purse.max_usd is None:
            return {}
        outcomes = zip(group, result.outcomes, strict=False)
        failed = [i for i, outcome in outcomes if isinstance(outcome, TransientError)]
        return {i: paid_at_most_usd(self._plan, self._texts[i]) for i in failed}

    def give_up(self, group: Shards) -> None:
        """Go on without the money of a group of which nothing came back."""
        self.purse.forfeit(group[0])
