"""A teacher behind a provider's batch endpoint: half the price, answers within a day.

Requests that are asked together travel as one batch, and each waits for its own result. A run may be stopped or
killed at any time: its batches go on at the provider, and the next run with the same store takes their replies.
Invariant: a request that is waited for stands in the collection, in the pool or in a batch, and each of these ends by
answering it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass

from candist_core.batch import BatchLedger, BatchPace, Result, count_fitting, input_line
from candist_core.budget import Price
from candist_core.edges.batch_client import BatchClient
from candist_core.edges.batch_tracker import Batch, BatchTracker, Outcome
from candist_core.edges.chat import ChatWire
from candist_core.edges.openai_teacher import check_endpoint, usable_key
from candist_core.errors import CandistError, RateLimitedError, TeacherError, TransientError
from candist_core.ports import Quotas, Reply, Request, TableStore
from candist_core.teacher_config import TeacherConfig

logger = logging.getLogger(__name__)

# OpenAI's limits of one input file: 50,000 requests, 200 MB.
MAX_REQUESTS = 50_000
_MAX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class _Line:
    """A request's line of an input file, and the fingerprint of its head."""

    head: str
    data: bytes


class BatchTeacher:
    """Asks one model in batches.

    `close` belongs after the reply log's: it drops the records of what was delivered. Whatever was not, because the run
    was interrupted or the process died, stays under way at the provider and is taken up by the next teacher over the
    same store, under any name, at its first request of the same head.

    Args:
        config: the endpoint and the model.
        api_key: the key.
        price: what batch tokens cost, the discount taken off; None when unknown.
        store: where records of batches under way are kept.
        name: the folder for new records, a plain word such as the shard's name.
        max_requests: the most requests of one batch.
        pace: waits.
    """

    def __init__(
        self,
        config: TeacherConfig,
        api_key: str,
        price: Price | None,
        store: TableStore,
        name: str,
        *,
        max_requests: int = MAX_REQUESTS,
        pace: BatchPace | None = None,
    ) -> None:
        self._config, self._pace = config, pace or BatchPace()
        self._wire = ChatWire(config, api_key, price)
        self._client = BatchClient(config, api_key, self._wire)
        self._tracker = BatchTracker(self._client, self._wire.place, BatchLedger(store, name), self._pace)
        self._max_requests, self._max_bytes = min(max_requests, MAX_REQUESTS), _MAX_BYTES
        # All by request key: who waits; what was asked lately; what waits for a batch; results nobody has asked for.
        self._waiting: dict[str, list[tuple[Request, asyncio.Future[Reply]]]] = {}
        self._collection: dict[str, _Line] = {}
        self._pool: dict[str, _Line] = {}
        self._spare: dict[str, tuple[Batch, Result, float]] = {}
        self._delivered: set[str] = set()
        self._n_bytes, self._asked_at = 0, 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._submitting: asyncio.Task[None] | None = None
        self._following: dict[Batch, asyncio.Task[None]] = {}
        self._sorting = asyncio.Lock()

    @property
    def name(self) -> str:
        """As that of the live teacher: the replies are the same."""
        return f"openai:{self._config.model_name}"

    @property
    def quotas(self) -> Quotas:
        """None: batches have limits of their own, of which nothing is told before they are reached."""
        return Quotas()

    async def ask(self, request: Request) -> Reply:
        """Wait for the request's result, up to a day or more; see `Teacher.ask`.

        Raises:
            TransientError: its batch ended without a result for it; asked again, it goes into a later one.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request.key, []).append((request, future))
        self._collect(request)
        reply = await future
        # No other task runs between this and the caller's taking the reply.
        self._delivered.add(request.key)
        return reply

    async def close(self, is_kept: bool = True) -> None:
        """Stop waiting, drop the records of batches whose every reply was delivered and is kept, close connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, future in (pair for waiting in self._waiting.values() for pair in waiting):
            future.cancel()
        await self._tracker.close(self._delivered if is_kept else frozenset())

    def _collect(self, request: Request) -> None:
        """Put a request into the collection, which is sorted when it is full or no more come."""
        line = _Line(request.head.fingerprint, input_line(request.key, self._wire.body(request)))
        self._collection[request.key] = line
        self._n_bytes += len(line.data)
        self._asked_at = asyncio.get_running_loop().time()
        if len(self._collection) >= self._max_requests or self._n_bytes >= _MAX_BYTES:
            self._close_collection()
        elif self._closing is None or self._closing.done():
            self._closing = self._start(self._close_when_quiet(), lambda: ())

    async def _close_when_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        while (wait_s := self._asked_at + self._pace.quiet_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        self._close_collection()

    def _close_collection(self) -> None:
        lines, self._collection, self._n_bytes = self._collection, {}, 0
        if lines:
            self._start(self._sort(lines), lambda: lines)

    async def _sort(self, lines: dict[str, _Line]) -> None:
        """Send each request to the result or batch that has it, or to the pool."""
        async with self._sorting:
            for head in {line.head for line in lines.values()}:
                await self._tracker.restore(head, lines.keys())
        for key, line in lines.items():
            if not self._is_awaited(key):
                self._waiting.pop(key, None)
            elif key in self._spare:
                self._resolve(key, *self._spare.pop(key))
            elif (batch := self._tracker.owner(key)) is not None:
                self._follow(batch)
            else:
                self._pool[key] = line
        if self._pool and (self._submitting is None or self._submitting.done()):
            self._submitting = self._start(self._submit_pool(), self._empty_pool)

    async def _submit_pool(self) -> None:
        """Make batches of the pool, one after the other, each once the provider has taken the one before."""
        n_full, was_idle = 0, False
        while self._pool:
            part = self._next_part()
            batch = await self._tracker.submit(self._pool[part[0]].head, {key: self._pool[key].data for key in part})
            if (await self._tracker.validated(batch)).is_queue_full:
                await self._tracker.drop(batch)
                if was_idle:
                    self._shrink(part)
                n_full += 1
                was_idle = await self._wait_for_room(part, n_full)
                continue
            n_full, was_idle = 0, False
            self._max_bytes = min(2 * self._max_bytes, _MAX_BYTES)
            for key in part:
                del self._pool[key]
            self._follow(batch)

    def _next_part(self) -> list[str]:
        """The first requests of the pool that make one file; all of one head, as a file may name one model only."""
        head = next(iter(self._pool.values())).head
        alike = [key for key, line in self._pool.items() if line.head == head]
        sizes = (len(self._pool[key].data) for key in alike)
        return alike[: count_fitting(sizes, self._max_requests, self._max_bytes)]

    def _shrink(self, part: Sequence[str]) -> None:
        """Make smaller files from now on: this one was too large for a queue with nothing else in it."""
        if len(part) == 1:
            raise TransientError(self._wire.place, "its queue of tokens is full for even one request")
        self._max_bytes = max(1, sum(len(self._pool[key].data) for key in part) // 2)

    async def _wait_for_room(self, part: Sequence[str], n_full: int) -> bool:
        """Wait while the provider's queue is full; whether nothing is left in it then."""
        logger.info("the queue of %s is full for %d requests, waiting", self._wire.place, len(part))
        wait_s = self._pace.wait_s(n_full)
        if self._following:
            await asyncio.wait(self._following.values(), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(wait_s)
        return await self._tracker.is_idle()

    def _empty_pool(self) -> list[str]:
        keys = list(self._pool)
        self._pool.clear()
        return keys

    def _follow(self, batch: Batch) -> None:
        if batch not in self._following:
            self._following[batch] = self._start(self._bring(batch), lambda: self._let_go(batch))

    def _let_go(self, batch: Batch) -> Iterable[str]:
        return [key for key in batch.record.keys if self._tracker.owner(key) in (batch, None)]

    async def _bring(self, batch: Batch) -> None:
        """Hand a batch's results to those who wait."""
        try:
            outcome = await self._tracker.outcome(batch)
        finally:
            del self._following[batch]
        latency_s = outcome.state.duration_s
        # Without a pause: an error may end the run, but not before those that wait have taken what is paid for.
        for key, result in outcome.results.items():
            if self._is_awaited(key):
                self._resolve(key, batch, result, latency_s)
            else:
                self._waiting.pop(key, None)
                self._spare[key] = (batch, result, latency_s)
        self._fail(outcome.missing, self._reason(batch, outcome))

    def _reason(self, batch: Batch, outcome: Outcome) -> CandistError:
        """Why requests have no result."""
        state = outcome.state
        # What an earlier run was refused may have been mended since, and a full queue empties.
        if state.status == "failed" and state.refusals and not (batch.is_adopted or state.is_queue_full):
            return self._client.refusal(state.refusals)
        return TransientError(self._wire.place, f"a batch that is {state.status} without a result for the request")

    def _is_awaited(self, key: str) -> bool:
        return not all(future.done() for _, future in self._waiting.get(key, []))

    def _resolve(self, key: str, batch: Batch, result: Result, latency_s: float) -> None:
        for request, future in self._waiting.pop(key):
            if future.done():
                continue
            outcome = self._read(request, batch, result, latency_s)
            if isinstance(outcome, Reply):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _read(self, request: Request, batch: Batch, result: Result, latency_s: float) -> Reply | CandistError:
        if result.is_paid:
            try:
                return self._wire.reply(request, result.body, latency_s)
            except TransientError as error:
                return error
        failure = self._wire.failure(result.status, {}, result.body)
        # A limit met inside a batch says nothing of when to send the next, and an old verdict may hold no more.
        if isinstance(failure, RateLimitedError) or (batch.is_adopted and isinstance(failure, TeacherError)):
            return TransientError(self._wire.place, f"HTTP {result.status} in a batch")
        return failure

    def _fail(self, keys: Iterable[str], error: BaseException) -> None:
        for _, future in (pair for key in keys for pair in self._waiting.pop(key, [])):
            if not future.done():
                future.set_exception(error)

    def _start(self, work: Coroutine[object, object, None], keys: Callable[[], Iterable[str]]) -> "asyncio.Task[None]":
        """Run work beside the requests; if it fails, so do those of `keys`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def end(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(keys(), error)

        task.add_done_callback(end)
        return task


def open_batch_teacher(
    config: TeacherConfig,
    price: Price | None,
    store: TableStore,
    name: str,
    api_key: str | None = None,
    *,
    max_requests: int = MAX_REQUESTS,
    pace: BatchPace | None = None,
) -> BatchTeacher:
    """The batch teacher of a shard; arguments as of `BatchTeacher`, the key read as the live teacher's is.

    Raises:
        TeacherError: a base URL that is none, no key for OpenAI's own endpoint, a key that no header can hold.
    """
    check_endpoint(config)
    key = usable_key(config, api_key)
    return BatchTeacher(config, key, price, store, name, max_requests=max_requests, pace=pace)
