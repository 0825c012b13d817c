"""What candidate sets and beliefs tell of their own quality, without gold.

n sets, k labels. Shards are counted one after another, and the report is made of the counts alone. Formulas and
sources: `docs/quality.md`. Invariant: gold has no way in; labels that a person gave for an audit do.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.beliefs import BeliefCounts
from candist_core.candidates import has_candidates, rank_table
from candist_core.label_model import MIN_AUDIT
from candist_core.metrics import wilson
from candist_core.reports import EpochReport, LabelPair, LabelQuality, QualityReport
from candist_core.sets import SetCounts, companions, set_entropy
from candist_core.spec import TaskSpec

MIN_TEXTS = 10
"""Fewer texts with a label, or with a pair of labels, say nothing about it."""

MIN_SIMILARITY = 0.5
"""Weight of the words that two descriptions share, from which on they are named as alike."""

_MAX_PAIRS = 20


class QualityCounts:
    """Shards of annotations, beliefs and final labels, added up."""

    def __init__(self, spec: TaskSpec) -> None:
        k = len(spec.labels)
        self.spec, self.sets, self.beliefs = spec, SetCounts(k), BeliefCounts(k)
        self.final = np.zeros(k, dtype=np.int64)
        self._score, self._n_scored, self._n_audited, self._n_covered = 0.0, 0, 0, 0

    def add(
        self, annotations: pl.DataFrame, beliefs: pl.DataFrame, labels: pl.DataFrame, reviewed: Mapping[str, str]
    ) -> None:
        """Count a shard.

        Args:
            annotations: annotations/1.
            beliefs: beliefs/1, for some of its texts.
            labels: labels/1.
            reviewed: labels that a person gave, by doc_id; those of other shards are passed over.
        """
        names = self.spec.label_names
        rows = annotations.select("doc_id", "candidates", "scores").join(
            beliefs, on="doc_id", how="left", maintain_order="left"
        )
        R = rank_table(rows["candidates"], names)
        has_set = has_candidates(R >= 0)
        rows, R = rows.filter(pl.Series(has_set)), R[has_set]
        self.sets.add(R)
        known = rows["belief"].is_not_null()
        if known.any():
            P = rows["belief"].drop_nulls().explode().to_numpy().reshape(-1, len(names))
            self.beliefs.add(R[known.to_numpy()], P)
        self.add_labels(labels)
        scores = rows["scores"].list.first().drop_nulls().drop_nans()
        self._score, self._n_scored = self._score + float(scores.cast(pl.Float64).sum()), self._n_scored + len(scores)
        self._audit(rows, reviewed)

    def add_labels(self, labels: pl.DataFrame) -> None:
        """Count final labels, under labels/1 or its column `label` alone."""
        counts = dict(labels["label"].value_counts().iter_rows())
        self.final += np.array([counts.get(name, 0) for name in self.spec.label_names], dtype=np.int64)

    def report(self, epochs: Sequence[EpochReport] = ()) -> QualityReport:
        """What the shards add up to, without findings.

        Args:
            epochs: of the student's training.
        """
        sets, believed = self.sets, self.beliefs
        n, names, estimated = max(sets.n, 1), self.spec.label_names, believed.coverage(sets.sizes)
        is_audited = self._n_audited >= MIN_AUDIT
        audited = wilson(self._n_covered, self._n_audited)
        return QualityReport(
            n_sets=sets.n,
            mean_set_size=sets.n_labels / n,
            set_sizes={int(size): int(sets.sizes[size]) for size in np.flatnonzero(sets.sizes) if size},
            single_share=int(sets.sizes[1]) / n,
            identical_share=max(sets.equal.values(), default=0) / n,
            entropy=set_entropy(sets),
            confusable=self._confusable(),
            similar_descriptions=self._similar(),
            vote_agreement=self._score / self._n_scored if self._n_scored else None,
            coverage=audited if is_audited else estimated or wilson(0, 0),
            is_audited=is_audited,
            in_set_entropy=believed.in_set_entropy,
            labels=tuple(self._label(j, name) for j, name in enumerate(names)),
            companions=companions(sets, MIN_TEXTS),
            lift=believed.lift,
            in_set_rate=wilson(believed.n_inside, believed.n) if believed.n else None,
            estimated_coverage=estimated,
            training_fit=epochs[-1].in_set_rate if epochs else None,
        )

    def _audit(self, rows: pl.DataFrame, reviewed: Mapping[str, str]) -> None:
        given = [reviewed.get(doc_id) for doc_id in rows["doc_id"]] if reviewed else []
        for label, names in zip(given, rows["candidates"] if given else [], strict=True):
            if label is not None:
                self._n_audited += 1
                self._n_covered += label in names

    def _label(self, j: int, name: str) -> LabelQuality:
        believed = self.beliefs
        return LabelQuality(
            name=name,
            n_first=int(self.sets.first[j]),
            n_sets=int(self.sets.holding[j]),
            n_final=int(self.final[j]),
            n_believed=int(believed.believed[j]),
            in_set_rate=int(believed.inside[j]) / int(believed.led[j]) if believed.led[j] else None,
        )

    def _confusable(self) -> tuple[LabelPair, ...]:
        """The pairs with the most sets beyond chance, n_ab - n_a · n_b / n, those that share ten sets or more."""
        sets = self.sets
        excess = sets.together - np.outer(sets.holding, sets.holding) / max(sets.n, 1)
        excess = np.where((sets.together >= MIN_TEXTS) & np.triu(np.ones_like(excess, dtype=bool)), excess, 0.0)
        order = np.argsort(-excess, axis=None, kind="stable")[:_MAX_PAIRS]
        pairs = np.unravel_index(order[excess.flat[order] > 0], excess.shape)
        return tuple(self._pair(int(i), int(j)) for i, j in zip(*pairs, strict=True))

    def _similar(self) -> tuple[LabelPair, ...]:
        alike = description_overlap([label.description or label.name for label in self.spec.labels])
        alike = np.triu(alike, 1)
        order = np.argsort(-alike, axis=None, kind="stable")[:_MAX_PAIRS]
        pairs = np.unravel_index(order[alike.flat[order] >= MIN_SIMILARITY], alike.shape)
        return tuple(self._pair(int(i), int(j), float(alike[i, j])) for i, j in zip(*pairs, strict=True))

    def _pair(self, i: int, j: int, similarity: float | None = None) -> LabelPair:
        sets, names = self.sets, self.spec.label_names
        n, n_one, n_other = int(sets.together[i, j]), int(sets.holding[i]), int(sets.holding[j])
        n_believed, bits = int(self.beliefs.pairs[i, j]), float(self.beliefs.pair_bits[i, j])
        return LabelPair(
            first=names[i],
            second=names[j],
            n=n,
            lift=n * sets.n / max(n_one * n_other, 1),
            overlap=n / max(n_one + n_other - n, 1),
            entropy=bits / n_believed if n_believed else None,
            similarity=similarity,
        )


def description_overlap(descriptions: Sequence[str]) -> NDArray[np.float64]:
    """How far each two descriptions use the same words, (k, k) in [0, 1]: weighted Jaccard, Σ shared / Σ either.

    A word weighs log((k + 1) / number of descriptions that hold it), so that words common to all count little in any
    language that parts its words.

    Source:
        Jaccard 1901 for the share; Spärck Jones, A Statistical Interpretation of Term Specificity, 1972, for weights.

    Example:
        >>> description_overlap(["a late bill", "a bill that is late", "roaming"]).round(2)[0].tolist()
        [1.0, 0.43, 0.0]
    """
    k = len(descriptions)
    words = [set(re.findall(r"\w+", text.casefold())) for text in descriptions]
    column = {word: j for j, word in enumerate(sorted(set().union(*words)))}
    holds = np.zeros((k, len(column)), dtype=np.float32)
    for i, found in enumerate(words):
        holds[i, [column[word] for word in found]] = 1.0
    weighed = holds * np.log((k + 1) / np.maximum(holds.sum(axis=0), 1.0))
    shared, total = weighed @ holds.T, weighed.sum(axis=1)
    either = total[:, None] + total[None] - shared
    overlap: NDArray[np.float64] = np.divide(
        shared, either, out=np.zeros((k, k), dtype=np.float64), where=either > 0, casting="same_kind"
    )
    return overlap
