"""Prediction on a CPU in less time: a BERT computed only as far as its label needs, and twice where that is in doubt.

n texts, b batch, t tokens, d width, k labels, P (n, k) float32. Three things make it quick:

- the last layer is computed for the first token alone, the only one that the label is read from;
- each core works on batches of its own, small enough for its cache, so that none waits for another after every step;
- where the CPU multiplies bfloat16 all texts are read in it, and those whose two best labels lie closer together than
  bfloat16 can tell apart once more in float32. How close that is, is measured on some of the same texts.

Invariant: a batch is computed by one thread, so P does not depend on how many there are.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.student.encode import Tokens, pad, threads
from candist_core.student.model import Classifier

BATCH_TOKENS = 512
"""Tokens in one batch. From 256 to 1024 the rates differed by less than 10 % (AMD EPYC, 1 MiB of L2 a core)."""

MIN_TEXTS = 64
"""Fewer texts are all read in float32: measuring and reading twice would take as long."""

SAMPLE_SHARE, MAX_SAMPLE = 1 / 50, 512
"""Texts on which bfloat16 is measured: as a share, at least 32, and at most so many."""

MARGIN_FACTOR = 4.0
"""Texts are in doubt up to so many times the error of the sample (root mean square): a normal error is larger once in
16,000 texts."""

_log = logging.getLogger(__name__)

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class QuickBert:
    """The layers of a BERT in one type, and the head it shares with the network it was made of."""

    bert: Any
    head: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def of(cls, network: Any, dtype: torch.dtype) -> "QuickBert":
        """Take over a network's weights; in float32 they are shared, else copied. The head stays float32."""
        bert = network.bert if dtype is torch.float32 else copy.deepcopy(network.bert).to(dtype)
        return cls(bert, lambda states: network.classifier(network.bert.pooler(states.float())))

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(b, k) float32, of ids and mask, (b, t) int64."""
        keys = None if bool(mask.all()) else mask[:, None, None, :].bool()  # (b, heads, queries, t)
        states = self.bert.embeddings(input_ids=ids)
        *body, last = self.bert.encoder.layer
        for layer in body:
            states = _layer(layer, states, states, keys)
        return self.head(_layer(last, states[:, :1], states, keys))


def _layer(layer: Any, of: torch.Tensor, states: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
    """One layer, for the tokens `of`, which attend to `states`."""
    attention = layer.attention.self

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    seen = torch.nn.functional.scaled_dot_product_attention(
        heads(attention.query(of)), heads(attention.key(states)), heads(attention.value(states)), keys
    )
    mixed = layer.attention.output(seen.transpose(1, 2).flatten(2), of)
    result: torch.Tensor = layer.output(layer.intermediate(mixed), mixed)
    return result


def why_not_quick(classifier: Classifier, tokens: Tokens) -> str | None:
    """Why the model cannot be computed this way, None if it can: its own answers on two texts are compared."""
    if classifier.device.name != "cpu":
        return f"computes on {classifier.device.name}"
    network = classifier.network
    if type(network).__name__ != "BertForSequenceClassification":
        return f"{type(network).__name__} is no BERT with a head"
    by_length = sorted(tokens, key=len)
    batch = pad([by_length[0], by_length[-1]], np.arange(2), classifier.tokenizer.pad_token_id, classifier.device)
    with torch.inference_mode():
        own = network(input_ids=batch.ids, attention_mask=batch.mask).logits
        ours = QuickBert.of(network, torch.float32)(batch.ids, batch.mask)
    if not torch.allclose(own, ours, rtol=1e-3, atol=1e-3):
        return "its own answers differ"
    return None


def quick_probs(classifier: Classifier, tokens: Tokens, on_batch: Callable[[int], None]) -> NDArray[np.float32]:
    """P, (n, k) float32, in the order of the texts, without dropout; the network is left in evaluation mode.

    Args:
        classifier: one of which `why_not_quick` says nothing.
        tokens: from `tokenise`.
        on_batch: called after each batch with the number of texts done; texts in doubt count once.

    Source:
        The early answer of a cheap model, kept where it is sure: Viola & Jones, Rapid Object Detection using a
        Boosted Cascade of Simple Features, CVPR 2001.
    """
    lengths = np.array([len(text) for text in tokens], dtype=np.int64)
    exact = QuickBert.of(classifier.network, torch.float32)
    everything = np.arange(len(tokens))
    if classifier.device.dtype is torch.float32 or len(tokens) < MIN_TEXTS:
        return _softmax(_compute(exact, classifier, tokens, lengths, everything, on_batch))
    logits = _compute(
        QuickBert.of(classifier.network, classifier.device.dtype), classifier, tokens, lengths, everything, on_batch
    )
    n_sample = min(MAX_SAMPLE, max(32, round(len(tokens) * SAMPLE_SHARE)))
    sample = np.unique(np.linspace(0, len(tokens) - 1, n_sample).astype(np.int64))
    right = _compute(exact, classifier, tokens, lengths, sample)
    margin = MARGIN_FACTOR * _lead_error(logits[sample], right)
    logits[sample] = right
    doubtful = np.setdiff1d(np.flatnonzero(_lead(logits) < margin), sample)
    logits[doubtful] = _compute(exact, classifier, tokens, lengths, doubtful)
    _log.info("read %d texts in bfloat16, %d of them again in float32", len(tokens), len(sample) + len(doubtful))
    return _softmax(logits)


def token_batches(
    lengths: NDArray[np.int64], rows: NDArray[np.int64], batch_tokens: int = BATCH_TOKENS
) -> list[NDArray[np.int64]]:
    """Cut some rows into batches of at most so many tokens, padding included, or of one text; longest first.

    Example:
        >>> [rows.tolist() for rows in token_batches(np.array([3, 9, 4, 2]), np.arange(4), batch_tokens=8)]
        [[1], [2, 0], [3]]
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        n_rows = max(1, batch_tokens // int(lengths[order[start]]))
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches


def _compute(
    network: QuickBert,
    classifier: Classifier,
    tokens: Tokens,
    lengths: NDArray[np.int64],
    rows: NDArray[np.int64],
    on_batch: Callable[[int], None] = lambda done: None,
) -> Logits:
    """Logits of some rows, in their order."""
    logits: Logits = np.zeros((len(tokens), len(classifier.labels)), dtype=np.float32)
    pad_id, done = classifier.tokenizer.pad_token_id, 0

    def compute(batch_rows: NDArray[np.int64]) -> Logits:
        # The mode belongs to a thread.
        with torch.inference_mode():
            batch = pad(tokens, batch_rows, pad_id, classifier.device)
            found: Logits = network(batch.ids, batch.mask).numpy()
        return found

    batches = token_batches(lengths, rows)
    for batch_rows, found in zip(batches, _in_parallel(compute, batches), strict=True):
        logits[batch_rows] = found
        done += len(batch_rows)
        on_batch(done)
    return logits[rows]


def _in_parallel(
    compute: Callable[[NDArray[np.int64]], Logits], batches: Sequence[NDArray[np.int64]]
) -> Iterator[Logits]:
    """Results in order, by as many threads as torch may use, each of them computing alone."""
    n_threads = torch.get_num_threads()
    with threads(1), ThreadPoolExecutor(n_threads, "candist-predict") as pool:
        yield from pool.map(compute, batches)


def _lead(logits: Logits) -> NDArray[np.float32]:
    """(n,): how far the best label is ahead of the second."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, dtype=np.float32)
    best = np.partition(logits, -2, axis=1)
    lead: NDArray[np.float32] = best[:, -1] - best[:, -2]
    return lead


def _lead_error(quick: Logits, right: Logits) -> float:
    """By how much the lead of the best label over the second is off, root mean square."""
    if quick.shape[1] < 2:
        return 0.0
    pair = np.argpartition(quick, -2, axis=1)[:, -2:]  # (n, 2)
    off = np.take_along_axis(quick - right, pair, axis=1)
    return float(np.sqrt(np.mean((off[:, 1] - off[:, 0]) ** 2)))


def _softmax(logits: Logits) -> NDArray[np.float32]:
    probs: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    return probs
