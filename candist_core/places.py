"""Where in the teacher's answer the truth stands: a table, and what it makes of each answer.

n texts, k labels. R is the rank table, (n, k): the place of a label in the teacher's set, -1 outside it. W is the
place table, (M + 1, M + 1), M the size of the largest set: W[m, r] is the chance that a set of m labels holds the
true one at place r, W[m, M] that it does not hold it; its rows sum to one, row 0 is zero. The k - m labels outside
a set of m are alike in the teacher's eyes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ranks = NDArray[np.integer]

NEXT_PLACE = 1 / 3
"""How probable the teacher's next label is beside the one before it. Gold gave its first of two labels 0.76 to
0.81 on TREC, Banking77 and the sample corpus."""

_OUTSIDE_OF_ONE, _OUTSIDE_OF_SEVERAL = 0.05, 0.08
_MIN_WEIGHT, _PRIOR_WEIGHT = 50.0, 0.3
_EM_ROUNDS = 5


def prior_places(largest: int) -> NDArray[np.float64]:
    """W before any text is seen, for sets of up to `largest` labels.

    The truth is missing from 5 % of single labels and 8 % of larger sets; inside a set each place is a third as
    likely as the one before.

    Example:
        >>> prior_places(2).round(2).tolist()
        [[0.0, 0.0, 0.0], [0.95, 0.0, 0.05], [0.69, 0.23, 0.08]]
    """
    places = np.zeros((largest + 1, largest + 1))
    for size in range(1, largest + 1):
        outside = _OUTSIDE_OF_ONE if size == 1 else _OUTSIDE_OF_SEVERAL
        inside = NEXT_PLACE ** np.arange(size)
        places[size, :size] = (1 - outside) * inside / inside.sum()
        places[size, largest] = outside
    return places


def flat_places(places: Floats) -> NDArray[np.float64]:
    """W with all places inside a set alike, its outside as before.

    Example:
        >>> flat_places(prior_places(2)).round(2).tolist()
        [[0.0, 0.0, 0.0], [0.95, 0.0, 0.05], [0.46, 0.46, 0.08]]
    """
    flat = np.zeros(places.shape)
    for size in range(1, len(places)):
        flat[size, :size] = places[size, :size].mean()
        flat[size, -1] = places[size, -1]
    return flat


def answer_likelihood(R: Ranks, places: Floats) -> NDArray[np.float32]:
    """How likely each text's answer is under each label, (n, k) float32, up to a factor of the row.

    W[m, R_j] inside the set and W[m, M] / (k - m) outside it. An empty set says nothing: ones.

    Example:
        >>> (100 * answer_likelihood(np.array([[1, 0, -1], [-1, -1, -1]]), prior_places(2))).round().tolist()
        [[23.0, 69.0, 8.0], [100.0, 100.0, 100.0]]
    """
    inside = R >= 0
    sizes = inside.sum(axis=1)[:, None]
    likelihood = places[sizes, np.where(inside, R, places.shape[1] - 1)]
    likelihood = np.where(inside, likelihood, likelihood / np.maximum(R.shape[1] - sizes, 1))
    rows: NDArray[np.float32] = np.where(sizes > 0, likelihood, 1.0).astype(np.float32)
    return rows


def learn_places(R: Ranks, P: Floats, prior: Floats, may_rise: bool = True) -> NDArray[np.float64]:
    """Learn W without gold, by five rounds of expectation maximisation under a Dirichlet prior.

    W[m, r] ∝ a_m · prior[m, r] + Σ posterior_ij over the sets of m labels that hold label j at place r, where the
    posterior is ∝ P_ij · W and a_m = max(50, 0.3 · number of such sets).

    Args:
        R: (n, k), -1 outside the set.
        P: (n, k), the student's belief about these texts; best about texts that it was not trained on.
        prior: W to start from, for sets at least as large as those of R.
        may_rise: whether the teacher may be found better than the prior says. A row of W whose first place would
            rise above the prior's keeps the prior where it may not.

    Source:
        Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979;
        here with a row of errors for each set size in place of one for each label.

    Example:
        >>> R, P = np.full((500, 2), [0, -1]), np.full((500, 2), [0.999, 0.001])
        >>> learn_places(R, P, prior_places(1))[1].round(3).tolist()
        [0.988, 0.012]
    """
    inside, width = R >= 0, len(prior)
    sizes = inside.sum(axis=1)
    cells = (sizes[:, None] * width + np.where(inside, R, width - 1)).ravel()
    weight = np.maximum(_MIN_WEIGHT, _PRIOR_WEIGHT * np.bincount(sizes, minlength=width))
    # A belief of exactly zero would make a label impossible whatever the teacher says.
    belief = np.maximum(np.asarray(P, dtype=np.float64), np.finfo(np.float32).tiny)
    places = np.asarray(prior, dtype=np.float64)
    for _ in range(_EM_ROUNDS):
        posterior = belief * answer_likelihood(R, places)
        posterior /= posterior.sum(axis=1, keepdims=True)
        counts = np.bincount(cells, posterior.ravel(), minlength=width * width).reshape(width, width)
        counts += weight[:, None] * prior
        places = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        places[0] = 0.0
        if not may_rise:
            places = np.where(places[:, :1] > prior[:, :1], prior, places)
    return places
