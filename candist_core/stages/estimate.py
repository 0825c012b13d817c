"""Estimate: what a run would ask and pay, from its real prompts and the replies it already has. Sends nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from candist_core.budget import Estimate, Price, estimate, measure
from candist_core.config import RunConfig
from candist_core.edges.store import open_store
from candist_core.ports import Reply, Request
from candist_core.reports import IngestReport
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import Plan, Role, plan_annotation
from candist_core.stages.sample import find_asked, is_sampled
from candist_core.stages.teachers import open_reply_log
from candist_core.tables import TableRef
from candist_core.teacher_config import Combine, TeacherKind, TeacherMode
from candist_core.window import START

RowsOf = Callable[[pl.DataFrame], pl.DataFrame]
_SAMPLE_ROWS = 1_000
# CanDist's strong teachers are unsure of a tenth to a third of the texts.
_UNSURE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run would take.

    Of `n_texts` distinct texts the teacher reads `n_read`; `n_kept` requests need no call; `calls` is about the rest.
    """

    n_rows: int
    n_texts: int
    n_read: int
    n_kept: int
    calls: Estimate
    is_paid: bool
    ingested: IngestReport

    @property
    def cost_usd(self) -> float | None:
        """US dollars still to pay; None where no price is known."""
        return self.calls.cost_usd if self.is_paid else 0.0


def estimate_run(config: RunConfig) -> RunEstimate:
    """Read the corpus into shards (the run will find them), look up kept replies, and foresee the rest.

    Later teachers of a cascade are taken to read 30 % of the texts that the one before read.
    """
    ingested, plan = ingest_corpus(config), plan_annotation(config)
    n_read = config.sampling.teacher_rows or 0 if is_sampled(config, ingested) else ingested.n_texts
    asked = find_asked(config, ingested, plan)
    # Rounds end early or late: of a sample that is not drawn whole the rest is foreseen by what is.
    is_whole = bool(asked.rounds) and not asked.rounds[-1].texts
    drawn = asked.texts or ingested.texts[: max(1, n_read // max(1, config.source.shard_rows))]
    n_drawn = sum(table.rows for table in drawn)
    n_read = n_drawn if is_whole else n_read
    scope = _Scope(drawn, n_drawn, n_read / max(1, n_drawn))
    total, n_kept = _foresee(plan, scope, lambda texts: texts)
    if plan.again is not None:
        more, n_kept_again = _foresee(plan.again.plan, scope, plan.again.of)
        total, n_kept = total + more, n_kept + n_kept_again
    is_paid = any(role.teacher.kind is TeacherKind.OPENAI for role in plan.roles)
    return RunEstimate(ingested.n_rows, ingested.n_texts, n_read, n_kept, total, is_paid, ingested)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Tables of texts to look at, their rows, and how many times as many the teacher reads in all."""

    texts: tuple[TableRef, ...]
    n_texts: int
    times: float


def _foresee(plan: Plan, scope: _Scope, rows_of: RowsOf) -> tuple[Estimate, int]:
    """What a plan's teachers would be asked about such rows of each shard, and how many replies are kept."""
    total, n_kept, part = Estimate(0, 0, 0, 0.0, 0.0, True), 0, 1.0
    for role in plan.roles:
        seen = _look(plan, role, scope, rows_of)
        n_requests = int(round(part * scope.times * seen.n_requests, 6))
        total += _estimate_of(plan.config, role, seen, max(0, n_requests - seen.n_kept))
        n_kept += seen.n_kept
        part *= _UNSURE_SHARE if plan.config.combine is Combine.CASCADE else 1.0
    return total, n_kept


@dataclass
class _Seen:
    """What one teacher would be asked: requests in all, those kept, and samples of both."""

    n_requests: int = 0
    n_kept: int = 0
    sample: list[Request] = field(default_factory=list)
    answered: list[tuple[Request, Reply]] = field(default_factory=list)


def _look(plan: Plan, role: Role, scope: _Scope, rows_of: RowsOf) -> _Seen:
    store, seen = open_store(plan.config.store), _Seen()
    log = open_reply_log(plan, role, store, "estimate")
    for shard in scope.texts:
        asked = [request for _, own in plan.requests(role, rows_of(plan.texts(store, shard))) for request in own]
        kept = log.lookup(request.key for request in asked)
        # A share of every shard, so that a corpus sorted by length is met in full.
        every = max(1, len(asked) * scope.n_texts // (_SAMPLE_ROWS * max(1, shard.rows)))
        seen.sample += asked[::every]
        seen.answered += [(request, kept[request.key]) for request in asked[::every] if request.key in kept]
        seen.n_requests += len(asked)
        seen.n_kept += len(kept)
    return seen


def _estimate_of(config: RunConfig, role: Role, seen: _Seen, n_calls: int) -> Estimate:
    teacher = role.teacher
    is_live = teacher.mode is TeacherMode.LIVE
    return estimate(
        seen.sample,
        config.task,
        n_calls,
        price=role.price if teacher.kind is TeacherKind.OPENAI else Price(0.0, 0.0, 0.0),
        max_in_flight=(teacher.max_in_flight or START) if is_live else max(1, n_calls),
        reasons=teacher.reasoning,
        measured=measure(seen.answered),
    )
