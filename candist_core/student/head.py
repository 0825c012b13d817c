"""A small network on frozen embeddings: a student that trains in seconds on a CPU.

n texts, d numbers an embedding, k labels; X (n, d), rows of length one; P (n, k), rows sum to one. It learns by the
same targets and losses as the fine-tuned student. Invariant: equal inputs, seed and thread count give equal weights.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.answers import read_answers
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, ignore_progress
from candist_core.recipe import Recipe
from candist_core.student.device import Device, choose_device
from candist_core.student.train import Trained, seeded, train
from candist_core.student.views import WORD_DROP, Mix

Matrix = NDArray[np.float32]

_PREDICT_ROWS = 8192


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """The head and how fast it learns: numbers in its hidden layer, dropout, texts a step, peak learning rate."""

    hidden: int = 256
    dropout: float = 0.1
    batch_rows: int = 64
    learning_rate: float = 1e-3
    device: str = "auto"


class Head(torch.nn.Module):
    """d -> hidden -> k, with dropout before each layer. Takes rows of length one and scales them to unit variance."""

    def __init__(self, d: int, k: int, settings: HeadSettings) -> None:
        super().__init__()
        self.scale = sqrt(d)
        self.dropout = torch.nn.Dropout(settings.dropout)
        self.inner = torch.nn.Linear(d, settings.hidden)
        self.outer = torch.nn.Linear(settings.hidden, k)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(b, d) -> logits (b, k)."""
        hidden = torch.nn.functional.gelu(self.inner(self.dropout(X * self.scale)))
        logits: torch.Tensor = self.outer(self.dropout(hidden))
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHead:
    """A head that has learned, and how it went."""

    network: Head
    device: Device
    trained: Trained

    def predict(self, X: Matrix) -> Matrix:
        """P, (n, k) float32: the belief about each embedding, without dropout."""
        return predict_head(self.network, X, self.device)


def train_head(
    X: Matrix,
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer] | None,
    recipe: Recipe,
    seed: int,
    settings: HeadSettings | None = None,
    on_progress: OnProgress = ignore_progress,
    n_threads: int = 1,
    posterior: NDArray[np.floating] | None = None,
) -> TrainedHead:
    """Train a head on candidate sets.

    Rows without candidates are open: they have no target, but consistency and a rescue may use them.

    Args:
        X: (n, d) embeddings, rows of length one.
        S: (n, k) candidate mask.
        ranks: R, (n, k), the teacher's order; None where it says nothing.
        recipe: targets, losses, extras, epochs.
        seed: fixes weights, dropout, the order of rows, what is held out.
        settings: the head's own.
        on_progress: told about every 20 steps.
        n_threads: threads torch may use. A second one gains nothing on layers this small, and on a busy machine the
            wait for it took ten times as long.
        posterior: (n, k), what a label model makes of each text, for the recipe that learns from it.

    Raises:
        StudentError: nothing to learn from, an embedding that is no number, no such device, or training diverged.

    Example:
        >>> from candist_core.recipe import find_recipe
        >>> X = np.eye(4, dtype=np.float32)[[0, 1] * 20]
        >>> S = np.eye(2, dtype=bool)[[0, 1] * 20]
        >>> head = train_head(X, S, None, find_recipe("ca_cc"), seed=0)
        >>> head.predict(X[:2]).argmax(axis=1).tolist()
        [0, 1]
    """
    settings = settings or HeadSettings()
    if n_wrong := int((~np.isfinite(X).all(axis=1)).sum()):
        raise StudentError(
            "embeddings", f"{n_wrong} of {len(X)} rows with no numbers", "finite ones", "check the embedder"
        )
    answers = read_answers(S, ranks, recipe, seed, posterior)
    device = choose_device(settings.device)
    with seeded(seed, device, n_threads):
        network = Head(X.shape[1], S.shape[1], settings).to(device.name)
        learner = HeadLearner(network, X, settings.batch_rows, device)
        trained = train(learner, answers, recipe, settings.learning_rate, seed, on_progress)
    return TrainedHead(network.eval(), device, trained)


def predict_head(network: Head, X: Matrix, device: Device) -> Matrix:
    """P, (n, k) float32, without dropout; the network's mode is restored."""
    probs: Matrix = np.zeros((len(X), network.outer.out_features), dtype=np.float32)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(X), _PREDICT_ROWS):
            rows = torch.from_numpy(X[start : start + _PREDICT_ROWS]).to(device.name)
            probs[start : start + _PREDICT_ROWS] = torch.softmax(network(rows), dim=1).cpu().numpy()
    network.train(was_training)
    return probs


class HeadLearner:
    """A head, and the embeddings of the texts that it learns from."""

    def __init__(self, network: Head, X: Matrix, batch_rows: int, device: Device) -> None:
        self.network, self.device = network, device
        self.X, self.batch_rows = np.ascontiguousarray(X, dtype=np.float32), batch_rows

    def groups(self) -> list[dict[str, object]]:
        """All weights at one rate."""
        return [{"params": list(self.network.parameters()), "factor": 1.0}]

    def batches(self, rows: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """The rows in random order, cut."""
        shuffled = rng.permutation(rows)
        return [shuffled[start : start + self.batch_rows] for start in range(0, len(shuffled), self.batch_rows)]

    def rows_at_once(self, rows: NDArray[np.int64]) -> int:
        """All of them: they are small."""
        return len(rows)

    def logits(
        self, rows: NDArray[np.int64], rng: np.random.Generator | None = None, mix: Mix | None = None
    ) -> torch.Tensor:
        """(b, k); with `rng` some numbers are left out, with `mix` (2b, k), the mixed rows last."""
        X = torch.from_numpy(self.X[rows] if rng is None else _perturbed(self.X[rows], rng)).to(self.device.name)
        logits: torch.Tensor = self.network(X if mix is None else torch.cat([X, mix.blend(X)]))
        return logits

    def believe(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> Matrix:
        """P, (b, k), of some texts without dropout; with `rng` some numbers are left out."""
        X = self.X[rows]
        return predict_head(self.network, X if rng is None else _perturbed(X, rng), self.device)


def _perturbed(X: Matrix, rng: np.random.Generator) -> Matrix:
    stays = rng.random(X.shape, dtype=np.float32) >= WORD_DROP
    return X * stays / np.float32(1 - WORD_DROP)
