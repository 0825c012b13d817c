"""How long failed requests are waited for, and when an endpoint counts as shut. Times are seconds.

Nothing here sleeps or looks at a clock. Invariant: waits follow from the request's key and the endpoint's answers,
never from chance.
"""

import math
import random
from dataclasses import dataclass, field

# So many failures in a row, and none but these under way, are no chance.
_MIN_ROW = 8


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failed requests are waited for (seconds).

    `max_pause_s` bounds what an endpoint may ask for at a time, and how long it may fail all requests
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


@dataclass(eq=False)
class Breaker:
    """Keeps requests back from an endpoint that fails them all, and lets one through at a time to see.

    Args:
        patience: how long to hold before each such probe.
        is_shut: whether only probes leave.
        n_probes: probes of this time that failed, and one for the failure that shut it.

    Source:
        Nygard, Release It!, 2007: the circuit breaker.

    Example:
        >>> breaker = Breaker(Patience(base_s=0.5))
        >>> breaker.shut(10.0), breaker.wait_s(10.0), breaker.wait_s(10.5), breaker.left()
        (None, 0.5, 0.0, True)
        >>> breaker.wait_s(10.6)  # until the probe is back
        inf
    """

    patience: Patience
    is_shut: bool = False
    n_probes: int = 0
    _hold_until: float = -math.inf
    _is_probing: bool = False
    # Since when nothing but failures came, and how many.
    _silent_since: float = field(default=math.nan)
    _n_row: int = 0

    def wait_s(self, now: float) -> float:
        """How long nothing may leave; for ever, as long as a probe is under way."""
        if not self.is_shut:
            return 0.0
        return math.inf if self._is_probing else max(0.0, self._hold_until - now)

    def left(self) -> bool:
        """Note a request that leaves; whether it is a probe."""
        self._is_probing = self.is_shut
        return self.is_shut

    def answered(self, is_probe: bool) -> bool:
        """Note an answer; True when it opens the endpoint again."""
        self._silent_since, self._n_row = math.nan, 0
        is_open = is_probe and self.is_shut
        if is_open:
            self.is_shut = self._is_probing = False
        return is_open

    def cancelled(self, is_probe: bool) -> None:
        """Note that a request ended with no word about the endpoint."""
        if is_probe:
            self._is_probing = False

    def failed(self, now: float, is_probe: bool, n_in_flight: int, retry_after_s: float | None = None) -> None:
        """Note a failure beside so many others under way; shut if nothing but failures comes."""
        self.is_silent(now)
        self._n_row += 1
        if is_probe or (not self.is_shut and self._n_row >= max(_MIN_ROW, n_in_flight)):
            self.shut(now, retry_after_s)

    def shut(self, now: float, retry_after_s: float | None = None) -> None:
        """Let nothing through for a while, twice as long each time."""
        self.n_probes = self.n_probes + 1 if self.is_shut else 1
        self.is_shut, self._is_probing = True, False
        self._hold_until = now + max(retry_after_s or 0.0, self.patience.grown_s(self.n_probes))

    def is_silent(self, now: float, retry_after_s: float | None = None) -> bool:
        """Note that no answer came; True when the endpoint fails, or asks to be spared, for longer than we bear."""
        if math.isnan(self._silent_since):
            self._silent_since = now
        ends_at = max(now + (retry_after_s or 0.0), self._hold_until)
        return ends_at - self._silent_since > self.patience.max_pause_s
