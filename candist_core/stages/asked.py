"""What the teacher said about a shard: its own annotations, or its part of the answers to a sample of the corpus.

Invariant: of a text that the teacher did not read nothing is stored; its row is made when it is wanted.
"""

from functools import lru_cache

import polars as pl

from candist_core.candidates import Status
from candist_core.edges.store import Store
from candist_core.reports import AnnotateReport, DistillReport
from candist_core.tables import ANNOTATIONS, BELIEFS, TableRef, empty


def answers_about(store: Store, texts: TableRef, report: AnnotateReport) -> pl.DataFrame:
    """The rows of a shard under annotations/1; a text that was not asked has the status unread and no candidates.

    Args:
        store: the run's.
        texts: the shard, under texts/1.
        report: the shard's annotations, or those of a sample (`report.sample`).
    """
    if not report.sample:
        return store.read_table(report.annotations)
    answers, left_out = _of_sample(store, report.annotations, report.sample)
    rows = store.read_table(texts, columns=["doc_id"]).join(left_out, on="doc_id", how="anti", maintain_order="left")
    unread = {"status": str(Status.UNREAD), "teacher": "", "request_key": ""}
    return rows.join(answers, on="doc_id", how="left", maintain_order="left").with_columns(
        pl.col("candidates").fill_null([]), *(pl.col(name).fill_null(value) for name, value in unread.items())
    )


def beliefs_about(store: Store, student: DistillReport, texts: TableRef) -> pl.DataFrame:
    """Beliefs out of fold that a shard's texts may have, under beliefs/1; of a sample, those of all its texts."""
    own = student.beliefs.get(texts.sha256)
    return store.read_table(own) if own is not None else _beliefs(store, tuple(student.beliefs.values()))


# One reading for all shards that a worker labels; some megabytes for 20,000 texts.
@lru_cache(maxsize=1)
def _of_sample(store: Store, answers: TableRef, asked: tuple[TableRef, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers, and the ids of texts that were drawn and then left out: by a check, or by hand."""
    found = store.read_table(answers)
    ids = pl.concat(
        [empty(ANNOTATIONS).select("doc_id"), *(store.read_table(one, columns=["doc_id"]) for one in asked)]
    )
    return found, ids.join(found, on="doc_id", how="anti")


@lru_cache(maxsize=1)
def _beliefs(store: Store, tables: tuple[TableRef, ...]) -> pl.DataFrame:
    return pl.concat([empty(BELIEFS), *map(store.read_table, tables)])
