"""Predict: one shard of texts to final labels, from the student's belief and the teacher's sets."""

import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.config import ACCESS, Location, RunConfig, StudentKind
from candist_core.edges.store import fetch_folder, open_store
from candist_core.labels import final_labels
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.reports import AnnotateReport, DistillReport, PredictReport
from candist_core.spec import fingerprint
from candist_core.stages.asked import answers_about, beliefs_about
from candist_core.tables import LABELS, TableRef
from candist_core.version import __version__

if TYPE_CHECKING:
    from candist_core.student.frozen import FrozenStudent
    from candist_core.student.predict import Student


def _key(texts: TableRef, annotated: AnnotateReport, student: DistillReport) -> str:
    return fingerprint([texts.sha256, annotated.annotations.sha256, student.key, __version__])


def find_labels(
    config: RunConfig, texts: TableRef, annotated: AnnotateReport, student: DistillReport
) -> PredictReport | None:
    """The shard's final labels, if an earlier run left them."""
    return open_store(config.store).find_done("predict", _key(texts, annotated, student), PredictReport)


def predict_shard(
    config: RunConfig,
    texts: TableRef,
    annotated: AnnotateReport,
    student: DistillReport,
    on_progress: OnProgress = ignore_progress,
) -> PredictReport:
    """Give every text of a shard one label and a confidence; texts set aside by a check are left out.

    A text that the student learned from is judged by what others believe, who never saw its answer; the student
    itself is asked about the rest. Where the teacher read a sample, `annotated` are the answers to all of it.
    """
    if done := find_labels(config, texts, annotated, student):
        return done
    store, key = open_store(config.store), _key(texts, annotated, student)
    annotations = answers_about(store, texts, annotated)
    rows = annotations.select("doc_id").join(store.read_table(texts), on="doc_id", maintain_order="left")
    rows = rows.join(beliefs_about(store, student, texts), on="doc_id", how="left", maintain_order="left")
    part = Path(texts.uri).stem
    belief = _belief(config, student, rows, part, on_progress)
    on_progress(Progress("predict", part, rows.height, rows.height))
    reviewed = dict(store.read_table(student.reviewed, columns=["doc_id", "label"]).iter_rows())
    labels = final_labels(annotations, belief, config.task, student.label_model, reviewed)
    if texts.sha256 in student.kept:
        labels = with_kept(labels, store.read_table(student.kept[texts.sha256]))
    report = PredictReport(
        labels=store.write_table(f"labels/{key}.parquet", labels, LABELS),
        n_review=int(labels["needs_review"].sum()),
        sources=dict(Counter(labels["source"])),
    )
    store.mark_done("predict", key, report)
    return report


def with_kept(labels: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Labels, with those in their place that some texts keep; in the same order."""
    others = labels.join(kept, on="doc_id", how="anti")
    return labels.select("doc_id").join(pl.concat([kept, others]), on="doc_id", maintain_order="left")


def _belief(
    config: RunConfig, student: DistillReport, rows: pl.DataFrame, part: str, on_progress: OnProgress
) -> NDArray[np.float32]:
    """P, (n, k), for rows of text and belief, the latter null where there is none."""
    belief = np.zeros((rows.height, len(config.task.labels)), dtype=np.float32)
    is_known = rows["belief"].is_not_null()
    if is_known.any():
        belief[is_known.to_numpy()] = np.array(rows["belief"].drop_nulls().to_list(), dtype=np.float32)
    if not is_known.all():
        texts = rows["text"].filter(~is_known).to_list()
        belief[~is_known.to_numpy()] = load_student(config, student).predict(texts, on_progress, part)
    return belief


def load_student(config: RunConfig, student: DistillReport) -> "FrozenStudent | Student":
    """The student, brought from the store and ready to predict."""
    folder = Location(uri=f"{config.store.uri}/{student.folder}", **config.store.model_dump(include=ACCESS))
    return _load_student(folder, student.key, config.student.kind, config.student.device)


# Loading takes as long as labelling thousands of texts: once for all shards that a worker labels.
@lru_cache(maxsize=1)
def _load_student(folder: Location, key: str, kind: StudentKind, device: str) -> "Student | FrozenStudent":
    from candist_core.student.frozen import FrozenStudent
    from candist_core.student.predict import Student
    from candist_core.student.static import load_static

    with tempfile.TemporaryDirectory(prefix="candist-student-") as scratch:
        here = fetch_folder(folder, Path(scratch))
        if kind is StudentKind.STATIC:
            return load_static(here, device)
        return (FrozenStudent if kind is StudentKind.FROZEN else Student).load(here, device)
