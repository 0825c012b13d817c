"""Published versions made of plain rows, without a run."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from candist_core.assemble import PUBLISHED
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.manifest import Counts, Manifest, VersionFile, encode_manifest
from candist_core.reports import EvaluateReport, LabelModel, StudentReport, Usage
from candist_core.spec import TaskSpec
from candist_core.versions import list_versions

SCHEMA = {
    "doc_id": pl.String(),
    "text": pl.String(),
    "label": pl.String(),
    "confidence": pl.Float32(),
    "candidates": pl.List(pl.String()),
    "teacher_label": pl.String(),
    "source": pl.String(),
    "needs_review": pl.Boolean(),
    "reason": pl.String(),
}


def label_row(doc_id: str, text: str, label: str, confidence: float = 0.9, *others: str, **more: Any) -> dict[str, Any]:
    """One row; its candidates are the label and the others."""
    row = {"doc_id": doc_id, "text": text, "label": label, "confidence": confidence, "candidates": [label, *others]}
    doubt = {"needs_review": confidence < 0.8, "reason": "low confidence" if confidence < 0.8 else None}
    return row | {"teacher_label": label, "source": "agreed"} | doubt | more


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA)


def publish_rows(
    folder: Path,
    rows: Iterable[Mapping[str, Any]],
    labels: Iterable[str],
    dataset: str = "mails",
    usage: Usage | None = None,
    **more: Any,
) -> Manifest:
    """Publish rows as the next version of a data set below the folder; `more` replaces fields of the manifest."""
    store, frame = open_store(Location(uri=str(folder))), frame_of(rows)
    frame.write_parquet(buffer := BytesIO(), metadata={"contract": PUBLISHED.name})
    data = buffer.getvalue()
    numbers = list_versions(store, dataset)
    number = numbers[-1] + 1 if numbers else 1
    version = blake2b(data, digest_size=8).hexdigest()
    n_review, spec = int(frame["needs_review"].sum()), TaskSpec(labels=[{"name": name} for name in labels])
    metrics = EvaluateReport(
        n_rows=frame.height, n_labelled=frame.height, n_review=n_review, mean_set_size=1.5, set_sizes={}, statuses={},
        class_counts={}, agreement=1.0, mean_confidence=float(frame["confidence"].mean()), gold=None,
    )  # fmt: skip
    student = StudentReport(
        folder="s", files=(), key="k", base_model="minilm", device="cpu", device_reason="no GPU", n_train=3, epochs=(),
        seconds=1.0, label_model=LabelModel(places=(), temperature=1.0, trusts_order=True),
    )  # fmt: skip
    file = VersionFile(
        path="data/train-00000.parquet", size_bytes=len(data), sha256=sha256(data).hexdigest(),
        rows=frame.height, split="train",
    )  # fmt: skip
    fields: dict[str, Any] = {
        "dataset": dataset, "number": number, "version": version, "created_at": datetime(2026, 11, 21, tzinfo=UTC),
        "run_id": "r", "code_version": "0.1", "spec": spec, "spec_fingerprint": spec.fingerprint, "seed": 0,
        "config": {}, "source_files": (), "files": (file,), "checks": (), "metrics": metrics, "student": student,
        "counts": Counts(rows=frame.height, texts=frame.height, needs_review=n_review, rejects=0),
        "usage": usage or Usage(),
    }  # fmt: skip
    manifest = Manifest(**fields | more)
    store.write_bytes(f"{manifest.folder}/{file.path}", data)
    store.create_bytes(f"{dataset}/manifests/v{number:08d}.json", encode_manifest(manifest))
    return manifest
