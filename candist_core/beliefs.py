"""Counts of what students that never saw a text's answer believe of it, beside that answer.

n texts with a set, k labels; R (n, k) is the rank table, -1 outside the set, P (n, k) the belief, rows sum to one.
Everything adds up over shards; of the rows themselves a sample of bounded size is kept.
"""

import numpy as np
from numpy.typing import NDArray

from candist_core.metrics import wilson
from candist_core.places import learn_places, prior_places
from candist_core.reliability import log_belief, outside_set
from candist_core.reports import Interval
from candist_core.sets import Ranks, ranked_pairs

Floats = NDArray[np.floating]

SAMPLE_ROWS = 20_000
"""Rows that the estimate of coverage is made of, at most twice as many: its standard error is then below 0.3 points."""


class BeliefCounts:
    """What shards of beliefs add up to.

    Attributes:
        n: texts with a set and a belief.
        believed: (k,) texts by their most probable label.
        led: (k,) texts by the first label of their set; `inside` counts those whose set holds the most probable label.
        entropy: sum of in-set entropies over the `n_several` sets of more than one label.
        pair_bits: (k, k) sum of entropies between two labels of a set, in bits, over the `pairs` sets with both; only
            above the diagonal.
    """

    def __init__(self, k: int) -> None:
        self.n, self.n_inside, self.n_several, self.n_further, self.entropy = 0, 0, 0, 0, 0.0
        self.mass_first, self.mass_set = 0.0, 0.0
        self.believed, self.led, self.inside = (np.zeros(k, dtype=np.int64) for _ in range(3))
        self.pairs, self.pair_bits = np.zeros((k, k), dtype=np.int64), np.zeros((k, k))
        self._rows: list[tuple[NDArray[np.int16], NDArray[np.float32]]] = []
        self._n_sampled, self._stride, self._skip = 0, 1, 0

    def add(self, R: Ranks, P: Floats) -> None:
        """Count the texts of a shard; none of its sets is empty.

        Example:
            >>> counts = BeliefCounts(3)
            >>> counts.add(np.array([[0, 1, -1]] * 2), np.array([[0.4, 0.4, 0.2], [1.0, 0.0, 0.0]]))
            >>> counts.n_inside, counts.entropy, counts.believed.tolist()
            (2, 1.0, [2, 0, 0])
        """
        k, S, is_first = R.shape[1], R >= 0, R == 0
        P, inside = np.asarray(P, dtype=np.float64), ~outside_set(P, S)
        self.n += len(P)
        self.n_inside += int(inside.sum())
        self.believed += np.bincount(P.argmax(axis=1), minlength=k)
        self.led += is_first.sum(axis=0)
        self.inside += is_first[inside].sum(axis=0)
        self.n_further += int(S.sum()) - len(S)
        self.mass_first += float(P[is_first].sum())
        self.mass_set += float(P[S].sum())
        several = S.sum(axis=1) > 1
        self.n_several += int(several.sum())
        self.entropy += float(_in_set_entropy(P[several], S[several]).sum())
        for rows, one, other, _ in ranked_pairs(R):
            bits = _bits(P[rows, one], P[rows, other])
            cell = np.minimum(one, other) * k + np.maximum(one, other)
            self.pairs += np.bincount(cell, minlength=k * k).reshape(k, k)
            self.pair_bits += np.bincount(cell, bits, minlength=k * k).reshape(k, k)
        self._sample(R, P)

    @property
    def in_set_entropy(self) -> float:
        """Mean of H(P·S / Σ P·S) / log |S| over the sets of several labels, in [0, 1]; 0 where there is none."""
        return self.entropy / max(self.n_several, 1)

    @property
    def lift(self) -> float | None:
        """Belief in a further label of a set, over belief in a random label beside the first; None for sets of one.

        The lift of `candist_core.metrics` with what is believed in place of gold.
        """
        k, rest = len(self.led), self.n - self.mass_first
        if not self.n_further or rest <= 0:
            return None
        return (self.mass_set - self.mass_first) / self.n_further * (k - 1) * self.n / rest

    def coverage(self, sizes: NDArray[np.int64]) -> Interval | None:
        """Sets that hold the true label, as the students have it; None without beliefs.

        The value is by expectation maximisation of the place table on the belief as it is, never above the 95 % that
        the table starts from. The interval holds the 95 % intervals of the value and of the share of sets with the
        most probable label: where students err by themselves the truth is above that share. Where they err with the
        teacher, it is below both.

        Args:
            sizes: (k + 1,) sets by their number of labels.

        Source:
            Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979.

        Example:
            >>> counts = BeliefCounts(2)
            >>> counts.add(np.full((500, 2), [0, -1]), np.full((500, 2), [0.999, 0.001]))
            >>> print(counts.coverage(np.array([0, 500, 0])))
            95.0 % (92.7 to 100.0)
        """
        if not self.n:
            return None
        R, P = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        largest = int(np.flatnonzero(sizes).max())
        places = learn_places(R, P, prior_places(largest), may_rise=False)
        hit = float(sizes[1 : largest + 1] @ (1 - places[1:, -1]) / sizes[1:].sum())
        found, shown = wilson(round(hit * self.n), self.n), wilson(self.n_inside, self.n)
        return Interval(value=hit, low=min(found.low, shown.low), high=max(found.high, shown.high), n=self.n)

    def _sample(self, R: Ranks, P: Floats) -> None:
        """Keep every so many-th row; with too many, every second of those."""
        kept = slice(self._skip, None, self._stride)
        self._rows.append((R[kept].astype(np.int16), P[kept].astype(np.float32)))
        self._skip = (self._skip - len(R)) % self._stride
        self._n_sampled += len(self._rows[-1][0])
        if self._n_sampled > 2 * SAMPLE_ROWS:
            ranks, beliefs = (np.concatenate(parts)[::2] for parts in zip(*self._rows, strict=True))
            self._rows = [(ranks, beliefs)]
            self._n_sampled, self._stride = len(ranks), 2 * self._stride


def _in_set_entropy(P: Floats, S: NDArray[np.bool_]) -> Floats:
    mass = np.where(S, np.maximum(P, np.finfo(np.float32).tiny), 0.0)
    share = mass / mass.sum(axis=1, keepdims=True)
    entropy: Floats = -(share * log_belief(share)).sum(axis=1) / np.log(S.sum(axis=1))
    return entropy


def _bits(one: Floats, other: Floats) -> Floats:
    """Entropy between two beliefs, in bits."""
    tiny = np.finfo(np.float32).tiny
    share = np.maximum(one, tiny) / (np.maximum(one, tiny) + np.maximum(other, tiny))
    bits: Floats = -(share * log_belief(share) + (1 - share) * log_belief(1 - share)) / np.log(2)
    return bits
