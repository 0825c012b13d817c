"""What refusals tell of a limit: whether they are many, and how many requests were taken between them. Seconds."""

from collections import deque
from dataclasses import dataclass, field

# Over less, the errors of clocks and networks are larger than what is measured.
_MIN_SPAN_S = 0.05
_MAX_MARKS = 32


@dataclass(eq=False)
class Many:
    """A test that goes along with the requests: each refused one adds one, those taken count against it.

    Args:
        top: the latest request that was refused, by number.
        score: how many were refused of late, beyond a share.

    Source:
        Page, Continuous Inspection Schemes, Biometrika 41, 1954: the cumulative sum.

    Example:
        >>> many = Many()
        >>> [round(many.refused(number, share=0.25), 1) for number in (1, 2, 4, 14)]
        [1.0, 2.0, 2.7, 1.0]
    """

    top: int = 0
    score: float = 0.0

    def refused(self, number: int, share: float) -> float:
        """Note a refusal; the score, which falls where less than this share is refused."""
        weight = share / (1 - share)
        if number > self.top:
            self.score = max(0.0, self.score - weight * (number - self.top - 1)) + 1
            self.top = number
        else:
            # It came out of turn and was counted as taken.
            self.score += 1 + weight
        return self.score


@dataclass(eq=False)
class Taken:
    """Requests taken since a moment, and what they tell of the rate of the endpoint's token bucket.

    At each refusal the bucket is empty. Between two such moments it lets through no more than its rate, whatever it
    holds when full, and no less, if it did not fill up meanwhile: the largest of all these measurements is the rate.

    Args:
        first: the last request before, by number.
        since: the moment.
        was_empty: whether the bucket was empty then.

    Example:
        >>> taken = Taken(since=10.0, was_empty=True)
        >>> taken.refused(number=52, n_sent=52, now=11.0)
        >>> taken.n, taken.measure(now=11.0, n_sent=52)
        (51, (50.0, 51))
    """

    first: int = 0
    since: float = 0.0
    was_empty: bool = False
    n: int = 0
    n_refused: int = 0
    _at: float = 0.0
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MAX_MARKS))

    def refused(self, number: int, n_sent: int, now: float) -> None:
        """Note that a request was refused while so many had been sent."""
        self.n_refused += 1
        # Refusals come late and out of turn; a span between marks thus holds no more than was taken in it.
        self._at, self.n = now, number - self.first - self.n_refused
        self._marks.append((now, n_sent - self.first - self.n_refused))

    def measure(self, now: float, n_sent: int) -> tuple[float, int]:
        """Requests a second that were taken at least, and how many were counted for that; (0.0, 0) for none."""
        marks = [(self.since, 0), *self._marks] if self.was_empty else self._marks
        ends = (self._at, self.n), (now, n_sent - self.first - self.n_refused)
        spans = [(end - at, n_end - n) for at, n in marks for end, n_end in ends if end - at >= _MIN_SPAN_S]
        # Less one, since the first may have lain there already.
        return max((((n - 1) / span_s, n) for span_s, n in spans if n > 1), default=(0.0, 0))
