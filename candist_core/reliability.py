"""Which texts to trust: rows outside their set, rows dropped, rows taken as reliable; and how training goes.

n texts, k labels. S is the candidate mask, (n, k) bool; P what the student believes, (n, k), rows sum to one;
W what the candidates weigh, (n, k), zero outside S. Invariant: none of these reads gold, and of no class is more
dropped than the cap allows.
"""

import numpy as np
from numpy.typing import NDArray

from candist_core.losses import Loss, row_losses

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def outside_set(P: Floats, S: Mask) -> Mask:
    """Rows, (n,) bool, whose most probable label is no candidate (CanDist, equation 2).

    Example:
        >>> outside_set(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[False, True], [False, True]])).tolist()
        [True, False]
    """
    outside: Mask = ~S[np.arange(len(S)), P.argmax(axis=1)]
    return outside


def dropped_rows(P: Floats, S: Mask, max_dropped: float, outside: Mask | None = None) -> Mask:
    """Rows outside their set, (n,) bool, less those that the class-wise cap takes back.

    A row's class is its best candidate. Of each class at most the share `max_dropped` is dropped; the rows
    whose candidates hold the most mass come back first.

    Args:
        P: (n, k).
        S: (n, k).
        max_dropped: share in [0, 1]; 1 is no cap.
        outside: the rows that may be dropped, (n,) bool; None takes those outside their set.

    Example:
        >>> P = np.array([[0.9, 0.1], [0.8, 0.2]])
        >>> S = np.array([[False, True], [False, True]])
        >>> dropped_rows(P, S, max_dropped=0.5).tolist()
        [True, False]
    """
    if outside is None:
        outside = outside_set(P, S)
    inside_mass = np.where(S, P, 0.0).sum(axis=1)
    best = np.where(S, P, -1.0).argmax(axis=1)
    allowed = _share_of_each(np.bincount(best, minlength=S.shape[1]), max_dropped)
    dropped = outside.copy()
    # Least mass first: places below the allowance stay dropped.
    dropped[outside] = _place_in_group(best[outside], inside_mass[outside]) < allowed[best[outside]]
    return dropped


def reliable_rows(P: Floats, S: Mask, share: float, W: Floats | None = None) -> Mask:
    """The smallest-loss share of each predicted class, (n,) bool, among rows inside their set.

    The loss is H(Q, P) with Q ∝ P·W (CanDist, equation 3): uncertainty within the set plus mass outside it.
    Without W all candidates weigh the same.

    Example:
        >>> P = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> reliable_rows(P, np.array([[True, False], [True, False]]), share=0.5).tolist()
        [True, False]
    """
    inside = ~outside_set(P, S)
    weights = np.asarray(S if W is None else W, dtype=np.float32)
    losses = row_losses(Loss.REFINED, log_belief(P), weights, np.ones(len(P)))
    predicted = P.argmax(axis=1)
    allowed = _share_of_each(np.bincount(predicted[inside], minlength=S.shape[1]), share)
    reliable = inside.copy()
    reliable[inside] = _place_in_group(predicted[inside], losses[inside]) < allowed[predicted[inside]]
    return reliable


def small_loss_rows(P: Floats, Q: Floats, share: float) -> Mask:
    """The share of all rows, (n,) bool, whose cross-entropy against Q is smallest; ties go by row.

    Source:
        Han et al., Co-teaching, NeurIPS 2018, with one network.

    Example:
        >>> P, Q = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.0, 1.0], [0.0, 1.0]])
        >>> small_loss_rows(P, Q, share=0.5).tolist()
        [False, True]
    """
    losses = row_losses(Loss.CROSS_ENTROPY, log_belief(P), Q, np.ones(len(P)))
    everyone = np.zeros(len(P), dtype=np.int64)
    small: Mask = _place_in_group(everyone, losses) < _share_of_each(np.array([len(P)]), share)
    return small


def agreement(P: Floats, S: Mask) -> tuple[float, float]:
    """How well belief and sets agree, without gold: covering rate and approximated accuracy.

    With c the most probable label of a row, mean 1[c in S] and mean 1[c in S] · P_c / Σ_S P. Zero for no rows.

    Source:
        Wang et al., PLENCH, ICLR 2025 (CR and AA).

    Example:
        >>> P, S = np.array([[0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]), np.array([[True, False, True], [False, True, True]])
        >>> agreement(P, S)
        (0.5, 0.25)
    """
    if not len(P):
        return 0.0, 0.0
    is_inside = ~outside_set(P, S)
    inside_mass = np.where(S, P, 0.0).sum(axis=1)
    share = P.max(axis=1) / np.maximum(inside_mass, np.finfo(np.float32).tiny)
    return float(is_inside.mean()), float(np.where(is_inside, share, 0.0).mean())


def log_belief(P: Floats) -> Floats:
    """Finite log P: float32 rounds beliefs to zero, and the floor keeps 0 · log 0 at zero."""
    logs: Floats = np.log(np.maximum(P, np.finfo(np.float32).tiny))
    return logs


def _share_of_each(counts: NDArray[np.integer], share: float) -> NDArray[np.int64]:
    # 0.29 · 100 is 28.999999999999996 in binary; the margin gives it back its 29th row.
    allowed: NDArray[np.int64] = np.floor(counts * share + 1e-9).astype(np.int64)
    return allowed


def _place_in_group(groups: NDArray[np.integer], scores: Floats) -> NDArray[np.int64]:
    """Place of each row among the rows of its group, 0 for the smallest score; ties go by row."""
    order = np.lexsort((scores, groups))
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - starts
    return places
