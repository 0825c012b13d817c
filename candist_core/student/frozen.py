"""The frozen student: an encoder that is left as it is, and a small head that learns from its embeddings.

n texts, k labels; P (n, k) float32, rows sum to one, columns in the order of `labels`. The folder holds the head and
the name of the encoder, whose weights are not copied. Invariant: rows of P stand in the order of the texts, and equal
texts have equal rows.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from candist_core.candidates import has_candidates
from candist_core.config import FROZEN_PASSES, StudentConfig
from candist_core.errors import StudentError
from candist_core.ports import Embedder, OnProgress, Progress, ignore_progress
from candist_core.recipe import Recipe, recipe_of
from candist_core.student.device import Device, choose_device
from candist_core.student.distill import Distilled
from candist_core.student.encode import SentenceEmbedder, distinct_texts, threads
from candist_core.student.head import Head, HeadSettings, predict_head, train_head

HEAD_WEIGHTS, HEAD_CARD = "head.safetensors", "head.json"

_PROGRESS_TEXTS = 1024


class HeadCard(BaseModel):
    """What belongs to a head beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: str = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    labels: tuple[str, ...] = Field(min_length=1)
    d: int = Field(ge=1, le=65_536)
    hidden: int = Field(ge=1, le=65_536)


class FrozenStudent:
    """A trained head on its encoder, ready to predict."""

    def __init__(self, network: Head, embed: Embedder, labels: Sequence[str], device: Device) -> None:
        self.network, self.embed, self.device = network, embed, device
        self.labels = tuple(labels)

    @classmethod
    def load(cls, folder: Path, device: str = "auto", embed: Embedder | None = None) -> "FrozenStudent":
        """Read a student that `distill_frozen` saved.

        Args:
            folder: holds the head and its card.
            device: where head and encoder compute.
            embed: the encoder; None loads the one that the card names.

        Raises:
            StudentError: the folder holds no head, the encoder is not at hand, or there is no such device.
        """
        chosen = choose_device(device)
        try:
            card = HeadCard.model_validate_json((folder / HEAD_CARD).read_bytes())
            network = Head(card.d, len(card.labels), HeadSettings(hidden=card.hidden))
            network.load_state_dict(load_file(folder / HEAD_WEIGHTS))
        except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
            # The libraries' own messages run over many lines and hold paths; they stay as the cause.
            found = f"nothing that loads ({type(error).__name__})"
            raise StudentError("student", found, "a trained head", "run distill first") from error
        embed = embed or SentenceEmbedder(card.embedder, chosen, card.max_tokens)
        return cls(network.to(chosen.name).eval(), embed, card.labels, chosen)

    def predict(
        self, texts: Sequence[str], on_progress: OnProgress = ignore_progress, part: str = ""
    ) -> NDArray[np.float32]:
        """P, (n, k): the student's belief about each text. Equal texts are computed once.

        Args:
            texts: n texts, none of them changed.
            on_progress: told every thousand texts how many distinct ones are done.
            part: which shard, for `on_progress`.
        """
        distinct, places = distinct_texts(texts)
        probs: NDArray[np.float32] = np.zeros((len(distinct), len(self.labels)), dtype=np.float32)
        for start in range(0, len(distinct), _PROGRESS_TEXTS):
            chunk = distinct[start : start + _PROGRESS_TEXTS]
            probs[start : start + len(chunk)] = predict_head(self.network, self.embed(chunk), self.device)
            on_progress(Progress("predict", part, start + len(chunk), len(distinct)))
        return probs[places]


def distill_frozen(
    texts: Sequence[str],
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer] | None,
    labels: Sequence[str],
    config: StudentConfig,
    seed: int,
    out_dir: Path,
    on_progress: OnProgress = ignore_progress,
    n_threads: int | None = None,
    recipe: Recipe | None = None,
    posterior: NDArray[np.floating] | None = None,
    embed: Embedder | None = None,
) -> Distilled:
    """Train a head on candidate sets and save it; called like `candist_core.student.distill.distill`.

    Args:
        texts: n texts.
        S: (n, k) candidate mask.
        ranks: R, (n, k), the teacher's order; None where it says nothing.
        labels: k names in column order.
        config: encoder, method, device and length of texts; rates and batches are the head's own.
        seed: fixes weights, dropout, the order of rows, what is held out.
        out_dir: where head and card are written; made if missing.
        on_progress: told about every 20 steps.
        n_threads: threads torch may use for the embeddings; None leaves that as it is.
        recipe: targets, losses, extras, epochs; None takes those of the settings, and 20 epochs.
        posterior: (n, k), what a label model makes of each text, for the recipe that learns from it.
        embed: the encoder; None loads the one that `config.model` names.

    Raises:
        StudentError: no text has candidates, no usable weights, no such device, or training diverged.
    """
    started = time.monotonic()
    recipe = recipe or replace(recipe_of(config), epochs=FROZEN_PASSES)
    device = choose_device(config.device)
    with threads(n_threads):
        X = (embed or SentenceEmbedder(config.model, device, config.max_tokens))(texts)
    settings = HeadSettings(device=config.device)
    head = train_head(X, S, ranks, recipe, seed, settings, on_progress, posterior=posterior)
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = {name: value.cpu().contiguous() for name, value in head.network.state_dict().items()}
    save_file(weights, out_dir / HEAD_WEIGHTS)
    card = HeadCard(
        embedder=config.model,
        max_tokens=config.max_tokens,
        labels=tuple(labels),
        d=X.shape[1],
        hidden=settings.hidden,
    )
    (out_dir / HEAD_CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")
    n_train, seconds = int(has_candidates(S).sum()), time.monotonic() - started
    return Distilled(out_dir, config.model, device.name, device.why, n_train, head.trained, seconds)
