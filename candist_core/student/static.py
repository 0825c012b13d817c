"""The static student: a text is the mean of its word pieces' vectors, and a small head learns from that.

n texts, d numbers a vector, v word pieces, k labels; W (v, d) float16. No encoder runs when it predicts: a text costs
its tokenisation, one sum and the head. Vectors are those that the encoder starts from. The folder holds everything, the
tokenizer too. Invariant: rows of X have length one, or zero where a text has no known piece, and equal texts have equal
rows whatever stands beside them.

Weighing pieces by how rare they are in the corpus was tried and dropped: it takes weight from the words that ask, and a
head learns by itself which pieces tell nothing (`docs/method.md`).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, ignore_progress
from candist_core.recipe import Recipe
from candist_core.student.device import choose_device
from candist_core.student.distill import Distilled
from candist_core.student.encode import (
    Tokens,
    Weights,
    find_weights,
    load_pretrained,
    load_tokenizer,
    quiet_transformers,
    threads,
    tokenise,
)
from candist_core.student.frozen import FrozenStudent, distill_frozen

TABLE = "table.safetensors"
_ROWS_AT_ONCE = 4096


class StaticEmbedder:
    """Texts to unit vectors by a table.

    Args:
        tokenizer: of the encoder that the table comes from, set to cut long texts.
        table: W, (v, d); rows of special tokens are zero.
    """

    def __init__(self, tokenizer: object, table: torch.Tensor) -> None:
        self.tokenizer, self.table = tokenizer, table.float()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """X, (n, d) float32, in the order of the texts."""
        X: NDArray[np.float32] = np.zeros((len(texts), self.table.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            rows = tokenise(self.tokenizer, texts[start : start + _ROWS_AT_ONCE])
            X[start : start + len(rows)] = self._means(rows)
        return X

    def _means(self, tokens: Tokens) -> NDArray[np.float32]:
        starts = np.cumsum([0, *(len(row) for row in tokens[:-1])])
        flat = torch.from_numpy(np.fromiter((token for row in tokens for token in row), dtype=np.int64))
        with torch.inference_mode():
            sums = torch.nn.functional.embedding_bag(flat, self.table, torch.from_numpy(starts), mode="sum")
            means: NDArray[np.float32] = torch.nn.functional.normalize(sums, dim=1).numpy()
        return means


def static_embedder(model: str, max_tokens: int) -> StaticEmbedder:
    """The table of an encoder.

    Args:
        model: the encoder, as `student.model` names it.
        max_tokens: longer texts are cut.

    Raises:
        StudentError: no usable weights.

    Source:
        Tulkens and van Dongen, Model2Vec, 2024, for students without an encoder; there of vectors that it ends with.
    """
    import transformers

    weights = find_weights(model)
    tokenizer = load_tokenizer(weights, max_tokens)
    encoder = load_pretrained(transformers.AutoModel, weights, use_safetensors=True, dtype=torch.float32)
    table = encoder.get_input_embeddings().weight.detach()
    # All pieces share a large part, which would make any two texts alike.
    table = table - table.mean(dim=0)
    table[list(tokenizer.all_special_ids)] = 0
    # As it will be read again: a student predicts the same before and after it is saved.
    return StaticEmbedder(tokenizer, table.half())


def distill_static(
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
) -> Distilled:
    """Train a head on static vectors and save both; called like `candist_core.student.distill.distill`.

    Raises:
        StudentError: no text has candidates, no usable weights, no such device, or training diverged.
    """
    started = time.monotonic()
    with threads(n_threads):
        embed = static_embedder(config.model, config.max_tokens)
    made = distill_frozen(
        texts, S, ranks, labels, config, seed, out_dir,
        on_progress=on_progress, n_threads=n_threads, recipe=recipe, posterior=posterior, embed=embed,
    )  # fmt: skip
    save_file({"table": embed.table.half().contiguous()}, out_dir / TABLE)
    with quiet_transformers():
        embed.tokenizer.save_pretrained(out_dir)  # type: ignore[attr-defined]
    return replace(made, seconds=time.monotonic() - started)


def load_static(folder: Path, device: str = "auto") -> FrozenStudent:
    """Read a student that `distill_static` saved.

    Raises:
        StudentError: the folder holds none, or there is no such device.
    """
    choose_device(device)
    tokenizer = load_tokenizer(Weights(str(folder), str(folder), is_local=True))
    try:
        table = load_file(folder / TABLE)["table"]
    except (OSError, SafetensorError, KeyError) as error:
        raise StudentError(
            "student", f"no table that loads ({type(error).__name__})", "a trained static student", "run distill first"
        ) from error
    return FrozenStudent.load(folder, device, embed=StaticEmbedder(tokenizer, table))
