"""Evaluate: what is known of the labels, with gold and without, a shard after the other. The only reader of gold."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from candist_core.config import RunConfig
from candist_core.edges.store import Store, open_store
from candist_core.evaluation import EvaluationCounts
from candist_core.labels import final_labels
from candist_core.measured_findings import find_all
from candist_core.quality import QualityCounts
from candist_core.reports import (
    AnnotateReport,
    DistillReport,
    EvaluateReport,
    GoldReport,
    IngestReport,
    PredictReport,
    QualityReport,
)
from candist_core.stages.asked import answers_about
from candist_core.tables import LABELS, TableRef, empty

_COPY = {"same_as": pl.String, "doc_id": pl.String, "gold": pl.String}


def evaluate_labels(
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    predicted: Sequence[PredictReport],
    student: DistillReport | None = None,
) -> EvaluateReport:
    """Measure the labels over all rows, a text that stands in several rows counted once for each.

    Args:
        config: the run.
        ingested: its corpus.
        annotated: by shard of texts.
        predicted: by shard of texts.
        student: for an audit, whose texts are measured by the labels that they would have without it.
    """
    store, counts = open_store(config.store), EvaluationCounts(config.task)
    rows = _Rows(store, ingested)
    for shard, answers, finals in zip(ingested.texts, annotated, predicted, strict=True):
        each = rows.of(shard)
        labels, annotations = store.read_table(finals.labels), answers_about(store, shard, answers)
        gold = each.select("doc_id", "gold").drop_nulls() if ingested.n_gold else None
        counts.add(_spread(labels, each), _spread(annotations, each), gold)
    audit = _evaluate_audit(store, config, ingested, annotated, student) if student else None
    return counts.report().model_copy(update={"audit": audit})


def assess_quality(
    config: RunConfig,
    texts: Sequence[TableRef],
    annotated: Sequence[AnnotateReport],
    student: DistillReport,
    predicted: Sequence[PredictReport],
    metrics: EvaluateReport | None = None,
) -> QualityReport:
    """Tell the quality of sets and beliefs without gold, over distinct texts, with findings.

    Args:
        config: the run.
        texts: what the teacher was asked, table by table.
        annotated: its answers, in the same order.
        student: with beliefs about these texts.
        predicted: by shard of the corpus; of a sample only the labels of texts with an answer count, beside which the
            answers can be held.
        metrics: from `evaluate_labels`, for findings that only people's labels show; the measures read none of it.
    """
    store, counts = open_store(config.store), QualityCounts(config.task)
    reviewed, nothing = dict(_drawn_at_random(store, student).iter_rows()), empty(LABELS).select("label")
    for shard, answers in zip(texts, annotated, strict=True):
        annotations = store.read_table(answers.annotations, columns=["doc_id", "candidates", "scores"])
        counts.add(annotations, store.read_table(student.beliefs[shard.sha256]), nothing, reviewed)
    is_sample = sum(shard.rows for shard in texts) < sum(finals.labels.rows for finals in predicted)
    for finals in predicted:
        labels = store.read_table(finals.labels, columns=["label", "teacher_label"])
        counts.add_labels(labels.filter(pl.col("teacher_label").is_not_null()) if is_sample else labels)
    quality = counts.report(student.epochs)
    return quality.model_copy(update={"findings": find_all(quality, student.epochs, metrics)})


class _Rows:
    """The rows of each shard of texts: the texts' own, and those of other shards with the same text.

    Copies alone are kept in memory; the others are read when their shard's turn comes.
    """

    def __init__(self, store: Store, ingested: IngestReport) -> None:
        self._store, self._waiting = store, pl.DataFrame(schema=_COPY)
        self._left: Iterator[TableRef] = iter(ingested.examples)
        is_copy = pl.col("doc_id") != pl.col("same_as")
        copies = [self._read(shard).filter(is_copy) for shard in ingested.examples]
        self._copies = pl.concat([self._waiting, *copies])

    def of(self, texts: TableRef) -> pl.DataFrame:
        """Rows of a shard of texts, in the order of shards: same_as, doc_id, gold."""
        wanted = self._store.read_table(texts, columns=["doc_id"]).rename({"doc_id": "same_as"})
        # Texts are cut from examples in order, so that no more examples need be read than hold these.
        while self._waiting.height < wanted.height and (shard := next(self._left, None)):
            own = self._read(shard).filter(pl.col("doc_id") == pl.col("same_as"))
            self._waiting = pl.concat([self._waiting, own])
        own, self._waiting = self._waiting.head(wanted.height), self._waiting.slice(wanted.height)
        return pl.concat([own, self._copies.join(wanted, on="same_as", how="semi", maintain_order="left")])

    def _read(self, shard: TableRef) -> pl.DataFrame:
        return self._store.read_table(shard, columns=["doc_id", "same_as", "gold"]).select(*_COPY)


def _spread(table: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Give each row the entry of the row whose text it shares."""
    each = rows.select("doc_id", "same_as")
    joined = each.join(table.rename({"doc_id": "same_as"}), on="same_as", how="inner", maintain_order="left")
    return joined.drop("same_as")


def _evaluate_audit(
    store: Store,
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    student: DistillReport,
) -> GoldReport | None:
    """Measure the texts of an audit as if nobody had labelled them; those without a belief are left out."""
    reviewed = _drawn_at_random(store, student).rename({"label": "gold"})
    if reviewed.is_empty():
        return None
    counts = EvaluationCounts(config.task)
    if annotated and annotated[0].sample:
        pairs = [(table, annotated[0]) for table in student.beliefs.values()]
    else:
        shards = zip(ingested.texts, annotated, strict=True)
        pairs = [(student.beliefs[shard.sha256], answers) for shard, answers in shards]
    for beliefs, answers in pairs:
        known = store.read_table(beliefs).join(reviewed, on="doc_id", how="semi")
        annotations = known.join(store.read_table(answers.annotations), on="doc_id", maintain_order="left")
        if known.height:
            P = np.array(known["belief"].to_list(), dtype=np.float32)
            labels = final_labels(annotations.drop("belief"), P, config.task, student.label_model)
            counts.add(labels, annotations.drop("belief"), reviewed.join(known, on="doc_id", how="semi"))
    return counts.report().gold


def _drawn_at_random(store: Store, student: DistillReport) -> pl.DataFrame:
    """doc_id and label of the reviewed texts that measure; those chosen for doubt are wrong more often."""
    return store.read_table(student.reviewed).filter("is_random").drop("is_random")
