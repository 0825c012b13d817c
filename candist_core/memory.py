"""What is kept of the epochs behind: beliefs, how well they agree with the answers, what rules learn from them.

n texts, k labels; P (n, k) the student's belief after an epoch. Nothing here is gold: where training stands is read
from agreement with the teacher's answers on held-out texts, or on the trained ones where none are held out.
Invariant: `observe` changes nothing in place, so a memory may be kept and compared.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from candist_core.answers import Answers
from candist_core.places import flat_places, learn_places, prior_places
from candist_core.recipe import Recipe, Rule, Table
from candist_core.reliability import agreement, outside_set
from candist_core.targets import refine_targets, uniform_targets

Floats = NDArray[np.floating]

STILL = 0.01
"""Agreement that rose by less than this over two epochs stands still."""
LATEST_WARMUP = 0.4
"""Share of all epochs after which the warm-up ends in any case."""
FALL = 0.03
"""Agreement that lies by more than this below its best has fallen."""

_FIRST_EM_EPOCH = 3
_ALIM_KEEP = (0.95, 0.8)
"""Share of the stored weights that an epoch keeps, at the start and at the end of training (ALIM, public code)."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The past of one training run.

    Attributes:
        n_same: (n,), epochs running in which a text's most probable label has been the same one.
        n_outside: (n,), epochs running in which it has been no candidate.
        stored: (n, k), weights that move a little each epoch (alim).
        places: the place table (ml).
        P: (n, k), the latest belief; None before the first epoch.
        P_view: (n, k), the same on a perturbed view, where the recipe asks for it.
        accuracies: approximated accuracy after each epoch, of held-out texts if there are any.
        in_set_rates: share of the trained texts whose most probable label is a candidate, after each epoch.
        warm_epoch: the epoch that ended the warm-up; None while it lasts.
        noise_rate: share of the trained texts outside their set; fixed when the warm-up ends.
    """

    n_same: NDArray[np.int64]
    n_outside: NDArray[np.int64]
    stored: Floats
    places: Floats
    P: Floats | None = None
    P_view: Floats | None = None
    accuracies: tuple[float, ...] = ()
    in_set_rates: tuple[float, ...] = ()
    warm_epoch: int | None = None
    noise_rate: float = 0.0

    @property
    def epoch(self) -> int:
        """Epochs behind."""
        return len(self.accuracies)

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up lies behind."""
        return self.warm_epoch is not None


def begin(answers: Answers, recipe: Recipe) -> Memory:
    """The memory before the first epoch."""
    counts = np.zeros(len(answers.S), dtype=np.int64)
    return Memory(
        n_same=counts,
        n_outside=counts,
        stored=uniform_targets(answers.S) if recipe.rule is Rule.ALIM else np.zeros((0, 0)),
        places=_prior(answers, recipe),
    )


def observe(memory: Memory, P: Floats, P_view: Floats | None, answers: Answers, recipe: Recipe) -> Memory:
    """Add the belief after one more epoch.

    Args:
        memory: of the epochs before.
        P: (n, k).
        P_view: (n, k) on a perturbed view, or None.
        answers: n texts.
        recipe: what is to be learned from it.

    Example:
        >>> from candist_core.answers import read_answers
        >>> from candist_core.recipe import find_recipe
        >>> recipe = find_recipe("ca_dr", warmup_epochs=1)
        >>> answers = read_answers(np.array([[True, False]]), None, recipe, seed=0)
        >>> observe(begin(answers, recipe), np.array([[0.2, 0.8]]), None, answers, recipe).noise_rate
        1.0
    """
    closed, judged = answers.is_closed, answers.is_held_out if answers.is_held_out.any() else answers.is_closed
    in_set_rate, _ = agreement(P[closed], answers.S[closed])
    _, accuracy = agreement(P[judged], answers.S[judged])
    is_same = np.array(False) if memory.P is None else memory.P.argmax(axis=1) == P.argmax(axis=1)
    seen = replace(
        memory,
        n_same=np.where(is_same, memory.n_same, 0) + 1,
        n_outside=np.where(outside_set(P, answers.S), memory.n_outside + 1, 0),
        P=P,
        P_view=P_view,
        accuracies=(*memory.accuracies, accuracy),
        in_set_rates=(*memory.in_set_rates, in_set_rate),
        noise_rate=memory.noise_rate if memory.is_warm else 1.0 - in_set_rate,
    )
    if not seen.is_warm and _ends_warmup(seen.accuracies, recipe):
        seen = replace(seen, warm_epoch=seen.epoch)
    if recipe.rule is Rule.ALIM:
        return replace(seen, stored=_stored(seen, P, answers, recipe))
    # Beliefs about trained texts become an echo of these very answers, and would find the teacher always right: on
    # Banking77 the first of two labels in 0.83 after three epochs, in 0.90 after twenty; gold says 0.76.
    is_honest = answers.is_held_out.any() or not memory.is_warm
    if recipe.rule is Rule.ML and recipe.table is Table.EM and is_honest and seen.epoch + 1 >= _FIRST_EM_EPOCH:
        places = learn_places(answers.R[judged], P[judged], _prior(answers, recipe))
        return replace(seen, places=places if answers.is_ordered else flat_places(places))
    return seen


def epoch_to_restore(accuracies: tuple[float, ...], in_set_rates: tuple[float, ...]) -> int | None:
    """The epoch, from 1, to go back to if training went wrong after it; None where the last one is good.

    Wrong is: the mean agreement of three epochs lies by more than 0.03 below its best, and fewer of the trained
    texts are inside their sets than then.

    Example:
        >>> epoch_to_restore((0.5, 0.8, 0.8, 0.8, 0.6, 0.6), (0.5, 0.9, 0.9, 0.9, 0.8, 0.7))
        4
    """
    if len(accuracies) < 3:
        return None
    means = np.convolve(accuracies, np.ones(3) / 3, mode="valid")
    best = int(means.argmax())
    has_fallen = means[-1] < means[best] - FALL and in_set_rates[-1] < in_set_rates[best + 2]
    return best + 3 if has_fallen else None


def _ends_warmup(accuracies: tuple[float, ...], recipe: Recipe) -> bool:
    epoch = len(accuracies)
    if recipe.warmup_epochs is not None:
        return epoch >= recipe.warmup_epochs
    stands_still = epoch >= 3 and accuracies[-1] - accuracies[-3] < STILL
    return stands_still or epoch >= max(1, int(LATEST_WARMUP * recipe.epochs))


def _stored(memory: Memory, P: Floats, answers: Answers, recipe: Recipe) -> Floats:
    """Weights moved towards the belief, where labels outside the set count by a share.

    Source:
        Xu et al., ALIM: Adjusting Label Importance Mechanism for Noisy Partial Label Learning, NeurIPS 2023.
    """
    S, closed = answers.S, answers.is_closed
    importance = 0.0
    if memory.is_warm and closed.any():
        inside, outside = np.where(S, P, 0.0)[closed].max(axis=1), np.where(S, 0.0, P)[closed].max(axis=1)
        margins = np.sort(inside / np.maximum(outside, np.finfo(np.float32).tiny))
        rate = memory.noise_rate if recipe.noise_rate is None else recipe.noise_rate
        importance = min(1.0, float(margins[min(int(rate * len(margins)), len(margins) - 1)]))
    first, last = _ALIM_KEEP
    keep = first + (last - first) * memory.epoch / recipe.epochs
    moved: Floats = keep * memory.stored + (1 - keep) * refine_targets(P, np.where(S, 1.0, importance))
    return moved


def _prior(answers: Answers, recipe: Recipe) -> Floats:
    places = prior_places(int(answers.R.max(initial=0)) + 1)
    return flat_places(places) if recipe.table is Table.FLAT or not answers.is_ordered else places
