"""The student itself: a pretrained encoder with a classification head, on its device.

n texts, b batch, k labels, P (n, k) softmax of the logits. Invariant: the saved folder holds everything that
prediction needs (labels in column order, the length texts are cut at) and loads with `transformers`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from candist_core.student.device import Device
from candist_core.student.encode import (
    EMBED_ROWS,
    Batch,
    Tokens,
    Weights,
    load_pretrained,
    load_tokenizer,
    pad,
    quiet_transformers,
    sorted_batches,
)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Network, tokenizer and device that belong together."""

    network: Any
    tokenizer: Any
    device: Device

    @property
    def labels(self) -> tuple[str, ...]:
        """Names in column order, k of them."""
        names: dict[int, str] = self.network.config.id2label
        return tuple(names[j] for j in range(len(names)))

    def pad(self, tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
        """Some of the texts as one batch on the device."""
        return pad(tokens, rows, self.tokenizer.pad_token_id, self.device)

    def logits(self, batch: Batch) -> torch.Tensor:
        """(b, k) float32; matrix products in the device's type."""
        with self.device.autocast():
            logits: torch.Tensor = self.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        return logits.float()


def load_classifier(
    weights: Weights, device: Device, labels: Sequence[str] | None = None, max_tokens: int | None = None
) -> Classifier:
    """Read a model; with `labels` it gets a head for them unless it has one of that size.

    Args:
        weights: from `find_weights`.
        device: from `choose_device`.
        labels: k names in column order; None keeps those of a trained student.
        max_tokens: longer texts are cut; None keeps the student's own length.

    Raises:
        StudentError: there are no usable weights.
    """
    tokenizer = load_tokenizer(weights, max_tokens)
    head: dict[str, Any] = {}
    if labels is not None:
        names = dict(enumerate(labels))
        head = {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: j for j, name in names.items()},
            "ignore_mismatched_sizes": True,
        }
    # float32 whatever the folder holds: AdamW on bfloat16 weights loses its small steps.
    network = load_pretrained(
        transformers.AutoModelForSequenceClassification,
        weights,
        use_safetensors=True,
        dtype=torch.float32,
        **head,
    )
    longest = getattr(network.config, "max_position_embeddings", None) or tokenizer.model_max_length
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return Classifier(network.to(device.name), tokenizer, device)


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write model (safetensors), configuration and tokenizer into a folder."""
    with quiet_transformers():
        classifier.network.save_pretrained(folder)
        classifier.tokenizer.save_pretrained(folder)


def predict_probs(
    classifier: Classifier, tokens: Tokens, on_batch: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """P, (n, k) float32, in the order of the texts, without dropout; the network's mode is restored.

    Args:
        classifier: the student.
        tokens: from `tokenise`.
        on_batch: called after each batch with the number of texts done.
    """
    probs: NDArray[np.float32] = np.zeros((len(tokens), len(classifier.labels)), dtype=np.float32)
    was_training, done = classifier.network.training, 0
    classifier.network.eval()
    with torch.inference_mode():
        for rows in sorted_batches([len(row) for row in tokens], EMBED_ROWS):
            logits = classifier.logits(classifier.pad(tokens, rows))
            probs[rows] = torch.softmax(logits, dim=1).cpu().numpy()
            done += len(rows)
            if on_batch is not None:
                on_batch(done)
    classifier.network.train(was_training)
    return probs
