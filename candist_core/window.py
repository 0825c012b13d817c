"""How many requests are under way at once: more while that helps, fewer when the endpoint slows down under them.

Nothing here sleeps or looks at a clock: every method is told the time (seconds).
"""

import math
import statistics
from dataclasses import dataclass, field

START = 64
"""Requests under way at first, where nobody set a bound."""

_MAX = 1024
_GROWTH = 1.5
# Twice as many answers for twice the requests would be all that can be hoped for; half of that is help.
_HELP = 0.5
# Answers that take so much longer than those of the fastest round may wait in a queue somewhere.
_SLOW = 2.0
# Below this, latency is made of this machine's own hiccups.
_MIN_LATENCY_S = 0.05
# Rounds before the next trial after one that did not help; twice as many each time, up to so many.
_REST_ROUNDS, _MAX_REST_ROUNDS = 20, 320
# By how much the fastest round is forgotten in each.
_FORGET = 1.01


@dataclass(eq=False)
class Window:
    """The bound on requests under way.

    A round is as many answers as the window holds, to requests that left since its size was changed. After a round at
    full load the window grows by half, and keeps that if answers a second grew by at least half as much. It halves when
    the median latency of two rounds in turn is twice that of the fastest, and keeps that unless answers a second fell
    by half as much: then the endpoint has become slower by itself, and fewer requests would not help it.

    Args:
        bound: the most; where None, the window starts at `START` and finds out.

    Source:
        Jacobson, Congestion Avoidance and Control, SIGCOMM 1988 (halving); the throughput test follows Kleinrock's
        power, as adaptive limiters of RPC systems do.
    """

    bound: int | None = None
    size: int = field(init=False)
    _max: int = field(init=False)
    _changed_at: float = -math.inf
    _started_at: float | None = None
    _latencies: list[float] = field(default_factory=list)
    _was_full: bool = False
    _fastest_s: float = math.inf
    _n_slow: int = 0
    _rest: int = 0
    _next_rest: int = _REST_ROUNDS
    # Size and answers a second before the change that is on trial.
    _before: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        """Start where the bound is, or at `START`."""
        self._max = self.bound or _MAX
        self.size = self.bound or START

    def set_bound(self, bound: int) -> None:
        """Go on below another bound; where the window stood at the old one, it goes along."""
        if bound != self._max:
            self.size = bound if self.size >= self._max else min(self.size, bound)
            self._max, self._before = bound, None
            self._start_round(None)

    def left(self, n_in_flight: int) -> None:
        """Note that one more is under way."""
        if n_in_flight >= self.size:
            self._was_full = True

    def answered(self, now: float, latency_s: float) -> None:
        """Note an answer, and at the end of a round draw the conclusion."""
        if now - latency_s < self._changed_at:
            return
        if self._started_at is None:
            self._started_at = now
            return
        self._latencies.append(latency_s)
        if len(self._latencies) >= self.size and now > self._started_at:
            self._judge(now, len(self._latencies) / (now - self._started_at), statistics.median(self._latencies))

    def _judge(self, now: float, rate: float, latency_s: float) -> None:
        self._fastest_s = max(min(latency_s, self._fastest_s * _FORGET), _MIN_LATENCY_S)
        self._n_slow = self._n_slow + 1 if self._was_full and latency_s > _SLOW * self._fastest_s else 0
        if self._before is not None:
            self._conclude(now, rate, latency_s)
        elif self._n_slow > 1 and self.size > 1:
            self._try(now, self.size // 2, rate)
        elif self._rest:
            self._rest -= 1
            self._start_round(now)
        elif self._was_full and self.size < self._max:
            self._try(now, min(self._max, max(self.size + 1, int(self.size * _GROWTH))), rate)
        else:
            self._start_round(now)

    def _try(self, now: float, size: int, rate: float) -> None:
        self._before = self.size, rate
        self._resize(now, size)

    def _conclude(self, now: float, rate: float, latency_s: float) -> None:
        """Keep the size on trial, or go back."""
        assert self._before is not None
        (size, old_rate), self._before = self._before, None
        has_followed = abs(rate / old_rate - 1) >= _HELP * abs(self.size / size - 1)
        if self.size < size:
            self._rest = _REST_ROUNDS
            if has_followed:
                self._fastest_s = max(latency_s, _MIN_LATENCY_S)
                self._resize(now, size)
                return
        elif has_followed:
            self._next_rest = _REST_ROUNDS
        else:
            self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, _MAX_REST_ROUNDS)
            self._resize(now, size)
            return
        self._start_round(now)

    def _resize(self, now: float, size: int) -> None:
        self.size, self._changed_at, self._n_slow = size, now, 0
        self._start_round(None)

    def _start_round(self, at: float | None) -> None:
        self._started_at, self._was_full = at, False
        self._latencies.clear()
