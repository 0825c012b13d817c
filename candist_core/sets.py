"""Counts of candidate sets: sizes, equal sets, and which labels stand together.

n sets, k labels; R (n, k) is the rank table, -1 outside the set. Everything adds up over shards, so that a corpus of
any size is counted in memory that hangs on k alone, and on a bounded number of different sets.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Ranks = NDArray[np.integer]

MAX_DIFFERENT = 1_000_000
"""Different sets that are counted; beyond it the rarer half is forgotten, which no share above 0.1 % feels."""


class SetCounts:
    """What shards of sets add up to.

    Attributes:
        sizes: (k + 1,) sets by their number of labels.
        first: (k,) sets that a label leads.
        holding: (k,) sets that hold a label.
        together: (k, k) sets that hold both labels, symmetric, nothing on the diagonal.
        led: (k, k) sets that the first label leads and that hold the second beside it.
        equal: sets of several labels, as packed bits of their mask, with their number.
    """

    def __init__(self, k: int) -> None:
        self.sizes, self.equal = np.zeros(k + 1, dtype=np.int64), Counter[bytes]()
        self.first, self.holding = np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self.together, self.led = np.zeros((k, k), dtype=np.int64), np.zeros((k, k), dtype=np.int64)

    @property
    def n(self) -> int:
        """Sets that are not empty."""
        return int(self.sizes[1:].sum())

    @property
    def n_several(self) -> int:
        """Sets of more than one label."""
        return int(self.sizes[2:].sum())

    @property
    def n_labels(self) -> int:
        """Labels in all sets."""
        return int(self.sizes @ np.arange(len(self.sizes)))

    def add(self, R: Ranks) -> None:
        """Count the sets of a shard.

        Example:
            >>> counts = SetCounts(3)
            >>> counts.add(np.array([[0, 1, -1], [1, 0, -1], [-1, -1, 0]]))
            >>> counts.sizes.tolist(), counts.led[0].tolist(), counts.equal.total()
            ([0, 1, 2, 0], [0, 1, 0], 2)
        """
        k, S = R.shape[1], R >= 0
        size = S.sum(axis=1)
        self.sizes += np.bincount(size, minlength=k + 1)
        self.first += (R == 0).sum(axis=0)
        self.holding += S.sum(axis=0)
        for _, one, other, is_led in ranked_pairs(R):
            met = np.bincount(one * k + other, minlength=k * k).reshape(k, k)
            self.together += met + met.T
            self.led += met if is_led else 0
        self.equal.update(row.tobytes() for row in np.packbits(S[size > 1], axis=1))
        if len(self.equal) > MAX_DIFFERENT:
            self.equal = Counter(dict(self.equal.most_common(MAX_DIFFERENT // 2)))


def ranked_pairs(R: Ranks) -> Iterator[tuple[Counts, Counts, Counts, bool]]:
    """All pairs of labels in sets, by their two places: rows, the better label, the other, whether the better is first.

    Example:
        >>> [(rows.tolist(), one.tolist(), other.tolist(), led) for rows, one, other, led in
        ...  ranked_pairs(np.array([[0, 1, -1], [-1, 1, 0]]))]
        [([0, 1], [0, 2], [1, 1], True)]
    """
    rows, columns = np.nonzero(R >= 0)
    places = np.full((len(R), int(R.max(initial=-1)) + 1), -1, dtype=np.int64)
    places[rows, R[rows, columns]] = columns
    for a in range(places.shape[1]):
        for b in range(a + 1, places.shape[1]):
            met = np.flatnonzero((places[:, a] >= 0) & (places[:, b] >= 0))
            if len(met):
                yield met, places[met, a], places[met, b], a == 0


def set_entropy(counts: SetCounts) -> float:
    """Entropy of the sets of several labels, over what as many random sets of the same sizes would have; in [0, 1].

    H = -Σ c/m log c/m over the different sets, c of m. A set of s labels drawn at random is one of N = C(k, s), so
    that m_s of them have log m - E log(1 + X) on average, X Poisson with mean m_s / N; weighed by the sizes. 1 where
    there is nothing to differ: no set of several labels, or one that is possible.

    Example:
        >>> counts = SetCounts(3)
        >>> counts.add(np.array([[0, 1, -1]] * 50))
        >>> set_entropy(counts)
        0.0
    """
    m, k = counts.n_several, len(counts.first)
    sizes = np.flatnonzero(counts.sizes[2:]) + 2
    expected = sum(
        counts.sizes[s] / m * (np.log(m) - _mean_log_count(counts.sizes[s] / _choices(k, int(s)))) for s in sizes
    )
    # A single possible set: rounding leaves a trace of an entropy that is none.
    if m == 0 or expected < 1e-9 or (len(sizes) == 1 and _choices(k, int(sizes[0])) == 1.0):
        return 1.0
    share = np.array(list(counts.equal.values())) / counts.equal.total()
    return float(min(abs((share * np.log(share)).sum()) / expected, 1.0))


def companions(counts: SetCounts, at_least: int) -> float | None:
    """How many different labels stand beside a first one: exp of the entropy of the others in the sets that it leads.

    The mean over labels whose sets hold `at_least` others, by their number; None where no label's do.

    Source:
        Hill, Diversity and Evenness: A Unifying Notation and Its Consequences, 1973, of order one.

    Example:
        >>> counts = SetCounts(3)
        >>> counts.add(np.array([[0, 1, -1]] * 6 + [[0, -1, 1]] * 6))
        >>> round(companions(counts, at_least=10), 2)
        2.0
    """
    total = counts.led.sum(axis=1)
    led, weight = counts.led[total >= at_least], total[total >= at_least]
    if not len(weight):
        return None
    share = led / weight[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    return float(np.average(np.exp(entropy), weights=weight))


def _choices(k: int, size: int) -> float:
    """How many sets of some size there are; a float, since the number soon outgrows 64 bits."""
    return float(np.prod([(k - i) / (size - i) for i in range(size)]))


def _mean_log_count(mean: float) -> float:
    """E log(1 + X), X Poisson; beyond a mean of 100 by its expansion, which is then right to four places."""
    if mean > 100:
        return float(np.log1p(mean) - mean / (2 * (1 + mean) ** 2))
    x = np.arange(250)
    log_weight = x * np.log(max(mean, 1e-300)) - mean - np.concatenate([[0.0], np.cumsum(np.log(x[1:]))])
    return float(np.exp(log_weight) @ np.log1p(x))
