"""How fast requests may leave: buckets for known limits, and a rate learned from refusals. Times are seconds.

Nothing here sleeps or looks at a clock: every method is told the time, so each rule can be tried in virtual time.
"""

import math
from collections import deque
from dataclasses import dataclass, field

# Refusals that are many: so many, and such a share of the last requests, beyond what is refused by chance.
_MIN_MANY, _MANY_SHARE, _RING, _PACED_RING = 4, 0.2, 64, 24
# A share that is worth an experiment though it is not many.
_SOME_SHARE = 0.05
# An epoch lasts so long at least, and so many requests; shorter while the limit is still searched for.
_EPOCH_S, _EPOCH_SENDS, _SEARCH_EPOCH_S, _SEARCH_SENDS = 1.0, 20, 0.5, 4
# Growth a step: while the limit is guessed at; where a limit turned out to be none; and just below a measured one,
# from where it quickens.
_SEARCH_GROWTH, _WRONG_GROWTH, _GROWTH, _QUICKENING = 1.0, 0.3, 0.01, 1.25
# Just under what was measured an endpoint refuses nothing.
_BACK_OFF = 0.995
# A measurement over less says nothing; one of so many requests is sure.
_MIN_SPAN_S, _SURE = 0.02, 20
# A rate that is not used to this part was not tried.
_USED = 0.8


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` units a second, at most `capacity` at once, full at first.

    Example:
        >>> bucket = Bucket(rate=2.0, capacity=1.0)
        >>> bucket.wait_s(0.0), bucket.take(0.0), bucket.wait_s(0.0)
        (0.0, None, 0.5)
    """

    rate: float
    capacity: float
    level: float = math.nan
    at: float = 0.0

    def wait_s(self, now: float, n: float = 1.0) -> float:
        """How long until n units are there; more than the capacity holds are there once it is full."""
        lacking = min(n, self.capacity) - self._fill(now)
        return 0.0 if lacking <= 1e-9 else lacking / self.rate

    def take(self, now: float, n: float = 1.0) -> None:
        """Take n units, into debt if need be; below zero gives back."""
        self.level = min(self._fill(now) - n, self.capacity)

    def set_rate(self, now: float, rate: float, capacity: float) -> None:
        """Go on at another rate."""
        self.level = min(self._fill(now), capacity)
        self.rate, self.capacity = rate, capacity

    def _fill(self, now: float) -> float:
        if math.isnan(self.level):
            self.level = self.capacity
        else:
            self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        return self.level


@dataclass(eq=False)
class LearnedRate:
    """Requests a second that the endpoint takes; infinite until it refuses many.

    At each refusal a token bucket is empty, and between two such moments it lets through no more than its rate,
    whatever its size: what was taken between them measures the limit. From just under that the rate grows until the
    next refusals. Those that come by chance (a shaky endpoint) are told apart by not falling with the rate.

    Args:
        default_wait_s: what an endpoint that names no time is taken to mean by its first refusals.
        rate: requests a second.
        n_sent: requests so far.

    Source:
        Cardwell et al., BBR: Congestion-Based Congestion Control, ACM Queue 14(5), 2016; the estimate between losses is
        that of its long-term sampling of policed links.

    Example:
        >>> learned = LearnedRate()
        >>> for _ in range(60):
        ...     number = learned.sent(0.0)
        >>> any(learned.refused(n, 0.0, 0.1, retry_after_s=1.0) for n in range(49, 61))
        False
        >>> round(learned.rate)  # 48 were taken, and a second is to pass
        48
    """

    default_wait_s: float = 1.0
    rate: float = math.inf
    n_sent: int = 0
    # Since the limit was met last: after which request, how many were refused, and at each refusal when that request
    # was sent and how many had been taken.
    _first: int = 0
    _n_refused: int = 0
    _start: tuple[float, int] | None = None
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=32))
    _rate_before_shut: float | None = None
    # Since the rate was changed last.
    _epoch_at: float = 0.0
    _epoch_first: int = 0
    _n_epoch_refused: int = 0
    _recent: deque[int] = field(default_factory=deque)
    _growth: float = _SEARCH_GROWTH
    # The share that is refused by chance, and the experiment that finds it.
    _chance: float = 0.0
    _is_control: bool = False
    _share_before: float = 0.0

    def sent(self, now: float) -> int:
        """Note a request that leaves; its number."""
        if self._start is None:
            self._start, self._epoch_at = (now, 0), now
        is_search = self._growth >= _WRONG_GROWTH
        n_least = _SEARCH_SENDS if is_search and self.rate < math.inf else _EPOCH_SENDS
        if self._n_epoch >= n_least and now - self._epoch_at >= (_SEARCH_EPOCH_S if is_search else _EPOCH_S):
            self._judge(now)
        self.n_sent += 1
        return self.n_sent

    def refused(self, number: int, sent_at: float, now: float, retry_after_s: float | None) -> bool:
        """Note that a request was refused; True when the endpoint takes none at all."""
        if number <= self._first:
            # It left before the limit was met last and tells nothing new.
            return False
        self._n_refused += 1
        self._marks.append((sent_at, number - self._first - self._n_refused))
        if number > self._epoch_first:
            self._n_epoch_refused += 1
        ring = _RING if self.rate == math.inf else _PACED_RING
        self._recent.append(number)
        while self._recent[0] <= self.n_sent - ring:
            self._recent.popleft()
        n_last = max(1, min(ring, self._n_epoch))
        if len(self._recent) < max(_MIN_MANY, (_MANY_SHARE + self._chance) * n_last):
            return False
        self._share_before = len(self._recent) / n_last
        return self._limit(now, max(retry_after_s or 0.0, self.default_wait_s))

    def resume(self, now: float, was_long: bool) -> None:
        """Go on after the endpoint took none; after long, at the rate of before."""
        if was_long and self._rate_before_shut is not None:
            self.rate = self._rate_before_shut
        self._rate_before_shut = None
        self._restart(now)

    @property
    def _n_epoch(self) -> int:
        return self.n_sent - self._epoch_first

    def _limit(self, now: float, wait_s: float = 0.0) -> bool:
        """Set the rate by what was taken since the limit was met last; True when that is nothing."""
        at, n_taken = self._marks[-1]
        assert self._start is not None
        is_first = self.rate == math.inf
        if n_taken <= 0:
            if not is_first:
                self._rate_before_shut = self._rate_before_shut or self.rate
                self.rate /= 2
            return True
        marks = self._marks if is_first else (self._start, *self._marks)
        spans = [(at - mark_at, n_taken - n) for mark_at, n in marks if at - mark_at >= _MIN_SPAN_S]
        # Less one, since the first may have lain there already.
        estimate, n_counted = max((((n - 1) / span_s, n) for span_s, n in spans), default=(0.0, 0))
        span_s = max(at - self._start[0] + wait_s, _MIN_SPAN_S)
        if is_first and wait_s:
            # Nobody knows how full the bucket was; what it held was meant to last for the wait.
            estimate = max(estimate, n_taken / span_s)
        elif estimate <= 0:
            estimate = min(self.rate / 2, n_taken / span_s)
        if n_counted >= _SURE:
            self._growth = _GROWTH
        elif not is_first:
            self._growth = max(_GROWTH, self._growth / 2)
        self.rate = _BACK_OFF * estimate
        self._is_control = True
        self._restart(now)
        return False

    def _judge(self, now: float) -> None:
        """After an epoch: grow, or come back down."""
        n, n_refused = self._n_epoch, self._n_epoch_refused
        share = n_refused / n
        if self._is_control:
            self._is_control = False
            if share > max(_SOME_SHARE, self._share_before / 2):
                # The rate fell and the refusals did not: they come by chance.
                self._chance, self._growth = share, max(self._growth, _WRONG_GROWTH)
            else:
                self._chance = (self._chance + share) / 2
        excess = n_refused - 2 * self._chance * n
        least = max(_MIN_MANY, _SOME_SHARE * n) if self.rate == math.inf else 2
        if excess >= least:
            self._share_before = share
            self._limit(now)
            return
        if excess < 1 and n >= _USED * self.rate * (now - self._epoch_at):
            self.rate *= 1 + self._growth
            self._growth = min(_SEARCH_GROWTH, self._growth * _QUICKENING)
        self._start_epoch(now)

    def _restart(self, now: float) -> None:
        self._first, self._n_refused, self._start = self.n_sent, 0, (now, 0)
        self._marks.clear()
        self._start_epoch(now)

    def _start_epoch(self, now: float) -> None:
        self._epoch_at, self._epoch_first, self._n_epoch_refused = now, self.n_sent, 0
        self._recent.clear()
