"""The slots of one call: as many requests under way as the pace allows, paid within the allowance, each reply kept.

A `RowError` fails its request; any other error stops the call, once what is under way has had some seconds to come
back. On any way out every reply that arrived is in the store.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from candist_core.asker import Asker
from candist_core.budget import Allowance
from candist_core.candidates import CandidateSet
from candist_core.errors import RateLimitedError, RowError
from candist_core.ports import Reply, ReplyLog, Request
from candist_core.reports import Usage
from candist_core.work import Work

# What a dying machine may cost at most; a flush takes about a tenth of a second, beside the requests.
FLUSH_REPLIES, FLUSH_AFTER_S = 256, 2.0
_PROGRESS_AFTER_S = 1.0
# How often a call asks whether anybody waits for it still, and how long it then waits for replies under way.
_LOOK_AFTER_S, _GRACE_S = 0.25, 5.0
_TOO_LONG = "context_length_exceeded"


@dataclass(slots=True)
class Tally:
    """What the replies of one call used up; a `Usage` that is cheap to add to."""

    n_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    n_unpriced: int = 0
    unpriced_bound_usd: float = 0.0

    def add(self, reply: Reply) -> None:
        """Count one reply."""
        self.n_requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens
        self.completion_tokens += reply.completion_tokens
        if reply.cost_usd is None:
            self.n_unpriced += 1
        else:
            self.cost_usd += reply.cost_usd

    def charge(self, reply: Reply, bound_usd: float) -> float:
        """What a reply counts for: one without a cost may have cost all that it could."""
        if reply.cost_usd is not None:
            return reply.cost_usd
        self.unpriced_bound_usd += bound_usd
        return bound_usd

    def usage(self, **more: float) -> Usage:
        """The same as a report."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return Usage(**own, **more)


@dataclass(eq=False)
class Asking:
    """What the slots of one call share, and what has come of it so far, by request key."""

    asker: Asker
    log: ReplyLog
    allowance: Allowance | None
    read: Callable[[Reply], CandidateSet]
    shorter: Callable[[Request], Request | None]
    tell: Callable[[int, float], None]
    sets: dict[str, CandidateSet]
    # Requests that were answered in a shorter form, with that form's key.
    answered_by: dict[str, str] = field(default_factory=dict)
    failures: dict[str, RowError] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    _is_spent: bool = False
    _error: Exception | None = None
    _slots: set[asyncio.Task[None]] = field(default_factory=set)
    _n_unflushed: int = 0
    _told_at: float = -_PROGRESS_AFTER_S
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _flush_now: asyncio.Event = field(default_factory=asyncio.Event)
    _all_done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, requests: Sequence[Request]) -> None:
        """Work through the requests."""
        error: BaseException | None = None
        self._show_progress()
        try:
            async with asyncio.TaskGroup() as group:
                self._work = Work(requests)
                self._group, self._most = group, len(requests)
                self._open_slots()
                if self._slots:
                    group.create_task(self._keep_flushing())
                    group.create_task(self._stop_when_asked())
        except BaseExceptionGroup as errors:
            error = _first(errors)
        finally:
            await asyncio.to_thread(self.log.flush)
        if (error := self._error or error) is not None:
            raise error
        self._show_progress(is_last=True)

    def _open_slots(self) -> None:
        """As many slots as may be under way; a window that narrows leaves the others waiting."""
        for _ in range(min(self.asker.pace.window.size, self._most) - len(self._slots)):
            slot = self._group.create_task(self._slot())
            self._slots.add(slot)
            slot.add_done_callback(self._close_slot)

    def _close_slot(self, slot: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if not self._slots:
            self._flush_now.set()
            self._all_done.set()

    async def _slot(self) -> None:
        try:
            await self._take_turns()
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        """Send nothing more; raised here, an error would cancel replies that are paid for already."""
        self._error = self._error or error
        self._work.stop()
        self.asker.pace.stop()
        self._settled.set()

    async def _take_turns(self) -> None:
        while (request := await self._work.next()) is not None:
            try:
                if not await self._handle_within(request):
                    self._work.stop()
                    return
            except RateLimitedError as refusal:
                self._work.put_off(request, time.monotonic() + self.asker.put_off_s(request, refusal))
                await asyncio.sleep(self.asker.breath_s)
            else:
                self._work.settled()

    async def _handle_within(self, request: Request) -> bool:
        """Handle a request if the allowance can bear it; False once nothing may be sent any more."""
        allowance = self.allowance
        if allowance is None:
            return await self._handle(request) is not None
        bound_usd = allowance.bound_usd(request)
        while not allowance.reserve(bound_usd):
            self._is_spent = self._is_spent or not allowance.n_reserved
            if self._is_spent:
                return False
            # Replies under way cost less than their bounds; what they give back may suffice.
            self._settled.clear()
            await self._settled.wait()
        actual_usd = 0.0
        try:
            outcome = await self._handle(request)
            if isinstance(outcome, Reply):
                actual_usd = self.tally.charge(outcome, bound_usd)
        finally:
            allowance.settle(bound_usd, actual_usd)
            self._settled.set()
        return outcome is not None

    async def _handle(self, request: Request) -> Reply | RowError | None:
        """Turn one request into a set or a failure; None when nothing may be sent any more."""
        try:
            reply = await self._ask(request)
        except RowError as error:
            self.failures[request.key] = error
            self._show_progress()
            return error
        if reply is None:
            return None
        self.log.append(reply)
        self.tally.add(reply)
        self.sets[request.key] = self.read(reply)
        if reply.request_key != request.key:
            self.answered_by[request.key] = reply.request_key
        self._n_unflushed += 1
        if self._n_unflushed >= FLUSH_REPLIES:
            self._flush_now.set()
        if len(self._slots) < self.asker.pace.window.size:
            self._open_slots()
        self._show_progress()
        return reply

    async def _ask(self, request: Request) -> Reply | None:
        """The reply; a text that the endpoint finds too long is asked once more, cut."""
        try:
            return await self.asker.ask(request)
        except RowError as error:
            if error.reason != _TOO_LONG or (cut := self.shorter(request)) is None:
                raise
        return await self.asker.ask(cut)

    async def _keep_flushing(self) -> None:
        while self._slots:
            # A wait that times out is the rule here, not an error.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._flush_now.wait(), FLUSH_AFTER_S)
            self._flush_now.clear()
            if self._n_unflushed and self._slots:
                self._n_unflushed = 0
                try:
                    await asyncio.to_thread(self.log.flush)
                except Exception as error:
                    self._end(error)
                    return

    async def _stop_when_asked(self) -> None:
        """Once the call has failed, or nobody waits for it, end it: what is under way has some seconds to come back."""
        while not await self._is_done_in(_LOOK_AFTER_S):
            if self.asker.pace.is_stopped:
                self._work.stop()
                if not await self._is_done_in(_GRACE_S):
                    for slot in self._slots:
                        slot.cancel()
                return

    async def _is_done_in(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_done.wait(), seconds)
        return self._all_done.is_set()

    def _show_progress(self, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now - self._told_at >= _PROGRESS_AFTER_S:
            self._told_at = now
            self.tell(len(self.sets) + len(self.failures), self.tally.cost_usd)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
