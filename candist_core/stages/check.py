"""Check: the annotations as a whole, and the final labels, by Great Expectations."""

from collections.abc import Sequence

import polars as pl

from candist_core.config import RunConfig
from candist_core.edges.expectations import check_labels as check_label_table
from candist_core.edges.expectations import check_summary
from candist_core.edges.store import open_store
from candist_core.reports import AnnotateReport, CheckResult, PredictReport


def check_annotations(config: RunConfig, annotated: Sequence[AnnotateReport]) -> tuple[CheckResult, ...]:
    """Check the rates over all shards, on the table of their counts."""
    largest = config.task.max_candidates
    counts = [
        report.statuses | {"oversized": sum(n for size, n in report.set_sizes.items() if size > largest)}
        for report in annotated
    ]
    return check_summary(pl.DataFrame(counts), config.checks)


def check_labels(config: RunConfig, predicted: Sequence[PredictReport]) -> tuple[CheckResult, ...]:
    """Check the final labels of all shards."""
    store = open_store(config.store)
    labels = pl.concat([store.read_table(report.labels) for report in predicted])
    return check_label_table(labels, config.task, config.checks, n_expected=labels.height)
