"""What the teacher said of the training texts, as a recipe wants it shown to the student.

n texts, k labels; S (n, k) the candidates, R (n, k) the place of each in the teacher's order, -1 outside the set and
throughout for open texts. A text is open if its answer says too little to learn from; its set is then every label.
A held-out text is never trained on: its answer is compared with the student's belief to see how training goes.
Invariant: a row of S holds at least one label, and equal inputs and seed give equal answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from candist_core.errors import StudentError
from candist_core.recipe import Recipe, Rule, Sets

MIN_HELD_OUT = 20
"""Fewer held-out texts tell nothing: their agreement moves by 5 points with each of them."""

LARGE_SET = 5

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The teacher's answers. Where not `is_ordered`, R numbers the candidates of a set by their columns.

    `posterior`, (n, k), is what is known of the texts beside the answers: a label model's, where there is one.
    """

    S: Mask
    R: NDArray[np.int16]
    is_ordered: bool
    is_open: Mask
    is_held_out: Mask
    posterior: NDArray[np.float32] | None = None

    @property
    def is_closed(self) -> Mask:
        """Texts, (n,) bool, that are trained on by their sets: neither open nor held out."""
        closed: Mask = ~(self.is_open | self.is_held_out)
        return closed

    def of(self, rows: NDArray[np.integer]) -> "Answers":
        """Those of some texts."""
        posterior = None if self.posterior is None else self.posterior[rows]
        return Answers(
            self.S[rows], self.R[rows], self.is_ordered, self.is_open[rows], self.is_held_out[rows], posterior
        )


def read_answers(
    S: Mask, R: NDArray[np.integer] | None, recipe: Recipe, seed: int, posterior: NDArray[np.floating] | None = None
) -> Answers:
    """Show the teacher's answers as the recipe wants them.

    Args:
        S: (n, k) candidate mask; a row without candidates becomes open.
        R: (n, k) rank table, or None where the order says nothing.
        recipe: which labels are shown, whether large sets are open, how much is held out.
        seed: fixes the random second labels and what is held out.
        posterior: (n, k), rows sum to one, for the recipe that learns from it.

    Raises:
        StudentError: no text has candidates, or none has few enough, or first labels are asked for without an order,
            or a posterior is needed and none is given.

    Example:
        >>> from candist_core.recipe import find_recipe
        >>> S, R = np.array([[True, True, False]]), np.array([[1, 0, -1]])
        >>> read_answers(S, R, find_recipe("sa_ce"), seed=0).S.tolist()
        [[False, True, False]]
    """
    has_answer: Mask = np.asarray(S.any(axis=1))
    if not has_answer.any():
        raise StudentError(
            "training texts", f"0 of {len(S)} with candidates", "at least one", "check the teacher's replies"
        )
    if recipe.rule is Rule.POSTERIOR and posterior is None:
        raise StudentError("student targets", "no posterior", "one for each text", "fit a label model first")
    rng = np.random.default_rng((seed, len(S)))
    ranks = _dense(S, R)
    if recipe.sets is not Sets.TEACHER:
        if R is None and (S.sum(axis=1) > 1).any():
            raise StudentError("candidate sets", "no order", "a first label for each text", "give the teacher's ranks")
        ranks = _with_first(ranks, rng, has_second=recipe.sets is Sets.FIRST_AND_RANDOM)
        S = ranks >= 0
    is_open: Mask = ~has_answer | _is_large(S) if recipe.opens_large else ~has_answer
    if is_open.all():
        raise StudentError(
            "candidate sets",
            "none small enough to learn from",
            "some that rule labels out",
            "ask for fewer labels a text",
        )
    is_held_out = _held_out((ranks == 0).argmax(axis=1), ~is_open, recipe.held_out_share, rng)
    ranks[is_open] = -1
    targets = None if posterior is None else np.asarray(posterior, dtype=np.float32)
    return Answers(S | is_open[:, None], ranks, R is not None, is_open, is_held_out, targets)


def _dense(S: Mask, R: NDArray[np.integer] | None) -> NDArray[np.int16]:
    """Ranks without gaps: a label named twice, or one that is not known, leaves its place empty."""
    if R is None:
        return np.where(S, S.cumsum(axis=1) - 1, -1).astype(np.int16)
    ranks = np.where(S, R, -1).astype(np.int16)
    rows = np.flatnonzero(ranks.max(axis=1, initial=-1) != S.sum(axis=1) - 1)
    order = np.where(S[rows], ranks[rows], np.iinfo(np.int16).max).argsort(axis=1, kind="stable")
    ranks[rows] = np.where(S[rows], order.argsort(axis=1), -1)
    return ranks


def _with_first(ranks: NDArray[np.int16], rng: np.random.Generator, has_second: bool) -> NDArray[np.int16]:
    """Ranks of the teacher's first label alone, or of another one by chance beside it."""
    n, k = ranks.shape
    others = np.full((n, k), -1, dtype=np.int16)
    rows, first = np.nonzero(ranks == 0)
    if has_second and k > 1:
        others[rows, (first + rng.integers(1, k, size=len(rows))) % k] = 1
    others[rows, first] = 0
    return others


def _is_large(S: Mask) -> Mask:
    """Sets of every label, or of more than five or half of all; two labels of three still rule one out."""
    sizes, k = S.sum(axis=1), S.shape[1]
    large: Mask = (sizes > max(2, min(LARGE_SET, k // 2))) | (sizes == k)
    return large


def _held_out(first: NDArray[np.int64], usable: Mask, share: float, rng: np.random.Generator) -> Mask:
    """Every so manieth text in the order of first labels; the first text of each label stays in training."""
    held_out = np.zeros(len(first), dtype=np.bool_)
    rows = rng.permutation(np.flatnonzero(usable))
    rows = rows[np.argsort(first[rows], kind="stable")]
    is_later = np.concatenate([[False], first[rows][1:] == first[rows][:-1]])
    rows = rows[is_later]
    steps = np.floor(np.arange(len(rows) + 1) * share)
    chosen = rows[np.diff(steps) > 0]
    if len(chosen) >= MIN_HELD_OUT:
        held_out[chosen] = True
    return held_out
