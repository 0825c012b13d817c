"""When requests may leave and how many may be under way at once, over all slots of a call. Times are seconds.

A refusal for the rate is pacing, not failure: it slows all senders down. Invariant: waits follow from the request's key
and the endpoint's answers, never from chance.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from candist_core.budget import BYTES_PER_TOKEN
from candist_core.errors import RateLimitedError, TransientError
from candist_core.ports import Quota, Quotas, RateLimit, Reply, Request, ShareOf
from candist_core.rate import Bucket, LearnedRate
from candist_core.window import Window

# How much of a rate may leave at once, so that timers need not be finer than they are.
_BURST_S = 0.02
# How often the share is asked for, and the longest that a slot waits without looking again.
_LOOK_AFTER_S = 0.5
# Before any reply has told.
_FIRST_COMPLETION_TOKENS = 32.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What all senders of a run may use together; None where nothing is known."""

    max_in_flight: int | None = None
    max_requests_per_min: int | None = None
    max_tokens_per_min: int | None = None


def whole() -> float:
    """The share of someone who runs alone."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failed requests are waited for (seconds).

    `max_pause_s` bounds what an endpoint may ask for at a time, and how long it may refuse all requests
    without answering a single one.
    """

    base_s: float = 0.5
    cap_s: float = 30.0
    max_pause_s: float = 600.0

    def grown_s(self, n: int) -> float:
        """The n-th wait in a row without jitter, n from 1: doubled each time, up to `cap_s`."""
        # 2**60 s is beyond any cap, and larger powers overflow a float.
        return float(min(self.cap_s, self.base_s * 2 ** min(n - 1, 60)))

    def backoff_s(self, key: str, n_attempts: int, retry_after_s: float | None = None) -> float:
        """The wait before a request's next attempt: exponential with full jitter, never before `retry_after_s`.

        Source:
            Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.

        Example:
            >>> Patience(base_s=1.0, cap_s=4.0).backoff_s("key", n_attempts=9) <= 4.0
            True
        """
        jitter = random.Random(f"{key}/{n_attempts}").random() * self.grown_s(n_attempts)
        return max(jitter, min(retry_after_s or 0.0, self.max_pause_s))

    @property
    def breath_s(self) -> float:
        """About a round trip: a refused slot holds still for it, so that a burst of refusals is seen as one."""
        return self.base_s / 10


PATIENCE = Patience()


@dataclass(eq=False, slots=True)
class Sent:
    """One request under way."""

    number: int
    at: float
    n_tokens: float


class Pace:
    """When requests may leave, and how many may be under way.

    Five things bound them: the window, the rate learned from refusals, the limits that the endpoint tells in its
    headers, those that the user set, and a limit shared with other runs. All but the last two need no setting.

    Args:
        limits: of the whole run.
        patience: how long refusals are borne.
        share: this call's part of the limits; 0.0 stops it.
        shared: a limit kept elsewhere, used instead of the user's limits of rate.
        clock: seconds; `time.monotonic` when None.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        patience: Patience = PATIENCE,
        share: ShareOf = whole,
        shared: RateLimit | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits = limits or Limits()
        self._patience, self._share, self._shared, self._sleep = patience, share, shared, sleep
        self._clock = clock or time.monotonic
        self.window = Window(self._limits.max_in_flight)
        self.n_in_flight = 0
        self._part, self._looked_at = 1.0, -math.inf
        self._learned = LearnedRate(default_wait_s=2 * patience.base_s)
        self._paced = Bucket(math.inf, 1.0)
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._told_requests: Bucket | None = None
        self._told_tokens: Bucket | None = None
        self._quotas: Quotas | None = None
        self._hold_until, self._n_shut, self._n_answered, self._refused_since = -math.inf, 0, 0, math.nan
        self._completion_tokens, self._n_counted = _FIRST_COMPLETION_TOKENS, 0
        self._line, self._freed = asyncio.Lock(), asyncio.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether the run wants nothing sent any more."""
        self._look(self._clock())
        return self._part <= 0.0

    async def ready(self, request: Request) -> Sent | None:
        """Wait until a request may leave, in the order of asking; None when nothing may any more."""
        n_tokens = self._tokens_of(request)
        if self._shared is None and not self._line.locked() and not self._wait_s(n_tokens) and self._part:
            return self._leave(n_tokens)
        async with self._line:
            while not self.is_stopped:
                wait_s = self._wait_s(n_tokens)
                if not wait_s and self._shared is not None:
                    wait_s = await self._shared.take(int(n_tokens))
                if not wait_s:
                    return self._leave(n_tokens)
                await self._pause(min(wait_s, _LOOK_AFTER_S))
        return None

    def answered(self, sent: Sent, reply: Reply | None, quotas: Quotas) -> None:
        """Note an answer, good or bad, that shows that the endpoint works; `reply` tells its tokens."""
        now = self._clock()
        self._release()
        self._n_answered += 1
        self._n_shut, self._refused_since = 0, math.nan
        self.window.answered(now, now - sent.at)
        if reply is not None and (self._tokens or self._told_tokens or self._shared):
            self._settle(sent, reply, now)
        self._hear(quotas, now)

    def failed(self) -> None:
        """Note that a request ended without an answer."""
        self._release()

    def refused(self, sent: Sent, error: RateLimitedError, quotas: Quotas) -> None:
        """Slow down after a refusal.

        Raises:
            TransientError: the endpoint has refused, or asks to be spared, for longer than `max_pause_s`.
        """
        now = self._clock()
        self._release()
        self._hear(quotas, now)
        if math.isnan(self._refused_since):
            self._refused_since = now
        if self._learned.refused(sent.number, now, error.retry_after_s):
            self.window.refused(now)
            if not self._n_answered:
                # Nothing else came back either: the endpoint takes no requests for the moment.
                self._n_shut += 1
                pause_s = max(error.retry_after_s or 0.0, self._patience.grown_s(self._n_shut))
                self._hold_until = max(self._hold_until, now + pause_s)
            self._n_answered = 0
        ends_at = max(self._hold_until, now + (error.retry_after_s or 0.0))
        if ends_at - self._refused_since > self._patience.max_pause_s:
            limit = f"{self._patience.max_pause_s:g} s"
            raise TransientError(error.what, f"refuses every request for its rate over {limit}", error.retry_after_s)

    def _wait_s(self, n_tokens: float) -> float:
        """How long nothing may leave; for ever, as long as the window is full."""
        now = self._clock()
        self._look(now)
        if self.n_in_flight >= self.window.size:
            return math.inf
        wait_s = max(0.0, self._hold_until - now)
        if self._learned.rate < math.inf:
            rate = self._learned.rate
            self._paced.set_rate(now, rate, max(1.0, rate * _BURST_S))
            wait_s = max(wait_s, self._paced.wait_s(now))
        for bucket in (self._requests, self._told_requests):
            if bucket is not None:
                wait_s = max(wait_s, bucket.wait_s(now))
        for bucket in (self._tokens, self._told_tokens):
            if bucket is not None:
                wait_s = max(wait_s, bucket.wait_s(now, n_tokens))
        return wait_s

    def _leave(self, n_tokens: float) -> Sent:
        now = self._clock()
        self.n_in_flight += 1
        self.window.left(self.n_in_flight)
        if self._learned.rate < math.inf:
            self._paced.take(now)
        for bucket in (self._requests, self._told_requests):
            if bucket is not None:
                bucket.take(now)
        for bucket in (self._tokens, self._told_tokens):
            if bucket is not None:
                bucket.take(now, n_tokens)
        return Sent(self._learned.sent(now), now, n_tokens)

    def _release(self) -> None:
        self.n_in_flight -= 1
        self._freed.set()

    async def _pause(self, wait_s: float) -> None:
        if self.n_in_flight < self.window.size:
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
        if self._part <= 0:
            return
        if (bound := self._limits.max_in_flight) is not None:
            self.window.set_bound(max(1, int(bound * self._part)))
        if self._shared is None:
            self._requests = self._limited(self._requests, self._limits.max_requests_per_min, now)
            self._tokens = self._limited(self._tokens, self._limits.max_tokens_per_min, now)

    def _limited(self, bucket: Bucket | None, a_minute: int | None, now: float) -> Bucket | None:
        """This call's part of a limit that the user set; a second's worth may leave at once."""
        if a_minute is None:
            return None
        rate = a_minute * self._part / 60
        if bucket is None:
            return Bucket(rate, max(1.0, rate))
        bucket.set_rate(now, rate, max(1.0, rate))
        return bucket

    def _hear(self, quotas: Quotas, now: float) -> None:
        """Take over what the endpoint said last."""
        if quotas is self._quotas:
            return
        self._quotas = quotas
        self._told_requests = self._told(self._told_requests, quotas.requests, self.n_in_flight, now)
        in_flight_tokens = self.n_in_flight * self._completion_tokens
        self._told_tokens = self._told(self._told_tokens, quotas.tokens, in_flight_tokens, now)

    def _told(self, bucket: Bucket | None, quota: Quota | None, under_way: float, now: float) -> Bucket | None:
        """The endpoint's own bucket, our part of it, as far as its words and what is under way let us know."""
        if quota is None:
            return None
        used = quota.limit - quota.remaining
        rate = used / quota.reset_s if used and quota.reset_s else quota.limit
        rate, capacity, left = (value * self._part for value in (rate, quota.limit, quota.remaining))
        if bucket is None:
            return Bucket(rate, capacity, level=left, at=now)
        bucket.set_rate(now, rate, capacity)
        bucket.level = min(max(bucket.level, left - under_way), left)
        return bucket

    def _tokens_of(self, request: Request) -> float:
        """What a request will use up, by its bytes and by what answers were long so far."""
        if not (self._tokens or self._told_tokens or self._shared or self._limits.max_tokens_per_min):
            return 0.0
        turns = sum(len(user) + len(assistant) for user, assistant in (*request.head.turns, *request.turns))
        n_bytes = len(request.head.system) + len(request.user.encode()) + turns
        return n_bytes / BYTES_PER_TOKEN + self._completion_tokens

    def _settle(self, sent: Sent, reply: Reply, now: float) -> None:
        """Put right what was taken for a request by what it used."""
        used = reply.prompt_tokens + reply.completion_tokens
        if not used:
            return
        self._n_counted += 1
        # A running mean that keeps moving.
        weight = 1 / min(self._n_counted, 100)
        self._completion_tokens += (reply.completion_tokens - self._completion_tokens) * weight
        for bucket in (self._tokens, self._told_tokens):
            if bucket is not None:
                bucket.take(now, used - sent.n_tokens)
