"""Targets of single rows: shared alike, by the teacher's order, by the student's belief, sharpened, smoothed.

n texts, k labels. S is the candidate mask, (n, k) bool; R the rank table, (n, k), 0 for the teacher's first label,
-1 outside the set; W what the candidates weigh, (n, k), zero outside S; P what the student believes, (n, k), rows
sum to one; Q what it is trained towards, (n, k). Invariant: rows of Q sum to one.
"""

import numpy as np
from numpy.typing import NDArray

from candist_core.errors import EmptyCandidateSetError
from candist_core.places import NEXT_PLACE

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def uniform_targets(S: Mask) -> NDArray[np.float32]:
    """Share each row's mass equally among its candidates: Q = S / |S|.

    Raises:
        EmptyCandidateSetError: a row of S has no True.

    Example:
        >>> uniform_targets(np.array([[True, False], [True, True]])).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    return _normalised(S)


def rank_weights(ranks: NDArray[np.integer]) -> NDArray[np.float32]:
    """W, (n, k): each candidate weighs a third of the one before it in the teacher's order; rows sum to one.

    Raises:
        EmptyCandidateSetError: a row has no candidate.

    Example:
        >>> rank_weights(np.array([[1, -1, 0]])).tolist()
        [[0.25, 0.0, 0.75]]
    """
    return _normalised(np.where(ranks >= 0, NEXT_PLACE ** np.maximum(ranks, 0), 0.0))


def refine_targets(P: Floats, W: Mask | Floats) -> NDArray[np.float32]:
    """Move each text's target mass to the candidates the student prefers.

    One step of progressive identification: Q = P·W / Σ(P·W), row by row. A row where the student gives its
    candidates no mass at all falls back to W.

    Args:
        P: (n, k) in [0, 1].
        W: (n, k), weights of the candidates, or the mask S where all weigh the same.

    Raises:
        EmptyCandidateSetError: a row of W has nothing above zero.

    Source:
        Lv et al., Progressive Identification of True Labels for Partial-Label Learning, ICML 2020, where W is S.

    Example:
        >>> P = np.array([[0.6, 0.3, 0.1]])
        >>> S = np.array([[False, True, True]])
        >>> refine_targets(P, S).round(2).tolist()
        [[0.0, 0.75, 0.25]]
    """
    targets = _normalised(W)
    mass = P * W
    total = mass.sum(axis=1, keepdims=True)
    # A student sure of a label the teacher ruled out leaves 0/0 here; W keeps that text in the loss.
    np.divide(mass, total, out=targets, where=total > 0, casting="same_kind")
    return targets


def sharpen_targets(Q: Floats, gamma: float) -> NDArray[np.float32]:
    """Make targets more certain: Q^(1/gamma), rows brought back to one. One-hot rows stay as they are.

    Example:
        >>> (100 * sharpen_targets(np.array([[0.75, 0.25]]), gamma=0.5)).round().tolist()
        [[90.0, 10.0]]
    """
    # Scaled by the row's largest first, so that no power underflows to a row of zeros.
    peak = Q.max(axis=1, keepdims=True)
    powered = np.power(Q / peak, 1.0 / gamma)
    sharp: NDArray[np.float32] = (powered / powered.sum(axis=1, keepdims=True)).astype(np.float32)
    return sharp


def smooth_targets(Q: Floats, share: float) -> NDArray[np.float32]:
    """Spread a share of each target over all labels: (1 - share) · Q + share / k.

    Source:
        Szegedy et al., Rethinking the Inception Architecture, CVPR 2016.

    Example:
        >>> smooth_targets(np.array([[1.0, 0.0]]), share=0.5).tolist()
        [[0.75, 0.25]]
    """
    smooth: NDArray[np.float32] = ((1 - share) * Q + share / Q.shape[1]).astype(np.float32)
    return smooth


def _normalised(W: Mask | Floats) -> NDArray[np.float32]:
    total = W.sum(axis=1)
    if (empty := np.flatnonzero(total == 0)).size:
        raise EmptyCandidateSetError(int(empty[0]), int(empty.size))
    rows: NDArray[np.float32] = (W / total[:, None]).astype(np.float32)
    return rows
