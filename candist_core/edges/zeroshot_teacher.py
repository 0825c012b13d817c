"""A teacher without an LLM: labels whose description lies nearest to the text.

n texts, k labels, d width of the embedding. X (n, d) are the texts, L (k, d) the labels, both unit vectors;
P (n, k) = softmax(scale · X Lᵀ). Its sets are far poorer than an LLM's; it is there to try a corpus at no cost.
Invariant: replies are canonical JSON in the form the strategy asks for, and take the same way as any other.
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from candist_core.ports import Embedder, Quotas, Reply, Request
from candist_core.spec import LabelSpec, Strategy, TaskSpec, canonical_json

SCALE, KEEP_SHARE = 20.0, 0.3
"""Only their combination matters: a candidate lies at most ln(1 / 0.3) / 20 = 0.06 in cosine behind the first.
Measured with MiniLM and at most 5 candidates, as accuracy of the first label / coverage / set size: sample corpus
0.57 / 0.75 / 1.8, TREC by its six bare names 0.39 / 0.63 / 2.3, Banking77 by names 0.63 / 0.73 / 1.7. At 0.03 to
0.04 behind, sets are nearly all of one label; at 0.12, half of them are full."""
_MAX_BATCH = 256


class ZeroShotTeacher:
    """Answers requests by text similarity, many at a time.

    Requests that arrive while a batch is embedded wait and make up the next one; the embedding runs in a
    thread, so the event loop stays free.

    Args:
        spec: labels with their descriptions and examples, strategy, max_candidates.
        embed: texts to unit vectors.
        model: name of the encoder behind `embed`.
        scale: how much a step in cosine similarity counts.
        keep_share: a label is a candidate if its probability is at least this share of the first one's.
    """

    def __init__(
        self,
        spec: TaskSpec,
        embed: Embedder,
        model: str = "minilm",
        scale: float = SCALE,
        keep_share: float = KEEP_SHARE,
    ) -> None:
        self._spec, self._embed, self._model = spec, embed, model
        self._scale, self._keep_share = scale, keep_share
        self._label_vectors: NDArray[np.float32] | None = None
        self._waiting: list[tuple[str, asyncio.Future[str]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """`zeroshot:` and the encoder."""
        return f"zeroshot:{self._model}"

    @property
    def quotas(self) -> Quotas:
        """None: nothing is asked over a network."""
        return Quotas()

    async def ask(self, request: Request) -> Reply:
        """Rank the labels for the request's bare text; costs nothing and never abstains."""
        started = time.monotonic()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((request.text, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        text = await answer
        return Reply(request.key, request.doc_id, text, "stop", cost_usd=0.0, latency_s=time.monotonic() - started)

    async def close(self, is_kept: bool = True) -> None:
        """Wait for what is under way; whoever asked gets an answer."""
        if self._worker is not None:
            await self._worker

    async def _answer_all(self) -> None:
        # One turn of the loop, so that requests made at the same time share the first batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            try:
                replies = await asyncio.to_thread(self._reply_to, [text for text, _ in batch])
            except Exception as error:
                # Raised again in every call that waits for this batch; the next batch has its own chance.
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), reply in zip(batch, replies, strict=True):
                if not answer.done():
                    answer.set_result(reply)

    def _reply_to(self, texts: Sequence[str]) -> list[str]:
        if self._label_vectors is None:
            self._label_vectors = np.stack([self._embed_label(label) for label in self._spec.labels])
        similarities = self._embed(texts) @ self._label_vectors.T
        return [self._write(row) for row in label_probs(similarities, self._scale)]

    def _embed_label(self, label: LabelSpec) -> NDArray[np.float32]:
        mean = self._embed([describe_label(label), *label.examples]).mean(axis=0)
        unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return unit

    def _write(self, probs: NDArray[np.floating]) -> str:
        names = self._spec.label_names
        if self._spec.strategy is Strategy.SA:
            return canonical_json({"label": names[int(probs.argmax())]})
        ranked = rank_candidates(probs, self._keep_share, self._spec.max_candidates)
        return canonical_json({"candidates": [names[j] for j in ranked]})


def describe_label(label: LabelSpec) -> str:
    """The words that stand for a label: its name as people write it, and its description.

    Example:
        >>> describe_label(LabelSpec(name="card_lost", description="A card is gone."))
        'card lost: A card is gone.'
    """
    words = " ".join(label.name.replace("_", " ").replace("-", " ").split()) or label.name
    return f"{words}: {label.description}" if label.description else words


def label_probs(similarities: NDArray[np.floating], scale: float) -> NDArray[np.float64]:
    """P, (n, k): softmax of scaled cosine similarities, row by row.

    Example:
        >>> label_probs(np.array([[0.5, 0.5]]), scale=20.0).tolist()
        [[0.5, 0.5]]
    """
    scaled = scale * np.asarray(similarities, dtype=np.float64)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


def rank_candidates(probs: NDArray[np.floating], keep_share: float, max_candidates: int) -> list[int]:
    """Columns of the candidates, the most probable first: at least one, at most k - 1.

    A label stays if its probability is at least `keep_share` of the first one's. A set of all k labels would
    say nothing.

    Example:
        >>> rank_candidates(np.array([0.1, 0.5, 0.4]), keep_share=0.5, max_candidates=5)
        [1, 2]
    """
    order = np.argsort(-probs, kind="stable")
    near = probs[order] >= keep_share * probs[order[0]]
    return [int(j) for j in order[near][: max(1, min(max_candidates, len(probs) - 1))]]
