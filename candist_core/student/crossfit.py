"""Beliefs about texts from small students that never saw their answers (cross-fitting).

n texts, d numbers an embedding, k labels; X (n, d), rows of length one; P (n, k) float32, rows sum to one. The texts
are cut into folds; a head learns from all folds but one and is asked about that one. A student that is asked about
its own training texts repeats what it was taught, right or wrong, and cannot correct it.
Invariant: row i of P does not depend on the teacher's answer to text i.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from candist_core.candidates import has_candidates
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.recipe import Recipe
from candist_core.student.head import HeadSettings, TrainedHead, train_head

MAX_ROWS = 20_000
"""Texts that a head learns from, at most: more make it slower and hardly better."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Heads by fold, and the fold of each text, (n,), -1 for those that no head has learned from."""

    heads: tuple[TrainedHead | None, ...]
    folds: NDArray[np.int64]
    k: int

    def believe(self, X: Matrix, folds: NDArray[np.int64]) -> Matrix:
        """P: the belief of the head that never saw the fold; of all of them, on average, for fold -1.

        A fold whose head had nothing to learn from is believed to be anything.

        Args:
            X: (b, d).
            folds: (b,), from -1 to the number of folds.
        """
        beliefs = [
            np.full((len(X), self.k), 1 / self.k, dtype=np.float32) if head is None else head.predict(X)
            for head in self.heads
        ]
        every = np.stack(beliefs)
        own: Matrix = every[np.maximum(folds, 0), np.arange(len(X))]
        return np.where((folds < 0)[:, None], every.mean(axis=0), own)


def cross_fit(
    X: Matrix,
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer],
    recipe: Recipe,
    seed: int,
    n_folds: int = 5,
    settings: HeadSettings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> CrossFit:
    """Train a head without each fold.

    Args:
        X: (n, d) embeddings, rows of length one.
        S: (n, k) candidate mask; rows without candidates belong to no fold.
        ranks: R, (n, k), the teacher's order.
        recipe: what the heads learn by.
        seed: fixes the folds and all that heads draw by chance.
        n_folds: 2 or more.
        settings: of the heads.
        on_progress: told about each fold.

    Raises:
        StudentError: nothing to learn from, an embedding that is no number, or training diverged.

    Source:
        Chernozhukov et al., Double/Debiased Machine Learning for Treatment and Structural Parameters, 2018.

    Example:
        >>> from candist_core.recipe import find_recipe
        >>> X, S = np.eye(2, dtype=np.float32)[[0, 1] * 20], np.eye(2, dtype=bool)[[0, 1] * 20]
        >>> fitted = cross_fit(X, S, np.where(S, 0, -1), find_recipe("sa_ce"), seed=0, n_folds=2)
        >>> fitted.believe(X, fitted.folds)[:2].argmax(axis=1).tolist()
        [0, 1]
    """
    rows = np.flatnonzero(has_candidates(S))
    if len(rows) == 0:
        found = f"0 of {len(S)} texts with candidates"
        raise StudentError("training texts", found, "at least one", "check the teacher's replies")
    folds = np.full(len(S), -1, dtype=np.int64)
    rng = np.random.default_rng((seed, len(S)))
    folds[rng.permutation(rows)] = np.arange(len(rows)) % n_folds
    heads: list[TrainedHead | None] = []
    for fold in range(n_folds):
        taught = rows[folds[rows] != fold]
        if len(taught) > MAX_ROWS:
            taught = np.sort(rng.choice(taught, MAX_ROWS, replace=False))
        is_taught = len(taught) > 0
        heads.append(train_head(X[taught], S[taught], ranks[taught], recipe, seed, settings) if is_taught else None)
        # Counted are the reads of the student itself, which come after.
        on_progress(Progress("distill", "", 0, len(rows), note=f"out of fold, {fold + 1} of {n_folds}"))
    return CrossFit(tuple(heads), folds, S.shape[1])
