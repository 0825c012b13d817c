"""Planted teachers: recorded answers made weaker, stronger, or wrong in a way that is known.

n texts, k labels; R (n, k) is a rank table, -1 outside the set, y (n,) gold. Gold serves to plant a mistake or a right
answer, never to train on. Invariant: equal inputs and seed give equal answers, and every text with an answer keeps one.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import Corpus

Ranks = NDArray[np.int16]
Columns = NDArray[np.int64]


def ranked(k: int, *places: Columns) -> Ranks:
    """R, (n, k), of the labels at the first place, the second and so on; -1 leaves a place out, as does a repetition.

    Example:
        >>> ranked(3, np.array([2, 0]), np.array([1, -1])).tolist()
        [[-1, 1, 0], [0, -1, -1]]
    """
    R = np.full((len(places[0]), k), -1, dtype=np.int16)
    for place, columns in reversed(list(enumerate(places))):
        rows = np.flatnonzero(columns >= 0)
        R[rows, columns[rows]] = place
    return R


def mixed(R: Ranks, other: Ranks, share: float, seed: int) -> Ranks:
    """A share of the answers replaced by those of another teacher."""
    is_other = np.random.default_rng((seed, 1)).random(len(R)) < share
    return np.where(is_other[:, None], other, R)


def shuffled(R: Ranks, share: float, seed: int) -> Ranks:
    """A share of the answers dealt out anew among the same texts: wrong by chance, with labels and sizes as before."""
    rng = np.random.default_rng((seed, 2))
    rows = np.flatnonzero(rng.random(len(R)) < share)
    dealt = R.copy()
    dealt[rows] = R[rng.permutation(rows)]
    return dealt


def mended(R: Ranks, y: Columns, share: float, seed: int) -> Ranks:
    """A share of the wrong first labels put right: the truth moves to the front or takes the place of the first."""
    n = len(y)
    at = R[np.arange(n), y]
    is_mended = (at != 0) & (R >= 0).any(axis=1) & (np.random.default_rng((seed, 3)).random(n) < share)
    right = R.copy()
    rows = np.flatnonzero(is_mended & (at > 0))
    right[rows] += (R[rows] >= 0) & (R[rows] < at[rows, None])
    right[rows, y[rows]] = 0
    rows = np.flatnonzero(is_mended & (at < 0))
    right[rows, (R[rows] == 0).argmax(axis=1)] = -1
    right[rows, y[rows]] = 0
    return right


def identical(R: Ranks, share: float, seed: int) -> Ranks:
    """A share of the answers replaced by one and the same set, the two most frequent first labels."""
    frequent = np.argsort(-(R == 0).sum(axis=0), kind="stable")[:2]
    same = ranked(R.shape[1], *(np.full(len(R), label) for label in frequent))
    return mixed(R, same, share, seed)


def guessed(corpus: Corpus, share: float, seed: int) -> Ranks:
    """First labels alone, and beside a share of them a second one drawn by chance."""
    rng, first, k = np.random.default_rng((seed, 8)), corpus.first, len(corpus.labels)
    other = (first + rng.integers(1, k, len(first))) % k
    has_second = (rng.random(len(first)) < share) & (first >= 0)
    return ranked(k, first, np.where(has_second, other, -1))


def partnered(R: Ranks) -> Ranks:
    """Every first label with the same partner beside it: 0 with 1, 2 with 3, and so on."""
    k, first = R.shape[1], np.where((R >= 0).any(axis=1), (R == 0).argmax(axis=1), -1)
    return ranked(k, first, np.where(first < 0, -1, (first ^ 1) % k))


def wrong_clusters(corpus: Corpus, share: float, seed: int) -> Ranks:
    """Answers of some clusters of alike texts replaced by labels that are wrong for most of the cluster.

    Clusters (k-means of the embeddings, two for each label) are drawn until they hold the share of texts; each has one
    wrong label, and a second one where a set had several.
    """
    from sklearn.cluster import KMeans

    k = len(corpus.labels)
    n_clusters = min(2 * k, len(np.unique(corpus.X, axis=0)))
    clusters = KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(corpus.X)
    rng = np.random.default_rng((seed, 4))
    first, second = corpus.first.copy(), np.full(len(corpus.y), -1)
    n_wrong = 0
    wrong = np.zeros(len(corpus.y), dtype=np.bool_)
    for cluster in rng.permutation(clusters.max() + 1):
        rows = np.flatnonzero(clusters == cluster)
        if n_wrong >= share * len(clusters):
            break
        n_wrong += len(rows)
        usual = np.bincount(corpus.y[rows], minlength=k).argmax()
        others = rng.permutation(np.delete(np.arange(k), usual))
        wrong[rows] = True
        first[rows], second[rows] = others[0], others[1]
    second = np.where(corpus.S.sum(axis=1) > 1, second, -1)
    return np.where(wrong[:, None], ranked(k, first, second), corpus.R)


def split_labels(corpus: Corpus, seed: int) -> Corpus:
    """Every third label made two that no text tells apart: gold by a coin's toss, both in its sets, either first."""
    rng, k = np.random.default_rng((seed, 5)), len(corpus.labels)
    old = np.arange(0, k, 3)
    twin = np.full(k, -1)
    twin[old] = k + np.arange(len(old))

    def tossed(y: Columns) -> Columns:
        return np.where((twin[y] >= 0) & (rng.random(len(y)) < 0.5), twin[y], y)

    # Places are doubled, so that a twin fits in between.
    R = np.full((len(corpus.R), k + len(old)), -1, dtype=np.int64)
    R[:, :k] = np.where(corpus.R >= 0, 2 * corpus.R, -1)
    R[:, k:] = np.where(corpus.R[:, old] >= 0, 2 * corpus.R[:, old] + 1, -1)
    swapped = rng.random((len(R), len(old))) < 0.5
    halves = R[:, old], R[:, k:]
    R[:, old], R[:, k:] = np.where(swapped, halves[1], halves[0]), np.where(swapped, halves[0], halves[1])
    dense = np.where(R >= 0, R, np.iinfo(np.int64).max).argsort(axis=1, kind="stable").argsort(axis=1)
    labels = (*corpus.labels, *(f"{corpus.labels[j]} too" for j in old))
    return replace(
        corpus, labels=labels, y=tossed(corpus.y), y_test=tossed(corpus.y_test),
        R=np.where(R >= 0, dense, -1).astype(np.int16),
    )  # fmt: skip


def projected(corpus: Corpus, d: int, seed: int) -> Corpus:
    """The embeddings seen through d random directions, at length one again: a student too small for its task."""
    G = np.random.default_rng((seed, 6)).normal(size=(corpus.X.shape[1], d)).astype(np.float32)
    X, X_test = (rows @ G for rows in (corpus.X, corpus.X_test))
    X, X_test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, X_test))
    return replace(corpus, X=X, X_test=X_test)


def distracted(corpus: Corpus, n_distractors: int, share_covered: float, seed: int) -> Ranks:
    """Sets of two labels in random order: the truth, and a wrong one of so many that its label is mistaken for.

    Each label has its own distractors, drawn by chance. A share of the sets, less `share_covered`, holds another
    distractor in place of the truth.
    """
    rng, n, k = np.random.default_rng((seed, 7)), len(corpus.y), len(corpus.labels)
    own = np.stack([rng.permutation(np.delete(np.arange(k), j)) for j in range(k)])
    pick = rng.integers(0, n_distractors, n)
    wrong = own[corpus.y, pick]
    # Never the same twice: the stranger is the next in the label's own order.
    stranger = own[corpus.y, (pick + 1) % (k - 1)]
    other = np.where(rng.random(n) < share_covered, corpus.y, stranger)
    is_swapped = rng.random(n) < 0.5
    return ranked(k, np.where(is_swapped, wrong, other), np.where(is_swapped, other, wrong))


def flipped(corpus: Corpus, kind: str, rate: float) -> Ranks:
    """Rank table of a planted teacher: unsure, with two labels, where it is wrong and on a fifth of the rest."""
    rng, n, k = np.random.default_rng(0), len(corpus.y), len(corpus.labels)
    centres = np.stack([corpus.X[corpus.y == j].mean(axis=0) for j in range(k)])
    likeness = corpus.X @ centres.T
    likeness[np.arange(n), corpus.y] = -np.inf
    nearest = likeness.argmax(axis=1)
    if kind == "uniform":
        wrong, is_wrong = (corpus.y + rng.integers(1, k, n)) % k, rng.random(n) < rate
    elif kind == "by class":
        wrong, is_wrong = (corpus.y + 1) % k, rng.random(n) < rate
    else:
        # Those most like another class are wrong, always towards that class.
        margin = (corpus.X * centres[corpus.y]).sum(axis=1) - likeness.max(axis=1)
        wrong, is_wrong = nearest, margin.argsort().argsort() < rate * n
    first = np.where(is_wrong, wrong, corpus.y)
    # Neither the first label nor the true one.
    third = (first + 1) % k
    third = np.where(third == corpus.y, (first + 2) % k, third)
    stranger = np.where(nearest == first, third, nearest)
    second = np.where(is_wrong, np.where(rng.random(n) < 0.5, corpus.y, stranger), nearest)
    has_second = (is_wrong | (rng.random(n) < 0.2)) & (second != first)
    return ranked(k, first, np.where(has_second, second, -1))
