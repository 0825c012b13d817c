"""The known limits of requests and tokens: those that the user set, and those that the endpoint tells. Seconds.

Nothing here sleeps or looks at a clock: every method is told the time.
"""

from dataclasses import dataclass

from candist_core.budget import BYTES_PER_TOKEN
from candist_core.ports import Quota, Quotas, Reply, Request
from candist_core.rate import Bucket

# Before any reply has told.
_FIRST_COMPLETION_TOKENS = 32.0
# Replies that the mean length of an answer is taken over.
_MEMORY = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What all senders of a run may use together; None where nothing is known.

    With `is_batched`, what is asked together travels together: a part of a sender's requests would be a batch of its
    own, and as many failures at once as a batch holds say nothing of the endpoint.
    """

    max_in_flight: int | None = None
    max_requests_per_min: int | None = None
    max_tokens_per_min: int | None = None
    is_batched: bool = False


class KnownLimits:
    """One sender's part of the known limits.

    Args:
        limits: of the whole run.
        is_shared: the limits of rate are kept elsewhere; tokens are counted all the same.
    """

    def __init__(self, limits: Limits, is_shared: bool = False) -> None:
        self._limits, self._is_shared = limits, is_shared
        self._part = 1.0
        self._own_requests: Bucket | None = None
        self._own_tokens: Bucket | None = None
        self._told_requests: Bucket | None = None
        self._told_tokens: Bucket | None = None
        self._quotas: Quotas | None = None
        self._completion_tokens, self._n_counted = _FIRST_COMPLETION_TOKENS, 0
        self._gather()

    def set_part(self, part: float, now: float) -> None:
        """Use another part of the limits from now on."""
        self._part = part
        if not self._is_shared:
            self._own_requests = self._limited(self._own_requests, self._limits.max_requests_per_min, now)
            self._own_tokens = self._limited(self._own_tokens, self._limits.max_tokens_per_min, now)
            self._gather()

    def hear(self, quotas: Quotas, n_in_flight: int, now: float) -> None:
        """Take over what the endpoint said last, while so many requests are under way."""
        if quotas is self._quotas:
            return
        self._quotas = quotas
        if quotas.requests is not None:
            self._told_requests = self._told(self._told_requests, quotas.requests, n_in_flight, now)
        if quotas.tokens is not None:
            under_way = n_in_flight * self._completion_tokens
            self._told_tokens = self._told(self._told_tokens, quotas.tokens, under_way, now)
        self._gather()

    def tokens_of(self, request: Request) -> float:
        """What a request will use up, by its bytes and by how long answers were so far; 0.0 where nobody counts."""
        if not self._counts_tokens:
            return 0.0
        turns = sum(len(user) + len(assistant) for user, assistant in (*request.head.turns, *request.turns))
        n_bytes = len(request.head.system) + len(request.user.encode()) + turns
        return n_bytes / BYTES_PER_TOKEN + self._completion_tokens

    def wait_s(self, now: float, n_tokens: float) -> float:
        """How long until a request of so many tokens may leave."""
        waits = [bucket.wait_s(now) for bucket in self._requests]
        return max(waits + [bucket.wait_s(now, n_tokens) for bucket in self._tokens], default=0.0)

    def take(self, now: float, n_tokens: float) -> None:
        """Note that a request leaves."""
        for bucket in self._requests:
            bucket.take(now)
        for bucket in self._tokens:
            bucket.take(now, n_tokens)

    def settle(self, now: float, n_tokens: float, reply: Reply) -> int:
        """Put right what was taken for a request by what it used; how many tokens more that is."""
        used = reply.prompt_tokens + reply.completion_tokens
        if not used or not self._counts_tokens:
            return 0
        self._n_counted += 1
        weight = 1 / min(self._n_counted, _MEMORY)
        self._completion_tokens += (reply.completion_tokens - self._completion_tokens) * weight
        for bucket in self._tokens:
            bucket.take(now, used - n_tokens)
        return used - int(n_tokens)

    def _limited(self, bucket: Bucket | None, a_minute: int | None, now: float) -> Bucket | None:
        """This sender's part of a limit that the user set; a second's worth may leave at once."""
        if a_minute is None:
            return None
        rate = a_minute * self._part / 60
        if bucket is None:
            return Bucket(rate, max(1.0, rate))
        bucket.set_rate(now, rate, max(1.0, rate))
        return bucket

    def _told(self, bucket: Bucket | None, quota: Quota, under_way: float, now: float) -> Bucket:
        """The endpoint's own bucket, our part of it, as far as its words and what is under way let us know."""
        used = quota.limit - quota.remaining
        rate = used / quota.reset_s if used and quota.reset_s else quota.limit
        rate, capacity, left = (value * self._part for value in (rate, quota.limit, quota.remaining))
        if bucket is None:
            return Bucket(rate, capacity, level=left, at=now)
        bucket.set_rate(now, rate, capacity)
        bucket.level = min(max(bucket.level, left - under_way), left)
        return bucket

    def _gather(self) -> None:
        self._requests = [bucket for bucket in (self._own_requests, self._told_requests) if bucket is not None]
        self._tokens = [bucket for bucket in (self._own_tokens, self._told_tokens) if bucket is not None]
        self._counts_tokens = bool(self._tokens) or self._is_shared
        self.is_any = bool(self._requests or self._tokens)
