"""Training targets for a student that learns from candidate label sets.

n texts, k labels. S is the candidate mask, (n, k) bool; R the rank table, (n, k), 0 for the teacher's first label;
W what the candidates weigh before the student is heard, (n, k), zero outside S; P what the student believes,
(n, k), rows sum to one; Q what it is trained towards, (n, k). Every method stands behind `refine`.
Invariant: a row of Q sums to one if its text has a target and is zero throughout if not; mass lies inside S,
save in rescued rows, which are one-hot on the label the student is sure of.

The distribution refinery (dr) follows CanDist with two changes. A cap on the share of each class that may be
dropped: without it, a refinery that starts before the student fits 77 classes lost whole classes for good (0.65
against 0.84 test accuracy on synthetic truth). And the teacher's order counts: the paper takes sets as unordered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from candist_core.config import Method, StudentConfig
from candist_core.errors import EmptyCandidateSetError

NEXT_PLACE = 1 / 3
"""How probable the teacher's next label is beside the one before it. Gold gave its first of two labels 0.76 to
0.81 on TREC, Banking77 and the sample corpus."""

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the student is to learn in one epoch.

    `Q` is (n, k) float32, `kept` (n,) bool the texts with a target, `reliable` (n,) bool those sharpened.
    """

    Q: NDArray[np.float32]
    kept: Mask
    reliable: Mask


def refine(
    P: Floats | None, S: Mask, settings: StudentConfig, epoch: int, ranks: NDArray[np.integer] | None = None
) -> Targets:
    """Targets for one epoch by the method that `settings` name.

    uniform gives every candidate the same mass throughout. proden and dr start from W and then weigh it with the
    student's belief; once `warmup_epochs` have passed, dr also drops, sharpens and rescues.

    Args:
        P: (n, k), the student's belief after the epoch before; None before the first.
        S: (n, k), at least one True in each row.
        settings: method, warmup_epochs, and gamma, delta, tau, zeta of dr.
        epoch: the epoch that will be trained towards these targets, from 1.
        ranks: R, (n, k), -1 outside the set; None gives all candidates the same weight, as in the papers.

    Raises:
        EmptyCandidateSetError: a row of S has no True.

    Example:
        >>> S = np.array([[True, True, False]])
        >>> refine(None, S, StudentConfig(), epoch=1).Q.tolist()
        [[0.5, 0.5, 0.0]]
    """
    W = uniform_targets(S) if ranks is None else rank_weights(ranks)
    return _METHODS[settings.method](P if epoch > 1 else None, S, W, settings, epoch > settings.warmup_epochs)


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


def outside_set(P: Floats, S: Mask) -> Mask:
    """Rows, (n,) bool, whose most probable label is no candidate (CanDist, equation 2).

    Example:
        >>> outside_set(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[False, True], [False, True]])).tolist()
        [True, False]
    """
    outside: Mask = ~S[np.arange(len(S)), P.argmax(axis=1)]
    return outside


def dropped_rows(P: Floats, S: Mask, max_dropped: float) -> Mask:
    """Rows outside their set, (n,) bool, less those that the class-wise cap takes back.

    A row's class is its best candidate. Of each class at most the share `max_dropped` is dropped; the rows
    whose candidates hold the most mass come back first.

    Example:
        >>> P = np.array([[0.9, 0.1], [0.8, 0.2]])
        >>> S = np.array([[False, True], [False, True]])
        >>> dropped_rows(P, S, max_dropped=0.5).tolist()
        [True, False]
    """
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

    The loss is H(Q, P) with Q = `refine_targets(P, W)` (CanDist, equation 3): uncertainty within the set plus
    mass outside it. Without W all candidates weigh the same.

    Example:
        >>> P = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> reliable_rows(P, np.array([[True, False], [True, False]]), share=0.5).tolist()
        [True, False]
    """
    inside = ~outside_set(P, S)
    # float32 rounds beliefs to zero; the floor keeps 0·log 0 at zero.
    logs = np.log(np.maximum(P, np.finfo(np.float32).tiny))
    losses = -(refine_targets(P, S if W is None else W) * logs).sum(axis=1)
    predicted = P.argmax(axis=1)
    allowed = _share_of_each(np.bincount(predicted[inside], minlength=S.shape[1]), share)
    reliable = inside.copy()
    reliable[inside] = _place_in_group(predicted[inside], losses[inside]) < allowed[predicted[inside]]
    return reliable


def dr_targets(P: Floats, S: Mask, settings: StudentConfig, W: Floats | None = None) -> Targets:
    """Targets of the distribution refinery, past its warm-up.

    Rows inside their set keep the refined target, the reliable ones sharpened (gamma, delta). Rows outside are
    dropped up to the cap (zeta); one of them returns one-hot where the student is surer than tau.

    Source:
        Xia et al., CanDist, ACL 2025, equations 1 to 5; cap and weights are ours.

    Example:
        >>> P = np.array([[0.02, 0.98], [0.3, 0.7], [0.8, 0.2]])
        >>> S = np.array([[True, False], [True, False], [True, False]])
        >>> dr_targets(P, S, StudentConfig(max_dropped=1.0)).Q.tolist()
        [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    """
    dropped = dropped_rows(P, S, settings.max_dropped)
    rescued = dropped & (P.max(axis=1) > settings.rescue_above)
    reliable = reliable_rows(P, S, settings.reliable_share, W)
    targets = refine_targets(P, S if W is None else W)
    targets[reliable] = sharpen_targets(targets[reliable], settings.sharpen)
    targets[dropped] = 0.0
    targets[rescued, P[rescued].argmax(axis=1)] = 1.0
    return Targets(targets, kept=~dropped | rescued, reliable=reliable)


def _uniform(P: Floats | None, S: Mask, W: Floats, settings: StudentConfig, is_warm: bool) -> Targets:
    return _all_kept(uniform_targets(S))


def _proden(P: Floats | None, S: Mask, W: Floats, settings: StudentConfig, is_warm: bool) -> Targets:
    return _all_kept(_normalised(W) if P is None else refine_targets(P, W))


def _dr(P: Floats | None, S: Mask, W: Floats, settings: StudentConfig, is_warm: bool) -> Targets:
    if P is None or not is_warm:
        return _proden(P, S, W, settings, is_warm)
    return dr_targets(P, S, settings, W)


_METHODS: Mapping[Method, Callable[[Floats | None, Mask, Floats, StudentConfig, bool], Targets]] = {
    Method.UNIFORM: _uniform,
    Method.PRODEN: _proden,
    Method.DR: _dr,
}


def _normalised(W: Mask | Floats) -> NDArray[np.float32]:
    total = W.sum(axis=1)
    if (empty := np.flatnonzero(total == 0)).size:
        raise EmptyCandidateSetError(int(empty[0]), int(empty.size))
    rows: NDArray[np.float32] = (W / total[:, None]).astype(np.float32)
    return rows


def _all_kept(Q: NDArray[np.float32]) -> Targets:
    return Targets(Q, kept=np.ones(len(Q), dtype=np.bool_), reliable=np.zeros(len(Q), dtype=np.bool_))


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
