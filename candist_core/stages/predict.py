"""Predict: one shard of texts to final labels, from the student's belief and the teacher's sets."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candist_core.config import ACCESS, Location, RunConfig
from candist_core.edges.store import fetch_folder, open_store
from candist_core.labels import final_labels
from candist_core.ports import OnProgress, ignore_progress
from candist_core.reports import AnnotateReport, DistillReport, PredictReport
from candist_core.spec import fingerprint
from candist_core.tables import LABELS, TableRef
from candist_core.version import __version__


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
    """Give every text of a shard one label and a confidence; texts set aside by a check are left out."""
    if done := find_labels(config, texts, annotated, student):
        return done
    store, key = open_store(config.store), _key(texts, annotated, student)
    annotations = store.read_table(annotated.annotations)
    rows = annotations.select("doc_id").join(store.read_table(texts), on="doc_id", maintain_order="left")
    belief = _believe(config, student, rows["text"].to_list(), Path(texts.uri).stem, on_progress)
    labels = final_labels(annotations, belief, config.task)
    report = PredictReport(
        labels=store.write_table(f"labels/{key}.parquet", labels, LABELS),
        n_review=int(labels["needs_review"].sum()),
        sources=dict(Counter(labels["source"])),
    )
    store.mark_done("predict", key, report)
    return report


def _believe(
    config: RunConfig, student: DistillReport, texts: list[str], part: str, on_progress: OnProgress
) -> NDArray[np.float32]:
    from candist_core.student.predict import Student

    folder = Location(uri=f"{config.store.uri}/{student.folder}", **config.store.model_dump(include=ACCESS))
    with tempfile.TemporaryDirectory(prefix="candist-student-") as scratch:
        model = Student.load(fetch_folder(folder, Path(scratch)), config.student.device)
    return model.predict(texts, on_progress, part)
