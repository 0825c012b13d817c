"""What can be seen of candidate sets and of a student without gold.

n texts, k labels. R (n, k) is the rank table, -1 outside the set, S = R >= 0 the mask, P (n, k) what is believed of
texts by students that never saw their answers, rows sum to one. No function here takes gold.
"""

import numpy as np
from numpy.typing import NDArray

from candist_core.places import learn_places, prior_places
from candist_core.reliability import outside_set

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
Ranks = NDArray[np.integer]

_MIN_TEXTS = 10
"""Fewer texts of a label, or with a pair of labels, say nothing about it."""


def companions(R: Ranks) -> NDArray[np.float64]:
    """How many different labels stand beside each first label, (k,): exp of the entropy of the others of its sets.

    1 is always the same one, k - 1 every other one alike. Not a number where sets with that first label hold fewer
    than ten others.

    Source:
        Hill, Diversity and Evenness: A Unifying Notation and Its Consequences, 1973, of order one.

    Example:
        >>> R = np.array([[0, 1, -1]] * 6 + [[0, -1, 1]] * 6)
        >>> companions(R).round(2).tolist()
        [2.0, nan, nan]
    """
    k = R.shape[1]
    counts = np.stack([(R[R[:, j] == 0] > 0).sum(axis=0) for j in range(k)]).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1.0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    return np.where(total[:, 0] >= _MIN_TEXTS, np.exp(entropy), np.nan)


def mean_companions(R: Ranks) -> float:
    """Mean of `companions` over first labels, by the number of others in their sets; 0 where no label has ten.

    Example:
        >>> mean_companions(np.array([[0, 1, -1]] * 6 + [[0, -1, 1]] * 6))
        2.0
    """
    each = companions(R)
    weight = np.array([(R[R[:, j] == 0] > 0).sum() for j in range(R.shape[1])], dtype=float)
    seen = ~np.isnan(each)
    return float(np.average(each[seen], weights=weight[seen])) if seen.any() else 0.0


def largest_set_share(S: Mask) -> float:
    """Share of the texts that have the most frequent set of two or more labels.

    Example:
        >>> largest_set_share(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=bool))
        0.5
    """
    several = S[S.sum(axis=1) > 1]
    return float(np.unique(several, axis=0, return_counts=True)[1].max() / len(S)) if len(several) else 0.0


def pair_lift(S: Mask) -> float:
    """The largest lift of two labels: how much more often they share a set than by chance; 0 where no pair is seen.

    n · n_ab / (n_a · n_b), of pairs that share ten sets or more.

    Source:
        Brin et al., Dynamic Itemset Counting and Implication Rules for Market Basket Data, SIGMOD 1997.

    Example:
        >>> pair_lift(np.array([[1, 1, 0, 0]] * 10 + [[0, 0, 1, 0]] * 10, dtype=bool))
        2.0
    """
    together, alone = _pairs(S)
    lifts = together * len(S) / np.maximum(np.outer(alone, alone), 1.0)
    return float(np.where(together >= _MIN_TEXTS, lifts, 0.0).max())


def pair_overlap(S: Mask) -> float:
    """The largest overlap of two labels: of the sets with either, the share with both (Jaccard).

    Example:
        >>> pair_overlap(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]] * 5, dtype=bool)).__round__(2)
        0.67
    """
    return float(_overlaps(S).max())


def pair_entropy(P: Floats, S: Mask) -> float:
    """How undecided the belief is between the two labels of the largest overlap, over the sets with both, in [0, 1].

    0 where no pair shares ten sets.

    Example:
        >>> P, S = np.array([[0.4, 0.4, 0.2]] * 10), np.array([[True, True, False]] * 10)
        >>> pair_entropy(P, S)
        1.0
    """
    overlaps = _overlaps(S)
    if not overlaps.any():
        return 0.0
    pair = np.array(np.unravel_index(overlaps.argmax(), overlaps.shape))
    return in_set_entropy(P[:, pair], S[:, pair])


def in_set_entropy(P: Floats, S: Mask) -> float:
    """How undecided the belief is within sets of several labels: mean of H(P·S / Σ P·S) / log |S|, in [0, 1].

    0 where no set has several labels.

    Example:
        >>> P, S = np.array([[0.4, 0.4, 0.2], [1.0, 0.0, 0.0]]), np.array([[True, True, False]] * 2)
        >>> in_set_entropy(P, S)
        0.5
    """
    several = S.sum(axis=1) > 1
    if not several.any():
        return 0.0
    mass = np.where(S, np.maximum(P, np.finfo(np.float32).tiny), 0.0)[several].astype(float)
    share = mass / mass.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    return float((entropy / np.log(S[several].sum(axis=1))).mean())


def in_set_rate(P: Floats, S: Mask) -> float:
    """Share of the texts whose most probable label is in their set.

    Example:
        >>> in_set_rate(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[True, False]] * 2))
        0.5
    """
    return float(1.0 - outside_set(P, S).mean())


def worst_labels_rate(P: Floats, R: Ranks) -> float:
    """The same by first label, at the lowest tenth of the labels that have ten texts; 0 where none has.

    Example:
        >>> P, R = np.array([[0.9, 0.1]] * 20), np.array([[0, -1]] * 10 + [[-1, 0]] * 10)
        >>> worst_labels_rate(P, R)
        0.1
    """
    is_inside, first = ~outside_set(P, R >= 0), (R == 0)
    rates = [is_inside[first[:, j]].mean() for j in range(R.shape[1]) if first[:, j].sum() >= _MIN_TEXTS]
    return float(np.quantile(rates, 0.1)) if rates else 0.0


def noise_rate(R: Ranks, P: Floats, temperature: float) -> float:
    """Share of the sets that miss the truth by expectation maximisation of the place table, as in the label model.

    Args:
        R: (n, k).
        P: (n, k).
        temperature: of the belief; a run's label model counts with 2, and 1 hears the belief as it is.

    Example:
        >>> R, P = np.full((90, 2), [0, -1]), np.full((90, 2), [0.001, 0.999])
        >>> round(noise_rate(R, P, temperature=2.0), 2)
        0.65
    """
    sizes = (R >= 0).sum(axis=1)
    rows = sizes > 0
    belief = np.asarray(P[rows], dtype=np.float64) ** (1 / temperature)
    places = learn_places(R[rows], belief, prior_places(int(sizes.max(initial=0))), may_rise=False)
    return float(places[sizes[rows], -1].mean())


def _overlaps(S: Mask) -> Floats:
    """Overlap of each two labels, (k, k); 0 of those that share fewer than ten sets."""
    together, alone = _pairs(S)
    either = np.maximum(alone[:, None] + alone[None] - together, 1.0)
    return np.where(together >= _MIN_TEXTS, together / either, 0.0)


def _pairs(S: Mask) -> tuple[Floats, Floats]:
    """How many sets hold two labels, (k, k) with nothing on the diagonal, and how many hold each, (k,)."""
    counts = S.astype(np.float64)
    together = counts.T @ counts
    alone = together.diagonal().copy()
    np.fill_diagonal(together, 0.0)
    return together, alone
