"""Annotate as a task: a group of shards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prefect import task

from candist_core.errors import TransientError
from candist_core.reports import AnnotateReport
from candist_core.stages import annotate as stage
from candist_core.stages.plan import Plan
from candist_core.tables import TableRef
from tasks.groups import GroupResult, run_group
from tasks.policy import STAGE
from tasks.progress import progress_reporter
from tasks.secrets import read_api_keys
from tasks.shares import share_of_run


@dataclass(frozen=True, slots=True)
class Grant:
    """What a group may spend (US dollars): `more_usd` beyond `costs_usd`, which its shards' replies cost already."""

    more_usd: float
    costs_usd: tuple[float, ...]

    def bound(self, i: int) -> float:
        """What the replies of shard i may cost at most, whoever paid for them."""
        return self.costs_usd[i] + self.more_usd

    def less(self, i: int, report: AnnotateReport) -> "Grant":
        """What is left once shard i is done."""
        return replace(self, more_usd=max(0.0, self.more_usd - (report.usage.charged_usd - self.costs_usd[i])))


@task(name="annotate-shards", task_run_name="annotate {name}", **STAGE)
def annotate_group(
    plan: Plan, shards: Sequence[TableRef], grant: Grant | None, run_id: str, n_expected: int, name: str
) -> GroupResult[AnnotateReport]:
    """Annotate a group of shards with its part of the run's limits; of a shard that is done, take its tables.

    Args:
        plan: from `plan_annotation`.
        shards: under `texts/1`.
        grant: what their replies may cost; no bound when None.
        run_id: the flow run, whose limits are shared.
        n_expected: groups that are about to run at once.
        name: of the group.

    Returns:
        The shards' tables, in order. The group ends at a shard that fails the run's checks, that is left unfinished
        for want of money, or that failed while spending is bounded: what it spent has to be looked up first.
    """
    left, api_keys, on_progress = grant, read_api_keys(plan.config), progress_reporter()
    with share_of_run(run_id, n_expected) as share:

        def work(i: int) -> AnnotateReport:
            bound_usd = left.bound(i) if left else None
            return stage.annotate_shard(plan, shards[i], bound_usd, share, on_progress, api_keys)

        def goes_on(i: int, outcome: AnnotateReport | TransientError) -> bool:
            nonlocal left
            if isinstance(outcome, TransientError):
                return left is None
            left = left and left.less(i, outcome)
            return not outcome.n_left and not any(check.stops for check in outcome.checks)

        return run_group("annotate", shards, work, lambda: bool(share()), _numbers, goes_on)


def _numbers(report: AnnotateReport) -> str:
    usage, statuses = report.usage, report.statuses
    named = "".join(f", {n:,} {status}" for status, n in sorted(statuses.items()) if status != "ok")
    tokens = usage.prompt_tokens + usage.completion_tokens
    return f"{report.annotations.rows:,} rows{named}, {usage.n_requests:,} replies, {tokens:,} tokens"
