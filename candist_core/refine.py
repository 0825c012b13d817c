"""What a student that learns from candidate label sets is to learn in one epoch, by every rule alike.

n texts, k labels. S is the candidate mask, (n, k) bool; W what the candidates weigh before the student is heard,
(n, k), zero outside S; P what the student believes, (n, k), rows sum to one; Q what its loss is taken against,
(n, k). Every rule stands behind `refine(answers, recipe, memory)`.
Invariant: a text without a target is zero throughout in Q; held-out texts have none, open ones none before they are
rescued; under cross-entropy rows of Q sum to one and lie inside S, save smoothed rows and rescued ones, which are
one-hot on the label that the student is sure of.

The distribution refinery (dr) follows CanDist with our changes, each a switch. A cap on the share of each class that
may be dropped: without it, a refinery that starts before the student fits 77 classes lost whole classes for good
(0.65 against 0.84 test accuracy on synthetic truth). A warm-up that ends by itself. And the teacher's order may
count: the paper takes sets as unordered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from candist_core.answers import Answers
from candist_core.losses import Loss
from candist_core.memory import Memory
from candist_core.places import answer_likelihood
from candist_core.recipe import Recipe, Rule
from candist_core.reliability import dropped_rows, outside_set, reliable_rows, small_loss_rows
from candist_core.targets import rank_weights, refine_targets, sharpen_targets, smooth_targets, uniform_targets

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the student is to learn in one epoch.

    `loss` says how `Q`, (n, k) float32, and `power`, (n,) float32, are read (see `candist_core.losses`). `kept`,
    (n,) bool, are the texts with a target, `reliable` those sharpened, `rescued` those given the student's label.
    """

    loss: Loss
    Q: NDArray[np.float32]
    power: NDArray[np.float32]
    kept: Mask
    reliable: Mask
    rescued: Mask


def refine(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    """Targets for the next epoch.

    Args:
        answers: n texts, from `candist_core.answers.read_answers`.
        recipe: the rule and its settings.
        memory: the epochs behind, from `candist_core.memory`.

    Example:
        >>> from candist_core.answers import read_answers
        >>> from candist_core.memory import begin
        >>> from candist_core.recipe import find_recipe
        >>> recipe = find_recipe("ca_uniform")
        >>> answers = read_answers(np.array([[True, True, False]]), None, recipe, seed=0)
        >>> refine(answers, recipe, begin(answers, recipe)).Q.tolist()
        [[0.5, 0.5, 0.0]]
    """
    targets = _RULES[recipe.rule](answers, recipe, memory)
    if recipe.smoothing and targets.loss is Loss.CROSS_ENTROPY:
        targets = replace(targets, Q=smooth_targets(targets.Q, recipe.smoothing))
    targets.Q[~targets.kept] = 0.0
    return targets


def candidate_weights(answers: Answers, recipe: Recipe) -> NDArray[np.float32]:
    """W, (n, k): what each candidate weighs before the student is heard, alike or by the teacher's order."""
    W = uniform_targets(answers.S)
    if recipe.by_order and answers.is_ordered:
        W[~answers.is_open] = rank_weights(answers.R[~answers.is_open])
    return W


def _plain(loss: Loss, Q: NDArray[np.float32], answers: Answers, power: float = 1.0) -> Targets:
    """The same loss for every text that is trained on."""
    n, nobody = len(Q), np.zeros(len(Q), dtype=np.bool_)
    return Targets(loss, Q, np.full(n, power, dtype=np.float32), answers.is_closed, nobody, nobody)


def _uniform(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    return _plain(Loss.CROSS_ENTROPY, candidate_weights(answers, recipe), answers)


def _gce(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    return _plain(Loss.GENERALISED, candidate_weights(answers, recipe), answers, recipe.gce_power)


def _cc(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    Q = candidate_weights(answers, recipe) if recipe.by_order else answers.S.astype(np.float32)
    return _plain(Loss.LIKELIHOOD, Q, answers)


def _proden(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    W = candidate_weights(answers, recipe)
    return _plain(Loss.CROSS_ENTROPY, W if memory.P is None else refine_targets(memory.P, W), answers)


def _lws(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    S, P = answers.S, memory.P
    W = candidate_weights(answers, recipe)
    # A set of every label leaves none outside; the floor keeps its row at zero.
    others = np.where(S, 0.0, 1.0 if P is None else P)
    outside = others / np.maximum(others.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    inside = W if P is None else refine_targets(P, W)
    return _plain(Loss.LEVERAGED, (inside - recipe.outside_weight * outside).astype(np.float32), answers)


def _alim(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    return _plain(Loss.CROSS_ENTROPY, memory.stored.astype(np.float32), answers)


def _ml(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    """Marginal likelihood of the teacher's whole answer: the truth may stand at any place, or outside."""
    return _plain(Loss.LIKELIHOOD, answer_likelihood(answers.R, memory.places), answers)


def _posterior(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    """What a label model makes of the teacher's answer and of students that never saw it."""
    assert answers.posterior is not None, "read_answers sees to it"
    return _plain(Loss.CROSS_ENTROPY, answers.posterior.copy(), answers)


def _small_loss(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    targets = _uniform(answers, recipe, memory)
    if memory.P is None:
        return targets
    rate = memory.noise_rate if recipe.noise_rate is None else recipe.noise_rate
    ramp = min(1.0, memory.epoch / (recipe.warmup_epochs or 1))
    closed = np.flatnonzero(answers.is_closed)
    small = small_loss_rows(memory.P[closed], targets.Q[closed], 1.0 - ramp * rate)
    kept = np.zeros(len(targets.Q), dtype=np.bool_)
    kept[closed[small]] = True
    return replace(targets, kept=kept)


def _dr(answers: Answers, recipe: Recipe, memory: Memory) -> Targets:
    """Targets of the distribution refinery.

    Rows inside their set keep the refined target, the reliable ones sharpened (gamma, delta). Rows outside are
    dropped up to the cap (zeta); one of them, or an open one, gets a one-hot target where the student is surer
    than tau.

    Source:
        Xia et al., CanDist, ACL 2025, equations 1 to 5; cap, order, open rows and the rescue's conditions are ours.
    """
    if recipe.lag or memory.P is None:
        targets = _proden(answers, recipe, memory)
    else:
        targets = _plain(Loss.REFINED, candidate_weights(answers, recipe), answers)
    if memory.P is None or not memory.is_warm:
        return targets
    dropped, reliable = _split(answers, recipe, memory, memory.P)
    rescued = (dropped | answers.is_open) & ~answers.is_held_out & _is_sure(recipe, memory, memory.P)
    if recipe.lag:
        targets.Q[reliable] = sharpen_targets(targets.Q[reliable], recipe.sharpen)
    else:
        targets.power[reliable] = 1.0 / recipe.sharpen
    targets.Q[rescued] = 0.0
    targets.Q[rescued, memory.P[rescued].argmax(axis=1)] = 1.0
    return replace(targets, kept=(targets.kept & ~dropped) | rescued, reliable=reliable, rescued=rescued)


def _split(answers: Answers, recipe: Recipe, memory: Memory, belief: Floats) -> tuple[Mask, Mask]:
    """Which of the trained texts are dropped, and which are reliable, (n,) bool each."""
    rows = np.flatnonzero(answers.is_closed)
    P, S, W = belief[rows], answers.S[rows], candidate_weights(answers, recipe)[rows]
    outside = outside_set(P, S) & (memory.n_outside[rows] >= (2 if recipe.twice_outside else 1))
    dropped, reliable = np.zeros((2, len(answers.S)), dtype=np.bool_)
    dropped[rows] = dropped_rows(P, S, recipe.max_dropped, outside)
    reliable[rows] = reliable_rows(P, S, recipe.reliable_share, W)
    return dropped, reliable


def _is_sure(recipe: Recipe, memory: Memory, P: Floats) -> Mask:
    sure: Mask = P.max(axis=1) > recipe.rescue_above
    if recipe.rescue_agreed:
        sure &= memory.n_same >= 2
        if memory.P_view is not None:
            sure &= memory.P_view.argmax(axis=1) == P.argmax(axis=1)
    return sure


_RULES: Mapping[Rule, Callable[[Answers, Recipe, Memory], Targets]] = {
    Rule.UNIFORM: _uniform,
    Rule.CC: _cc,
    Rule.PRODEN: _proden,
    Rule.LWS: _lws,
    Rule.ALIM: _alim,
    Rule.ML: _ml,
    Rule.GCE: _gce,
    Rule.SMALL_LOSS: _small_loss,
    Rule.DR: _dr,
    Rule.POSTERIOR: _posterior,
}
