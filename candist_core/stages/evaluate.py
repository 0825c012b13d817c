"""Evaluate: what is known of the labels. The only stage that reads gold."""

from collections.abc import Sequence

import polars as pl

from candist_core.config import RunConfig
from candist_core.edges.store import open_store
from candist_core.metrics import evaluate
from candist_core.reports import AnnotateReport, EvaluateReport, IngestReport, PredictReport


def evaluate_labels(
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    predicted: Sequence[PredictReport],
) -> EvaluateReport:
    """Measure the labels over all rows, a text that stands in several rows counted once for each."""
    store = open_store(config.store)
    rows = pl.concat(store.read_table(shard, columns=["doc_id", "same_as", "gold"]) for shard in ingested.examples)
    labels = pl.concat(store.read_table(report.labels) for report in predicted)
    annotations = pl.concat(store.read_table(report.annotations) for report in annotated)
    each = rows.select("doc_id", "same_as")
    return evaluate(
        _spread(labels, each),
        _spread(annotations, each),
        rows.select("doc_id", "gold").drop_nulls() if ingested.n_gold else None,
        config.task,
    )


def _spread(table: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Give each row the entry of the row whose text it shares."""
    joined = rows.join(table.rename({"doc_id": "same_as"}), on="same_as", how="inner", maintain_order="left")
    return joined.drop("same_as")
