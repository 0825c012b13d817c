"""Endpoints that misbehave, for the benchmarks of annotation. Each is a `ChatServer` of its own."""

import random
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from candist_core.rate import Bucket
from tests.fakes import ChatServer, Step, first_label, status

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


def make_server(latency_s: float, case: str | None = None) -> ChatServer:
    """The server of a case; without one, a server that always answers."""
    if case == "slow_tail":
        return ChatServer(latency_s=lambda body: latency_of(text_of(body), latency_s))
    if case == "random_429":
        chance = random.Random(0)
        refusal = status(429, code="rate_limit_exceeded", retry_after="1")
        return ChatServer(latency_s=latency_s, gate=lambda body: refusal if chance.random() < 0.1 else None)
    if case in ("rpm_cap", "rpm_told"):
        return _capped(latency_s, is_told=case == "rpm_told")
    if case == "poison":
        return ChatServer(answer=_poisoned, latency_s=latency_s)
    return ChatServer(latency_s=latency_s)


def _poisoned(body: Mapping[str, Any]) -> str | Step:
    return status(400, code="invalid_prompt") if POISON in text_of(body) else first_label(body)


def _capped(latency_s: float, is_told: bool) -> ChatServer:
    bucket = Bucket(rate=_PER_S, capacity=_PER_S)

    def told() -> dict[str, str]:
        now = time.monotonic()
        bucket.wait_s(now)
        reset_s = (bucket.capacity - bucket.level) / bucket.rate
        return {
            "x-ratelimit-limit-requests": f"{bucket.capacity:.0f}",
            "x-ratelimit-remaining-requests": f"{max(0, int(bucket.level))}",
            "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
        }

    def gate(body: Mapping[str, Any]) -> Step | None:
        now = time.monotonic()
        if bucket.wait_s(now):
            return Step("status", 429, "slow down", {"retry-after": "1", **(told() if is_told else {})}, "rate_limit")
        bucket.take(now)
        return None

    return ChatServer(latency_s=latency_s, gate=gate, headers_of=told if is_told else dict)
