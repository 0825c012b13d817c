"""Train any student towards targets that are refined after every epoch, within a fixed number of epochs.

n texts, k labels; P (n, k) the student's belief, Q (n, k) targets. Gold has no way in. After each epoch one pass
without dropout gives P; the next targets and the label-free signals come from it. Over all texts it takes a fifth of
the epoch's time, but beliefs gathered while training are stale: with them dr dropped 20 % of an almost clean corpus,
with the pass 3 to 4 %. Where targets do not hang on P, a sample of the texts is enough for the signals. Rows without a
target are not even run forward, unless consistency wants them.
Invariants: held-out texts are never trained on; on a CPU, equal inputs, seed and thread count give equal weights, also
when training goes on from a checkpoint.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.answers import Answers
from candist_core.errors import StudentError
from candist_core.memory import begin, epoch_to_restore, observe
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.recipe import Recipe
from candist_core.refine import Targets, refine
from candist_core.reliability import agreement
from candist_core.reports import EpochReport
from candist_core.student.checkpoint import Checkpoint, Past, State
from candist_core.student.device import Device
from candist_core.student.encode import threads
from candist_core.student.group import ALONE, Group
from candist_core.student.step import Extras, Learner, backward_in_parts, batch_loss, extras_of

WARMUP_SHARE = 0.1
"""Share of all steps over which the learning rate rises; it then falls to zero (usual for encoders)."""
STEPS_A_NOTE = 20
WATCHED_TEXTS, WATCHED_SHARE, LEAST_WATCHED = 512, 0.2, 100
"""Texts that the signals of an epoch are taken from where all others are not needed: a fifth, since a pass without
gradients takes a quarter of one with them; no more than tell a share within 0.04, no fewer than within 0.1."""
WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.01, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """How training went; everything here was found without gold.

    Attributes:
        epochs: signals after each epoch, over the trained texts or a sample of them.
        n_held_out: texts never trained on.
        held_out_accuracies: approximated accuracy of the held-out texts after each epoch; of the trained ones where
            none are held out.
        warm_epoch: the epoch that ended the warm-up, if any did.
        noise_rate: share of the trained texts whose most probable label is no candidate, at the end: an estimate of
            the share of sets that miss the truth. Too low for a teacher that is wrong in a systematic way.
        places: the place table (ml).
        restored_epoch: the epoch that the guard went back to, if it did.
    """

    epochs: tuple[EpochReport, ...]
    n_held_out: int
    held_out_accuracies: tuple[float, ...]
    warm_epoch: int | None
    noise_rate: float
    places: NDArray[np.floating]
    restored_epoch: int | None


@contextmanager
def seeded(seed: int, device: Device, n_threads: int | None = None) -> Iterator[None]:
    """Seed torch for new heads and dropout, and leave its random state and thread count as they were found."""
    cuda = [device.name] if device.name.startswith("cuda") else []
    with torch.random.fork_rng(cuda), threads(n_threads):
        torch.manual_seed(seed)
        yield


def train(
    learner: Learner,
    answers: Answers,
    recipe: Recipe,
    learning_rate: float,
    seed: int,
    on_progress: OnProgress = ignore_progress,
    checkpoint: Checkpoint | None = None,
    group: Group = ALONE,
) -> Trained:
    """Train a network in place.

    Args:
        learner: the network and its n texts.
        answers: what the teacher said of them.
        recipe: targets, losses, extras, epochs.
        learning_rate: the peak.
        seed: fixes the order of texts, dropout, perturbations and pairs; torch is left with another random state.
        on_progress: told about every 20 steps.
        checkpoint: where each epoch is kept, and training goes on from; None keeps none.
        group: this process among those that train the same network; all of them call this alike.

    Raises:
        StudentError: training diverged, or memory does not suffice for a single text.
    """
    optimizer = torch.optim.AdamW(learner.groups(), weight_decay=WEIGHT_DECAY, fused=True)
    run = _Run(learner, optimizer, recipe, learning_rate, on_progress, group)
    watched = _watched(len(answers.S), recipe, seed)
    seen = answers.of(watched)
    memory, guard, reports = begin(seen, recipe), _Guard(learner), tuple[EpochReport, ...]()
    if checkpoint and (past := checkpoint.load(learner.network, optimizer, memory)):
        memory, reports, run.part_rows = past.memory, past.reports, past.part_rows
        guard.best, guard.state = past.best, dict(past.best_state or {})
    for epoch in range(len(reports) + 1, recipe.epochs + 1):
        # Each epoch anew, so that one needs not have seen those before it.
        run.seed_dropout(seed, epoch)
        targets = refine(answers, recipe, memory)
        rows = np.flatnonzero(targets.kept | (recipe.consistency & ~answers.is_held_out))
        loss = run.epoch(epoch, rows, targets, np.random.default_rng((seed, epoch)))
        P = run.believe(watched)
        # The last step of an epoch may ruin the weights after its own loss was still a number.
        run.require_finite(epoch, float(P.sum()))
        view = run.believe(watched, np.random.default_rng((seed, epoch, 1))) if recipe.needs_view else None
        memory = observe(memory, P, view, seen, recipe)
        reports = (*reports, _report(epoch, loss, P, seen, targets))
        if recipe.guard:
            guard.watch(memory.accuracies)
        if checkpoint and group.rank == 0:
            past = Past(memory, reports, guard.best, guard.state, run.part_rows)
            checkpoint.save(learner.network, optimizer, past)
    restored = guard.restore(memory.accuracies, memory.in_set_rates) if recipe.guard else None
    return Trained(
        epochs=reports,
        n_held_out=int(answers.is_held_out.sum()),
        held_out_accuracies=memory.accuracies,
        warm_epoch=memory.warm_epoch,
        noise_rate=1.0 - memory.in_set_rates[(restored or recipe.epochs) - 1],
        places=memory.places,
        restored_epoch=restored,
    )


def _watched(n: int, recipe: Recipe, seed: int) -> NDArray[np.int64]:
    """The texts whose beliefs are asked for after each epoch, in order."""
    n_watched = min(n, max(LEAST_WATCHED, min(WATCHED_TEXTS, int(WATCHED_SHARE * n))))
    if recipe.needs_belief or n_watched == n:
        return np.arange(n)
    return np.sort(np.random.default_rng((seed, n)).choice(n, n_watched, replace=False))


class _Run:
    """What all epochs of one training share."""

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        learning_rate: float,
        on_progress: OnProgress,
        group: Group,
    ) -> None:
        self.learner, self.optimizer, self.recipe = learner, optimizer, recipe
        self.learning_rate, self.on_progress, self.group = learning_rate, on_progress, group
        self.part_rows = 2**31

    def seed_dropout(self, seed: int, epoch: int) -> None:
        """Chance of an epoch; each process drops out its own, the first one as if it were alone."""
        entropy = (seed, epoch, self.group.rank) if self.group.rank else (seed, epoch)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def believe(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """P, (b, k), of some texts, each process computing its share."""
        share = self.learner.believe(self.group.share(rows), rng)
        return self.group.gather(share, len(rows), self.learner.device.name)

    def epoch(self, epoch: int, rows: NDArray[np.int64], targets: Targets, rng: np.random.Generator) -> float:
        """One pass over some rows; returns the mean loss."""
        network = self.learner.network
        network.train()
        extras, batches = extras_of(self.recipe, epoch), self.learner.batches(rows, rng)
        # The sum stays on the device: reading every step's loss would make a GPU wait for the host.
        total, n_seen = torch.zeros((), device=self.learner.device.name), 0
        for step, batch in enumerate(batches, start=1):
            # The middle of a step: at its end the very last one, perhaps the only one, would have a rate of zero.
            self._set_learning_rate((epoch - 1 + (step - 0.5) / len(batches)) / self.recipe.epochs)
            total += self._step(batch, targets, extras, rng) * len(batch)
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            self.optimizer.step()
            n_seen += len(batch)
            if step % STEPS_A_NOTE == 0 or step == len(batches):
                self._tell(epoch, step / len(batches), len(targets.Q), total.item() / n_seen)
        return total.item() / max(n_seen, 1)

    def _step(
        self, batch: NDArray[np.int64], targets: Targets, extras: Extras, rng: np.random.Generator
    ) -> torch.Tensor:
        def loss_of(rows: NDArray[np.int64]) -> torch.Tensor:
            return batch_loss(self.learner, rows, targets, extras, len(batch), rng)

        share = self.group.share(batch)
        part_rows = min(self.part_rows, self.learner.rows_at_once(share)) if len(share) else 1
        loss, fitted = backward_in_parts(loss_of, share, part_rows, self.optimizer)
        if fitted < part_rows:
            self.part_rows = fitted
        return self.group.add_up(loss, self.learner.network)

    def require_finite(self, epoch: int, loss: float) -> None:
        """Refuse to go on from a loss or a belief that is no number."""
        if not math.isfinite(loss):
            raise StudentError(
                "student training",
                f"a loss of {loss} in epoch {epoch}",
                "a finite one",
                "lower student.learning_rate or choose another student.model",
            )

    def _tell(self, epoch: int, share: float, n: int, loss: float) -> None:
        self.require_finite(epoch, loss)
        done, epochs = round((epoch - 1 + share) * n), self.recipe.epochs
        self.on_progress(Progress("distill", "", done, epochs * n, note=f"epoch {epoch}/{epochs} loss {loss:.3f}"))

    def _set_learning_rate(self, share_done: float) -> None:
        """Linear rise to the peak, then linear fall to zero, by the share of all training that is done."""
        factor = min(share_done / WARMUP_SHARE, (1 - share_done) / (1 - WARMUP_SHARE))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor * group["factor"]


class _Guard:
    """Keeps the weights of the best epoch so far, by the mean agreement of three epochs."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.best, self.state = -1.0, State()

    def watch(self, accuracies: tuple[float, ...]) -> None:
        mean = sum(accuracies[-3:]) / 3
        if len(accuracies) >= 3 and mean > self.best:
            self.best = mean
            self.state = {name: value.cpu().clone() for name, value in self.learner.network.state_dict().items()}

    def restore(self, accuracies: tuple[float, ...], in_set_rates: tuple[float, ...]) -> int | None:
        epoch = epoch_to_restore(accuracies, in_set_rates)
        if epoch is not None:
            self.learner.network.load_state_dict(self.state)
        return epoch


def _report(epoch: int, loss: float, P: NDArray[np.float32], answers: Answers, targets: Targets) -> EpochReport:
    closed = answers.is_closed
    in_set_rate, accuracy = agreement(P[closed], answers.S[closed])
    return EpochReport(
        epoch=epoch,
        loss=loss,
        in_set_rate=in_set_rate,
        approximate_accuracy=accuracy,
        kept_rate=float(targets.kept.mean()),
        reliable_rate=float(targets.reliable.mean()),
    )
