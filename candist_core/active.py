"""Which texts a teacher should read when it cannot read all: at random, spread out, or those a student doubts most.

n texts of a pool, d numbers an embedding, k labels; X (n, d), rows of length one; P (n, k), what a student believes,
rows sum to one. Invariant: what is drawn is distinct, and equal inputs and seed draw the same.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

_AT_ONCE = 64
"""Texts drawn between two looks at the distances: one by one, each look reads the whole pool from memory."""

TEXTS_A_CLUSTER, MAX_CLUSTERS = 50, 500
DOUBTFUL_TIMES = 5
"""So many times the texts wanted are the most doubtful ones, of which those apart from each other are drawn."""


def draw_random(n: int, size: int, seed: int) -> Rows:
    """Distinct rows of n, in order.

    Example:
        >>> draw_random(3, 5, seed=0).tolist()
        [0, 1, 2]
    """
    return np.sort(np.random.default_rng((seed, n)).choice(n, min(size, n), replace=False)).astype(np.int64)


def draw_stratified(X: Matrix, size: int, seed: int) -> Rows:
    """Rows at random from each cluster of like texts, as many as is its share of the pool.

    Clusters are k-means of the embeddings, one for every 50 texts wanted. The draw stands for the pool as a random one
    does, with less chance in it.

    Source:
        Neyman, On the Two Different Aspects of the Representative Method, 1934, for the allocation.
    """
    from sklearn.cluster import MiniBatchKMeans

    n_clusters = int(np.clip(size // TEXTS_A_CLUSTER, 1, min(MAX_CLUSTERS, len(X))))
    clusters = MiniBatchKMeans(n_clusters, n_init=1, random_state=seed, batch_size=4096).fit_predict(X)
    rng, order = np.random.default_rng((seed, len(X))), np.argsort(clusters, kind="stable")
    # Every so manieth text in the order of clusters, each cluster shuffled: largest remainders without a table.
    order = np.concatenate([rng.permutation(rows) for rows in np.split(order, _bounds(clusters[order]))])
    places = np.floor((np.arange(min(size, len(X))) + rng.random()) * len(X) / min(size, len(X))).astype(np.int64)
    return np.sort(order[places])


def _bounds(values: NDArray[np.integer]) -> Rows:
    return np.flatnonzero(np.diff(values)) + 1


def draw_diverse(X: Matrix, size: int, seed: int) -> Rows:
    """Rows far from each other: each is drawn with a chance that grows with its distance from those drawn before.

    Source:
        Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007; several at a time, as
        Bahmani et al., Scalable K-Means++, VLDB 2012.

    Example:
        >>> draw_diverse(np.eye(2, dtype=np.float32)[[0] * 9 + [1]], 2, seed=0)[-1].item()
        9
    """
    # Rows of length one: the squared distance is 2 - 2 x·y.
    return _draw_apart(lambda rows: 2 - 2 * (X @ X[rows].T), len(X), size, seed)


def margins(P: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much likelier the best label is than the second, (n,); small where a student doubts.

    Source:
        Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001.

    Example:
        >>> margins(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])).round(2).tolist()
        [0.25, 0.7]
    """
    best = np.partition(np.asarray(P, dtype=np.float64), -2, axis=1)
    found: NDArray[np.float64] = best[:, -1] - best[:, -2]
    return found


def draw_doubtful(P: NDArray[np.floating], X: Matrix, size: int, seed: int, times: int = DOUBTFUL_TIMES) -> Rows:
    """Rows that a student doubts, and that lie apart: of those with the smallest margins some far from each other.

    Args:
        P: (n, k).
        X: (n, d).
        size: rows wanted.
        seed: of the draw.
        times: of so many times the rows wanted; 1 takes the smallest margins as they are.

    Source:
        Citovsky et al., Batch Active Learning at Scale (cluster-margin), NeurIPS 2021; k-means++ in place of clusters.

    Example:
        >>> P = np.array([[0.9, 0.1], [0.5, 0.5], [0.8, 0.2]])
        >>> draw_doubtful(P, np.eye(3, dtype=np.float32), 1, seed=0, times=1).tolist()
        [1]
    """
    doubtful = np.sort(np.argsort(margins(P), kind="stable")[: times * size])
    return doubtful[draw_diverse(X[doubtful], size, seed)]


def draw_by_gradient(P: NDArray[np.floating], X: Matrix, size: int, seed: int) -> Rows:
    """Rows whose loss would move a linear head far, and in different directions.

    The gradient of one text, were its most probable label right, is (p - e) ⊗ x; its length says how unsure the student
    is, its direction what it would learn. Products of two such are (a·b)(x·y), so none of the n·k·d numbers is kept.

    Source:
        Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds (BADGE), ICLR 2020.
    """
    A = np.array(P, dtype=np.float32)
    A[np.arange(len(A)), A.argmax(axis=1)] -= 1
    norms = (A**2).sum(axis=1)

    def distances(rows: Rows) -> Matrix:
        found: Matrix = norms[:, None] + norms[rows] - 2 * (A @ A[rows].T) * (X @ X[rows].T)
        return found

    return _draw_apart(distances, len(X), size, seed, norms)


def _draw_apart(distances: Callable[[Rows], Matrix], n: int, size: int, seed: int, first: Matrix | None = None) -> Rows:
    """k-means++: rows by their squared distances, (n, b), to those drawn last; `first` weighs the very first draw."""
    if size >= n:
        return np.arange(n, dtype=np.int64)
    rng, nearest, drawn = np.random.default_rng((seed, n)), np.full(n, np.inf), np.empty(0, dtype=np.int64)
    weight = np.ones(n) if first is None else np.asarray(first, dtype=np.float64)
    while len(drawn) < size:
        rows = _weighed(rng, weight, drawn, min(_AT_ONCE if len(drawn) else 1, size - len(drawn)))
        drawn = np.concatenate([drawn, rows])
        nearest = np.minimum(nearest, np.maximum(distances(rows).min(axis=1), 0))
        weight = nearest
    return np.sort(drawn)


def _weighed(rng: np.random.Generator, weight: NDArray[np.float64], drawn: Rows, size: int) -> Rows:
    """Distinct rows not drawn yet, by weight; those of no weight when there are no others."""
    chance = np.array(weight, dtype=np.float64)
    chance[drawn] = 0
    # Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, 2006: the largest u^(1/w).
    key = np.where(chance > 0, np.log(rng.random(len(chance))) / np.maximum(chance, 1e-12), -1e300)
    key[drawn] = -np.inf
    return np.argpartition(-key, size - 1)[:size].astype(np.int64)
