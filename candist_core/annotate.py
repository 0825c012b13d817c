"""Annotate: texts, a prompt and a teacher to candidate sets; each reply is paid once and kept before it is read.

Requests run in slots: as many coroutines as may be in flight, over one iterator. A `RowError` rejects its row, any
other error stops the call. Invariant: the annotations depend on texts and replies alone, never on times or costs.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import polars as pl

from candist_core.budget import Allowance
from candist_core.candidates import CandidateSet, Status
from candist_core.errors import RowError
from candist_core.pace import PATIENCE, Asker, Patience
from candist_core.parse import parse_reply
from candist_core.ports import OnProgress, Progress, Reply, ReplyLog, Request, Teacher, ignore_progress
from candist_core.prompt import Prompt
from candist_core.reports import Usage
from candist_core.spec import TaskSpec
from candist_core.tables import ANNOTATIONS, REJECTS, TEXTS, check

logger = logging.getLogger(__name__)

# What a dying machine may cost at most; a flush takes about a tenth of a second, beside the requests.
FLUSH_REPLIES, FLUSH_AFTER_S = 256, 2.0
_PROGRESS_AFTER_S = 1.0
_MAX_DETAIL_CHARS = 2000


@dataclass(frozen=True)
class Annotations:
    """What came of one shard; `n_left` texts have no row because the allowance ended first."""

    annotations: pl.DataFrame
    rejects: pl.DataFrame
    usage: Usage
    n_left: int


async def annotate(
    texts: pl.DataFrame,
    spec: TaskSpec,
    prompt: Prompt,
    teacher: Teacher,
    log: ReplyLog,
    *,
    max_in_flight: int,
    max_attempts: int,
    allowance: Allowance | None,
    on_progress: OnProgress = ignore_progress,
    part: str = "",
    patience: Patience = PATIENCE,
) -> Annotations:
    """Ask the teacher about every text that no kept reply answers.

    Args:
        texts: under `texts/1`; equal texts are asked once.
        spec: the task, for reading replies.
        prompt: compiled from the same task.
        teacher: answers one request at a time; it is not closed here.
        log: keeps replies; looked into first, flushed on every way out.
        max_in_flight: slots.
        max_attempts: tries of one request before its row is rejected.
        allowance: what all replies may cost, kept ones included; no cap when None.
        on_progress: told at the start, about once a second, and at the end.
        part: the shard's name, for progress and the log line.
        patience: waits between attempts.

    Returns:
        Annotations in the order of the texts; a failed row has status `failed` and a row among the rejects.

    Raises:
        TeacherError: no request will ever succeed, by the teacher's word or because none of the first did.
        TransientError: the endpoint fell silent, or refused everything for too long.
    """
    started_at = time.monotonic()
    keys: list[str] = []
    requests: dict[str, Request] = {}
    for doc_id, text in check(texts, TEXTS).iter_rows():
        request = prompt.request(doc_id, text)
        requests.setdefault(request.key, request)
        keys.append(request.key)
    kept = await asyncio.to_thread(log.lookup, requests)

    def read(reply: Reply) -> CandidateSet:
        return parse_reply(spec, reply.reply, reply.finish_reason)

    def tell(n_done: int, cost_usd: float) -> None:
        on_progress(Progress("annotate", part, n_done, len(requests), cost_usd=cost_usd))

    reused_usd = sum(reply.cost_usd or 0.0 for reply in kept.values())
    if allowance is not None:
        allowance.spent_usd += reused_usd
    asked = [request for key, request in requests.items() if key not in kept]
    n_slots = min(max_in_flight, len(asked))
    asker = Asker(teacher, max_attempts=max_attempts, n_slots=n_slots, is_known=bool(kept), patience=patience)
    call = _Call(asker, log, allowance, read, tell, sets={key: read(reply) for key, reply in kept.items()})
    await call.run(asked, n_slots)
    usage = call.usage + Usage(n_reused=len(kept), reused_usd=reused_usd)
    result = _tables(texts["doc_id"].to_list(), keys, call, usage, teacher.name)
    _log_line(result, part, time.monotonic() - started_at)
    return result


@dataclass(eq=False)
class _Call:
    """What the slots of one call share, and what has come of it so far, by request key."""

    asker: Asker
    log: ReplyLog
    allowance: Allowance | None
    read: Callable[[Reply], CandidateSet]
    tell: Callable[[int, float], None]
    sets: dict[str, CandidateSet]
    failures: dict[str, RowError] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    is_spent: bool = False
    is_ending: bool = False
    n_unflushed: int = 0
    told_at: float = -_PROGRESS_AFTER_S
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    flush_now: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, requests: Sequence[Request], n_slots: int) -> None:
        """Work through the requests; on any way out, every reply that arrived is in the store."""
        error: BaseException | None = None
        queue = iter(requests)
        self._show_progress()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_flushing())
                slots = [group.create_task(self._slot(queue)) for _ in range(n_slots)]
                if slots:
                    await asyncio.wait(slots)
                self.is_ending = True
                self.flush_now.set()
        except BaseExceptionGroup as errors:
            error = _first(errors)
        finally:
            await asyncio.to_thread(self.log.flush)
        if error is not None:
            raise error
        self._show_progress(is_last=True)

    async def _slot(self, queue: Iterator[Request]) -> None:
        for request in queue:
            if self.allowance is None:
                await self._handle(request)
            elif not await self._handle_within(self.allowance, request):
                return

    async def _handle_within(self, allowance: Allowance, request: Request) -> bool:
        """Handle a request if the allowance can bear it; False once it is used up for good."""
        bound_usd = allowance.bound_usd(request)
        while not allowance.reserve(bound_usd):
            self.is_spent = self.is_spent or not allowance.n_reserved
            if self.is_spent:
                return False
            # Replies under way cost less than their bounds; what they give back may suffice.
            self.settled.clear()
            await self.settled.wait()
        actual_usd = 0.0
        try:
            reply = await self._handle(request)
            if reply is not None:
                # A reply without a cost may have cost all that it could.
                actual_usd = bound_usd if reply.cost_usd is None else reply.cost_usd
        finally:
            allowance.settle(bound_usd, actual_usd)
            self.settled.set()
        return True

    async def _handle(self, request: Request) -> Reply | None:
        """Turn one request into a set or a failure; the reply, if there is one."""
        try:
            reply = await self.asker.ask(request)
        except RowError as error:
            self.failures[request.key] = error
            self._show_progress()
            return None
        self.log.append(reply)
        self.usage += _usage_of(reply)
        self.sets[request.key] = self.read(reply)
        self.n_unflushed += 1
        if self.n_unflushed >= FLUSH_REPLIES:
            self.flush_now.set()
        self._show_progress()
        return reply

    async def _keep_flushing(self) -> None:
        while not self.is_ending:
            # A wait that times out is the rule here, not an error.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.flush_now.wait(), FLUSH_AFTER_S)
            self.flush_now.clear()
            if self.n_unflushed and not self.is_ending:
                self.n_unflushed = 0
                await asyncio.to_thread(self.log.flush)

    def _show_progress(self, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now - self.told_at >= _PROGRESS_AFTER_S:
            self.told_at = now
            self.tell(len(self.sets) + len(self.failures), self.usage.cost_usd)


def _usage_of(reply: Reply) -> Usage:
    return Usage(
        n_requests=1,
        prompt_tokens=reply.prompt_tokens,
        cached_tokens=reply.cached_tokens,
        completion_tokens=reply.completion_tokens,
        cost_usd=reply.cost_usd or 0.0,
        n_unpriced=int(reply.cost_usd is None),
    )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tables(doc_ids: Sequence[str], keys: Sequence[str], call: _Call, usage: Usage, teacher: str) -> Annotations:
    """Both tables, rows in the order of the texts."""
    failed = CandidateSet(status=Status.FAILED)
    rows, rejects = [], []
    for doc_id, key in zip(doc_ids, keys, strict=True):
        if (error := call.failures.get(key)) is not None:
            rejects.append((doc_id, "annotate", error.reason, error.detail[:_MAX_DETAIL_CHARS]))
        found = failed if error is not None else call.sets.get(key)
        if found is not None:
            rows.append((doc_id, found.labels, found.scores, str(found.status), teacher, key))
    annotations = pl.DataFrame(rows, schema=ANNOTATIONS.columns, orient="row")
    return Annotations(
        annotations=check(annotations, ANNOTATIONS),
        rejects=check(pl.DataFrame(rejects, schema=REJECTS.columns, orient="row"), REJECTS),
        usage=usage,
        n_left=len(doc_ids) - annotations.height,
    )


def _log_line(result: Annotations, part: str, seconds: float) -> None:
    counts = Counter(result.annotations["status"])
    statuses = "".join(f", {counts[name]} {name}" for name in Status if name is not Status.OK and counts[name])
    usage = result.usage
    logger.info(
        "annotated %d rows of %s%s, %d left, %d reused replies, %d tokens, $%.4f, %.1f s",
        result.annotations.height, part or "one shard", statuses, result.n_left, usage.n_reused,
        usage.prompt_tokens + usage.completion_tokens, usage.cost_usd, seconds,
    )  # fmt: skip
