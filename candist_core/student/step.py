"""One training step: the loss of a batch with its extras, and its gradient within the memory there is.

b texts in a batch, k labels. The loss is a sum over texts over b, so that a batch may be taken in parts:

    L = 1/b [ Σ_K loss(p) + η ( Σ_K H(q, p') + Σ_U KL(p ‖ p') + Σ_K H(mixed q, p(mixed)) ) ]

with K the texts that have a target, U the others, p' the belief on a perturbed view, η the ramp; q and the first p
of KL are held fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.errors import StudentError
from candist_core.losses import Loss
from candist_core.recipe import Recipe
from candist_core.refine import Targets
from candist_core.student.device import Device
from candist_core.student.losses import row_losses, soft_targets
from candist_core.student.views import Mix, draw_mix

Rows = NDArray[np.int64]


class Learner(Protocol):
    """A network that is trained, and the n texts that it is trained on."""

    @property
    def network(self) -> torch.nn.Module:
        """All weights that move."""

    @property
    def device(self) -> Device:
        """Where it computes."""

    def groups(self) -> list[dict[str, object]]:
        """Weights for the optimizer, each group with its `factor` on the learning rate."""

    def batches(self, rows: Rows, rng: np.random.Generator) -> Sequence[Rows]:
        """Some texts, cut into batches in random order."""

    def rows_at_once(self, rows: Rows) -> int:
        """Texts of a batch in one forward pass, at most; 1 or more."""

    def logits(self, rows: Rows, rng: np.random.Generator | None = None, mix: Mix | None = None) -> torch.Tensor:
        """(b, k) in the network's mode; of a perturbed view with `rng`, and with `mix` (2b, k), the mixed rows last."""

    def believe(self, rows: Rows, rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """P, (b, k), of some texts without dropout; of a perturbed view with `rng`."""


@dataclass(frozen=True, slots=True)
class Extras:
    """Which extras a step adds, and their weight η."""

    consistency: bool
    mixup: bool
    weight: float


def extras_of(recipe: Recipe, epoch: int) -> Extras:
    """The extras of an epoch, from 1: their weight grows in even steps."""
    weight = min(1.0, epoch / recipe.ramp_epochs) if recipe.ramp_epochs else 1.0
    return Extras(recipe.consistency, recipe.mixup, weight)


def batch_loss(
    learner: Learner, rows: Rows, targets: Targets, extras: Extras, n_batch: int, rng: np.random.Generator
) -> torch.Tensor:
    """The loss of some texts of a batch, a scalar.

    Args:
        learner: the network.
        rows: which texts, b of them or a part.
        targets: of all n texts.
        extras: what is added.
        n_batch: b.
        rng: draws perturbations and pairs.
    """
    is_kept = targets.kept[rows]
    rows, n_kept = np.concatenate([rows[is_kept], rows[~is_kept]]), int(is_kept.sum())
    mix = draw_mix(n_kept, len(rows), rng) if extras.mixup else None
    logits = learner.logits(rows, mix=mix)
    Q = torch.from_numpy(targets.Q[rows[:n_kept]]).to(logits.device)
    power = torch.from_numpy(targets.power[rows[:n_kept]]).to(logits.device)
    total = row_losses(targets.loss, logits[:n_kept], Q, power).sum()
    if mix is None and not extras.consistency:
        return total / n_batch
    # Robustness must not be lost by the back door: what is bounded stays so in the extras.
    loss = targets.loss if targets.loss is Loss.GENERALISED else Loss.CROSS_ENTROPY
    towards = soft_targets(targets.loss, logits[:n_kept], Q, power)
    added = torch.zeros((), device=logits.device)
    if mix is not None:
        mixed = Mix(mix.partners[:n_kept], mix.share).blend(towards)
        added = added + row_losses(loss, logits[len(rows) :][:n_kept], mixed, power).sum()
    if extras.consistency:
        view = learner.logits(rows, rng=rng)
        added = added + row_losses(loss, view[:n_kept], towards, power).sum()
        believed = torch.softmax(logits[n_kept : len(rows)].detach(), dim=1)
        added = added + torch.nn.functional.kl_div(torch.log_softmax(view[n_kept:], dim=1), believed, reduction="sum")
    return (total + extras.weight * added) / n_batch


def backward_in_parts(
    loss_of: Callable[[Rows], torch.Tensor], rows: Rows, part_rows: int, optimizer: torch.optim.Optimizer
) -> tuple[torch.Tensor, int]:
    """Gather the gradient of a batch, in parts that fit into memory.

    When memory runs out, the parts are halved and the batch begins anew; the gradient is that of the whole batch.

    Args:
        loss_of: the loss of some of the rows; the parts' losses add up to the batch's.
        rows: the batch, or the share of it that is taken here.
        part_rows: texts in a part, at most.
        optimizer: its gradients are cleared first.

    Returns:
        The batch's loss, and the texts in a part that fitted.

    Raises:
        StudentError: a single text does not fit.
    """
    while True:
        optimizer.zero_grad()
        try:
            return _backward(loss_of, rows, part_rows), part_rows
        except torch.OutOfMemoryError as error:
            if part_rows == 1:
                raise StudentError(
                    "student training",
                    "too little memory for one text",
                    "room for it",
                    "lower student.max_tokens, or choose a smaller student.model or another student.device",
                ) from error
        # Out here the error is gone, and with it the tensors that its traceback kept alive.
        part_rows = (min(part_rows, len(rows)) + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _backward(loss_of: Callable[[Rows], torch.Tensor], rows: Rows, part_rows: int) -> torch.Tensor:
    losses = []
    for start in range(0, len(rows), part_rows):
        loss = loss_of(rows[start : start + part_rows])
        torch.autograd.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).sum() if losses else torch.zeros(())
