"""Simulated endpoints: teachers that refuse, queue, break and recover as real ones do, for virtual time. Seconds."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from candist_core.errors import RateLimitedError, TransientError
from candist_core.ports import Quota, Quotas, Reply, Request


class Gate:
    """Lets requests in, or raises what they get instead."""

    def enter(self, now: float) -> None:
        """A request comes."""

    def leave(self, now: float) -> None:
        """A request that was let in is answered."""

    def quotas(self, now: float) -> Quotas:
        """What the headers beside an answer tell."""
        return Quotas()


class Endpoint:
    """A teacher behind gates. It notes when requests came (`asked_at`) and when answers left (`answered_at`).

    `latency_s` is a number, or a function of chance and of how many are under way; a refusal takes `trip_s` alone.
    """

    name = "simulated:1"

    def __init__(
        self,
        *gates: Gate,
        latency_s: float | Callable[[random.Random, int], float] = 0.2,
        seed: int = 0,
        trip_s: float = 0.002,
        jitter_s: float = 0.0,
        tokens: tuple[int, int] = (10, 2),
    ) -> None:
        self._gates, self._latency_s, self._tokens = gates, latency_s, tokens
        self._random, self._trip_s, self._jitter_s, self._arrives_at = random.Random(seed), trip_s, jitter_s, 0.0
        self.quotas = Quotas()
        self.asked_at: list[float] = []
        self.answered_at: list[float] = []
        self.refused_at: list[float] = []
        self.asked: list[str] = []
        self.in_flight = self.max_in_flight = 0

    @property
    def n_wasted(self) -> int:
        """Requests that got no reply."""
        return len(self.refused_at)

    def per_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Answers a second, from the first request on or within bounds."""
        times = [at for at in self.answered_at if since <= at <= until] or [float("inf")]
        return len(times) / (min(until, times[-1]) - max(since, self.asked_at[0]))

    async def ask(self, request: Request) -> Reply:
        self.asked.append(request.doc_id)
        self.asked_at.append(time.monotonic())
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await self._travel()
            self._enter()
            try:
                latency_s = self._latency_s
                await asyncio.sleep(latency_s(self._random, self.in_flight) if callable(latency_s) else latency_s)
            finally:
                for gate in self._gates:
                    gate.leave(time.monotonic())
            self.answered_at.append(time.monotonic())
        finally:
            await asyncio.sleep(self._trip_s / 2)
            self.in_flight -= 1
        prompt, completion = self._tokens
        return Reply(
            request.key, request.doc_id, '{"candidates": ["spam"]}', "stop",
            prompt_tokens=prompt, completion_tokens=completion, cost_usd=0.0,
        )  # fmt: skip

    async def _travel(self) -> None:
        """On the way requests keep their order, up to the jitter."""
        now = time.monotonic()
        self._arrives_at = max(now + self._trip_s / 2, self._arrives_at + 1e-6)
        await asyncio.sleep(self._arrives_at - now + self._jitter_s * self._random.random())

    def _enter(self) -> None:
        now = time.monotonic()
        entered = []
        try:
            for gate in self._gates:
                gate.enter(now)
                entered.append(gate)
        except TransientError:
            self.refused_at.append(now)
            for gate in entered:
                gate.leave(now)
            raise
        finally:
            for gate in self._gates:
                if (quotas := gate.quotas(now)) != Quotas():
                    self.quotas = quotas

    async def close(self, is_kept: bool = True) -> None:
        pass


def spread(mean_s: float, share: float = 0.2) -> Callable[[random.Random, int], float]:
    """Latencies evenly spread around a mean."""
    return lambda chance, n: chance.uniform(mean_s * (1 - share), mean_s * (1 + share))


def refusal(retry_after_s: float | None = None) -> RateLimitedError:
    return RateLimitedError("endpoint", "HTTP 429", retry_after_s)


@dataclass
class Cap(Gate):
    """A token bucket: `per_s` requests a second, `burst` at once. `others_per_s` are taken by somebody else."""

    per_s: float
    burst: float
    retry_after_s: float | None = 1.0
    others_per_s: float = 0.0
    is_told: bool = False
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def enter(self, now: float) -> None:
        self._fill(now)
        if self.level < 1 - 1e-9:
            raise refusal(self.retry_after_s)
        self.level -= 1

    def quotas(self, now: float) -> Quotas:
        if not self.is_told:
            return Quotas()
        self._fill(now)
        remaining = max(0.0, float(int(self.level)))
        return Quotas(requests=Quota(self.burst, remaining, (self.burst - self.level) / self.per_s))

    def _fill(self, now: float) -> None:
        gained = (now - self.at) * (self.per_s - self.others_per_s)
        self.level, self.at = min(self.burst, self.level + gained), now


@dataclass
class Minute(Gate):
    """So many requests in each minute by the clock, told in headers; `reset` counts down to the next minute."""

    limit: float
    period_s: float = 60.0
    started_at: float = 0.0
    used: float = 0.0

    def enter(self, now: float) -> None:
        self._turn(now)
        if self.used >= self.limit:
            raise refusal(self.started_at + self.period_s - now)
        self.used += 1

    def quotas(self, now: float) -> Quotas:
        self._turn(now)
        return Quotas(requests=Quota(self.limit, self.limit - self.used, self.started_at + self.period_s - now))

    def _turn(self, now: float) -> None:
        if now - self.started_at >= self.period_s:
            self.started_at, self.used = now // self.period_s * self.period_s, 0.0


@dataclass
class Shaky(Gate):
    """Refuses a share of requests by chance, whatever their rate."""

    share: float
    retry_after_s: float | None = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def enter(self, now: float) -> None:
        if self._random.random() < self.share:
            raise refusal(self.retry_after_s)


@dataclass
class Concurrency(Gate):
    """Takes so many at once and refuses others."""

    most: int
    retry_after_s: float | None = 1.0
    n: int = 0

    def enter(self, now: float) -> None:
        if self.n >= self.most:
            raise refusal(self.retry_after_s)
        self.n += 1

    def leave(self, now: float) -> None:
        self.n -= 1


@dataclass
class Outage(Gate):
    """Fails all requests from one moment of virtual time to another, counted from the first request."""

    begin_s: float
    end_s: float
    error: Callable[[], Exception] = refusal
    first_at: float | None = None

    def enter(self, now: float) -> None:
        self.first_at = now if self.first_at is None else self.first_at
        if self.begin_s <= now - self.first_at < self.end_s:
            raise self.error()


class Queue:
    """Latency of a server that answers so many a second, one after the other, and no faster than `base_s`."""

    def __init__(self, per_s: float, base_s: float = 0.2) -> None:
        self._per_s, self._base_s, self._free_at = per_s, base_s, 0.0

    def __call__(self, chance: random.Random, n: int) -> float:
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + 1 / self._per_s
        return self._base_s + self._free_at - now
