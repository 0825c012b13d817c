"""How fast requests may leave: buckets for known limits, and a rate learned from refusals. Times are seconds.

Nothing here sleeps or looks at a clock: every method is told the time, so each rule can be tried in virtual time.
"""

import math
from dataclasses import dataclass, field

from candist_core.refusals import Many, Taken

# Beside those refused by chance, such a share is many; so many beyond it speak for a limit.
_MANY_SHARE, _MANY, _MANY_AT_FIRST = 0.25, 4.0, 6.0
# Just after the limit was measured only a closed endpoint refuses so many; what is refused by chance is fewer.
_CLOSED_SHARE, _MAX_CHANCE = 0.6, 0.3
# What is worth an experiment though it is not many: such a share of unpaced requests, or so many paced ones.
_SOME_SHARE, _SOME_AT_FIRST, _SOME = 0.05, 4, 2
# An epoch lasts so long at least, and so many requests; less while the limit is still searched for.
_EPOCH_S, _EPOCH_SENDS, _SEARCH_EPOCH_S, _SEARCH_SENDS = 1.0, 20, 0.5, 4
# Growth an epoch: while the limit is searched for, at first and at least; where a limit turned out to be none; and just
# below a measured one, from where it quickens.
_SEARCH, _LEAST_SEARCH, _WRONG, _GENTLE, _QUICKENING = 1.0, 0.05, 0.3, 0.01, 2.0
# Just under what was measured an endpoint refuses nothing.
_BACK_OFF = 0.995
# A measurement of so many requests is sure.
_SURE = 20
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

    Refusals measure the limit (`Taken`). From just under that the rate grows until the next refusal. Those that come by
    chance (a shaky endpoint) are told apart by an experiment: they do not become fewer as the rate falls.

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
        >>> any(learned.refused(n, 0.0, retry_after_s=1.0) for n in range(49, 61))
        False
        >>> round(learned.rate)  # 48 were taken, and a second is to pass
        48
    """

    default_wait_s: float = 1.0
    rate: float = math.inf
    n_sent: int = 0
    _taken: Taken = field(default_factory=Taken)
    _many: Many = field(default_factory=Many)
    _growth: float = _SEARCH
    # How many a first guess stands on; those of its burst that are refused later are counted out.
    _n_guessed: int = 0
    # The rate at which the endpoint began to take none.
    _rate_before: float | None = None
    # The limit, once it was measured surely.
    _measured: float = math.inf
    # The highest rate without refusals since the limit was met last.
    _clean_rate: float = 0.0
    # Since the rate was changed last.
    _epoch_at: float = 0.0
    _epoch_first: int = 0
    _n_epoch_refused: int = 0
    # The share that is refused by chance, and the experiment that finds it.
    _chance: float = 0.0
    _is_control: bool = False
    _share_before: float = 0.0

    def sent(self, now: float) -> int:
        """Note a request that leaves; its number."""
        if self.n_sent == 0:
            self._restart(now, was_empty=False)
        elif self._is_over(now):
            self._judge(now)
        self.n_sent += 1
        return self.n_sent

    def refused(self, number: int, now: float, retry_after_s: float | None) -> bool:
        """Note that a request was refused; True when the endpoint takes none at all."""
        if number <= self._taken.first:
            return self._lower_guess()
        if self._rate_before is not None:
            return False
        self._taken.refused(number, self.n_sent, now)
        self._n_epoch_refused += number > self._epoch_first
        score = self._many.refused(number, _CLOSED_SHARE if self._is_control else _MANY_SHARE + self._chance)
        if not self._is_above and score < (_MANY_AT_FIRST if self.rate == math.inf else _MANY):
            return False
        if self._taken.n <= 0:
            self._rate_before = self.rate
            return True
        self._limit(now, self._n_epoch_refused / max(1, self._n_epoch), retry_after_s)
        return False

    @property
    def _is_above(self) -> bool:
        """Whether the rate tries what lies above a limit that refusals by chance did not feign."""
        return self._measured < self.rate < math.inf and not self._chance and self._taken.n >= _SURE

    def resume(self, now: float, was_long: bool) -> None:
        """Go on after the endpoint took none; after long, at the rate of before."""
        if self._rate_before is not None:
            self.rate = self._rate_before if was_long else self._rate_before / 2
            self._rate_before = None
        self._restart(now, was_empty=False)

    @property
    def _n_epoch(self) -> int:
        return self.n_sent - self._epoch_first

    def _is_over(self, now: float) -> bool:
        """Whether the epoch is."""
        is_search = self._growth >= _LEAST_SEARCH and self.rate < math.inf
        least_s, n_least = (_SEARCH_EPOCH_S, _SEARCH_SENDS) if is_search else (_EPOCH_S, _EPOCH_SENDS)
        if self._is_control or self._n_epoch_refused:
            n_least = _EPOCH_SENDS
        return self._rate_before is None and self._n_epoch >= n_least and now - self._epoch_at >= least_s

    def _limit(self, now: float, share: float, retry_after_s: float | None = None) -> None:
        """Set the rate by what was taken since the limit was met last; such a share was refused of late."""
        rate, n_counted = self._taken.measure(now, self.n_sent)
        at_least = self._measured if self._is_above else 0.0
        self._share_before, self._is_control, self._n_guessed = share, True, 0
        if n_counted >= _SURE and rate >= _USED * self._clean_rate:
            rate = max(rate, at_least)
            self._growth, self._measured = _GENTLE, rate
        elif self._taken.was_empty:
            # So few are measured badly.
            self._growth = max(_LEAST_SEARCH, self._growth / 2)
            self._is_control = rate > self.rate / 2
            rate = max(rate, self.rate / 2)
        else:
            # Nobody knows how full the bucket was; what it held was meant to last for the wait.
            span_s = now - self._taken.since + max(retry_after_s or 0.0, self.default_wait_s)
            n_taken = self.n_sent - self._taken.first - self._taken.n_refused
            if n_taken / span_s > rate:
                rate, self._n_guessed, self._is_control = n_taken / span_s, n_taken, False
        self._clean_rate = 0.0
        self.rate = _BACK_OFF * rate
        self._restart(now, was_empty=True)

    def _lower_guess(self) -> bool:
        """Count out a request of the burst that a guess was made by; True when none of it was taken."""
        if not self._n_guessed:
            return False
        self._n_guessed -= 1
        self.rate *= self._n_guessed / (self._n_guessed + 1)
        if not self._n_guessed:
            self.rate = self._rate_before = math.inf
        return not self._n_guessed

    def _judge(self, now: float) -> None:
        """After an epoch: grow, or come back down."""
        share, self._n_guessed = self._n_epoch_refused / self._n_epoch, 0
        if self._is_control:
            self._is_control = False
            if max(_SOME_SHARE, self._share_before / 2) < share < _MAX_CHANCE:
                # The rate fell and the refusals did not: they come by chance.
                self._chance, self._growth = share, max(self._growth, _WRONG)
            else:
                self._chance = min(self._chance, share)
        excess = self._n_epoch_refused - 2 * self._chance * self._n_epoch
        if excess >= (max(_SOME_AT_FIRST, _SOME_SHARE * self._n_epoch) if self.rate == math.inf else _SOME):
            self._limit(now, share)
            return
        if excess < 1 and self._n_epoch >= _USED * self.rate * (now - self._epoch_at):
            self._clean_rate = self.rate
            self.rate *= 1 + self._growth
            self._growth = min(_SEARCH, self._growth * _QUICKENING)
        self._start_epoch(now)

    def _restart(self, now: float, was_empty: bool) -> None:
        self._taken = Taken(self.n_sent, now, was_empty)
        self._many = Many(self.n_sent)
        self._start_epoch(now)

    def _start_epoch(self, now: float) -> None:
        self._epoch_at, self._epoch_first, self._n_epoch_refused = now, self.n_sent, 0
