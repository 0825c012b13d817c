"""When requests may leave and how many may be under way at once, over all slots of a call. Times are seconds.

A refusal for the rate is pacing, not failure: it slows all senders down.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from candist_core.errors import RateLimitedError, TransientError
from candist_core.limits import KnownLimits, Limits
from candist_core.patience import PATIENCE, Breaker, Patience
from candist_core.ports import Quotas, RateLimit, Reply, Request, ShareOf
from candist_core.rate import Bucket, LearnedRate
from candist_core.window import Window

__all__ = ["PATIENCE", "Limits", "Pace", "Patience", "Sent", "whole"]

# How much of a rate may leave at once, so that timers need not be finer than they are.
_BURST_S = 0.02
# How often the share is asked for, and the longest that a slot waits without looking again.
_LOOK_AFTER_S = 0.5


def whole() -> float:
    """The share of someone who runs alone."""
    return 1.0


def nothing() -> float:
    """The share of someone who is to stop."""
    return 0.0


@dataclass(eq=False, slots=True)
class Sent:
    """One request under way."""

    number: int
    at: float
    n_tokens: float
    is_probe: bool


class Pace:
    """When requests may leave, and how many may be under way.

    Six things bound them: the window, the rate learned from refusals, the breaker, the limits that the endpoint tells
    in its headers, those that the user set, and a limit shared with other runs. All but the last two need no setting.

    Args:
        limits: of the whole run.
        patience: how long refusals and failures are borne.
        share: this call's part of the limits, of which batches have none; 0.0 stops it.
        shared: a limit kept elsewhere, used instead of the user's limits of rate.
        is_known: whether the endpoint has answered before; until it has, a failure is no outage.
        clock: seconds; `time.monotonic` when None.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        patience: Patience = PATIENCE,
        share: ShareOf = whole,
        shared: RateLimit | None = None,
        *,
        is_known: bool = False,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._patience, self._share, self._shared, self._sleep = patience, share, shared, sleep
        self._clock = clock or time.monotonic
        limits = limits or Limits()
        self._max_in_flight, self._is_batched = limits.max_in_flight, limits.is_batched
        self.window = Window(self._max_in_flight)
        self.n_in_flight = 0
        self._part, self._looked_at = 1.0, -math.inf
        self._learned = LearnedRate(default_wait_s=2 * patience.base_s)
        self._paced = Bucket(math.inf, 1.0)
        self._known = KnownLimits(limits, is_shared=shared is not None)
        self._breaker, self.is_known = Breaker(patience), is_known
        self._line, self._freed = asyncio.Lock(), asyncio.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether the run wants nothing sent any more."""
        self._look(self._clock())
        return self._part <= 0.0

    def stop(self) -> None:
        """Let nothing leave any more."""
        self._share, self._part = nothing, 0.0
        self._freed.set()

    async def ready(self, request: Request) -> Sent | None:
        """Wait until a request may leave, in the order of asking; None when nothing may any more."""
        n_tokens = self._known.tokens_of(request)
        if self._shared is None and not self._line.locked():
            now = self._clock()
            if not self._wait_s(now, n_tokens) and self._part > 0.0:
                return self._leave(now, n_tokens)
        async with self._line:
            while not self.is_stopped:
                wait_s = self._wait_s(self._clock(), n_tokens)
                if not wait_s and self._shared is not None:
                    wait_s = await self._shared.take(int(n_tokens))
                if not wait_s:
                    return self._leave(self._clock(), n_tokens)
                await self._pause(min(wait_s, _LOOK_AFTER_S))
        return None

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until the run wants nothing sent any more."""
        until = self._clock() + seconds
        while not self.is_stopped and (left_s := until - self._clock()) > 0:
            await self._sleep(min(left_s, _LOOK_AFTER_S))

    def answered(self, sent: Sent, reply: Reply | None, quotas: Quotas) -> None:
        """Note an answer, good or bad, that shows that the endpoint works; `reply` tells its tokens."""
        now = self._clock()
        self._release()
        self.is_known = True
        n_probes = self._breaker.n_probes
        if self._breaker.answered(sent.is_probe):
            self._learned.resume(now, was_long=n_probes > 1)
        self.window.answered(now, now - sent.at)
        if reply is not None:
            n_more = self._known.settle(now, sent.n_tokens, reply)
            if n_more and self._shared is not None:
                self._shared.settle(n_more)
        self._known.hear(quotas, self.n_in_flight, now)

    def failed(self, sent: Sent, error: TransientError | None = None) -> None:
        """Note that a request ended without an answer, by a failure or by the run's own will.

        Raises:
            TransientError: an endpoint that did answer has done nothing but fail for longer than `max_pause_s`.
        """
        now = self._clock()
        self._release()
        if error is None:
            self._breaker.cancelled(sent.is_probe)
        elif self.is_known and not self._is_batched:
            self._breaker.failed(now, sent.is_probe, self.n_in_flight, error.retry_after_s)
            if self._breaker.is_silent(now):
                raise TransientError(error.what, f"no answer in {self._patience.max_pause_s:g} s, last: {error.detail}")

    def refused(self, sent: Sent, error: RateLimitedError, quotas: Quotas) -> None:
        """Slow down after a refusal.

        Raises:
            TransientError: the endpoint has refused, or asks to be spared, for longer than `max_pause_s`.
        """
        now = self._clock()
        self._release()
        self.is_known = True
        self._known.hear(quotas, self.n_in_flight, now)
        is_shut = not sent.is_probe and self._learned.refused(sent.number, now, error.retry_after_s)
        if sent.is_probe or (is_shut and not self._breaker.is_shut):
            self._breaker.shut(now, error.retry_after_s)
        if self._breaker.is_silent(now, error.retry_after_s):
            limit = f"{self._patience.max_pause_s:g} s"
            raise TransientError(error.what, f"refuses every request for its rate over {limit}", error.retry_after_s)

    def _wait_s(self, now: float, n_tokens: float) -> float:
        """How long nothing may leave; for ever, as long as the window is full."""
        self._look(now)
        if self.n_in_flight >= self.window.size:
            return math.inf
        wait_s = self._breaker.wait_s(now)
        if (rate := self._learned.rate) < math.inf:
            self._paced.set_rate(now, rate, 1.0 + rate * _BURST_S)
            wait_s = max(wait_s, self._paced.wait_s(now))
        if self._known.is_any:
            wait_s = max(wait_s, self._known.wait_s(now, n_tokens))
        return wait_s

    def _leave(self, now: float, n_tokens: float) -> Sent:
        self.n_in_flight += 1
        self.window.left(self.n_in_flight)
        if self._learned.rate < math.inf:
            self._paced.take(now)
        if self._known.is_any:
            self._known.take(now, n_tokens)
        return Sent(self._learned.sent(now), now, n_tokens, self._breaker.left())

    def _release(self) -> None:
        self.n_in_flight -= 1
        self._freed.set()

    async def _pause(self, wait_s: float) -> None:
        """Wait so long; where that hangs on a request under way, only until one is back."""
        if self.n_in_flight < self.window.size and not self._breaker.is_shut:
            await self._sleep(wait_s)
            return
        self._freed.clear()
        # A wait that times out is the rule here, not an error.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._freed.wait(), wait_s)

    def _look(self, now: float) -> None:
        """Take this call's part of the limits as it is now."""
        if now - self._looked_at < _LOOK_AFTER_S:
            return
        self._looked_at, self._part = now, self._share()
        if self._is_batched and self._part > 0.0:
            self._part = 1.0
        if self._part > 0:
            if self._max_in_flight is not None:
                self.window.set_bound(max(1, int(self._max_in_flight * self._part)))
            self._known.set_part(self._part, now)
