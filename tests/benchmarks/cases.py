"""Endpoints that misbehave, for the benchmarks of annotation. Each is a `BenchServer` of its own."""

import random
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from candist_core.rate import Bucket
from tests.benchmarks.server import BenchServer
from tests.fakes import Step, first_label, status

CASES = {
    "slow_tail": "2 % of answers take 3 s",
    "random_429": "10 % of requests get a 429 at random, Retry-After 1 s",
    "rpm_cap": "3,000 requests a minute (50 at once, 50 more a second), Retry-After 1 s",
    "rpm_told": "the same cap, told in x-ratelimit headers",
    "poison": "one row is answered 400",
}
SLOW_S, SLOW_SHARE = 3.0, 0.02
POISON = "message 100:"
_PER_S = 50.0


def text_of(body: Mapping[str, Any]) -> str:
    """What stands in the user's message, whatever the client wraps it in."""
    return str(body["messages"][-1]["content"])


def latency_of(text: str, latency_s: float) -> float:
    """Slow for a share of the texts, always the same ones."""
    number = text.partition("message ")[2].partition(":")[0]
    is_slow = int.from_bytes(blake2b(number.encode(), digest_size=4).digest()) < SLOW_SHARE * 2**32
    return SLOW_S if is_slow else latency_s


def make_server(latency_s: float, case: str | None = None) -> BenchServer:
    """The server of a case; without one, a server that always answers."""

    def same(body: Mapping[str, Any]) -> float:
        return latency_s

    if case == "slow_tail":
        return BenchServer(first_label, lambda body: latency_of(text_of(body), latency_s))
    if case == "random_429":
        chance = random.Random(0)
        refusal = status(429, code="rate_limit_exceeded", retry_after="1")
        return BenchServer(first_label, same, gate=lambda body: refusal if chance.random() < 0.1 else None)
    if case in ("rpm_cap", "rpm_told"):
        cap = _Cap(is_told := case == "rpm_told")
        return BenchServer(first_label, same, cap.gate, cap.told if is_told else dict)
    return BenchServer(_poisoned if case == "poison" else first_label, same)


def _poisoned(body: Mapping[str, Any]) -> str | Step:
    return status(400, code="invalid_prompt") if POISON in text_of(body) else first_label(body)


class _Cap:
    """A bucket of requests, and what an endpoint may tell of it."""

    def __init__(self, is_told: bool) -> None:
        self._bucket, self._is_told = Bucket(rate=_PER_S, capacity=_PER_S), is_told

    def told(self) -> dict[str, str]:
        bucket = self._bucket
        bucket.wait_s(time.monotonic())
        return {
            "x-ratelimit-limit-requests": f"{bucket.capacity:.0f}",
            "x-ratelimit-remaining-requests": f"{max(0, int(bucket.level))}",
            "x-ratelimit-reset-requests": f"{(bucket.capacity - bucket.level) / bucket.rate:.3f}s",
        }

    def gate(self, body: Mapping[str, Any]) -> Step | None:
        now = time.monotonic()
        if self._bucket.wait_s(now):
            headers = {"retry-after": "1", **(self.told() if self._is_told else {})}
            return Step("status", 429, "slow down", headers, "rate_limit")
        self._bucket.take(now)
        return None
