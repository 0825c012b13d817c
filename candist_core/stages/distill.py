"""Distill: from all candidate sets to one student, kept as a folder that `transformers` loads."""

import os
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import polars as pl

from candist_core.candidates import candidate_mask, rank_table
from candist_core.config import ACCESS, Location, RunConfig
from candist_core.edges.store import Store, fetch_folder, open_store
from candist_core.ports import OnProgress, ignore_progress
from candist_core.reports import AnnotateReport, DistillReport, StoredFile
from candist_core.spec import fingerprint
from candist_core.tables import TableRef
from candist_core.version import __version__


def student_key(config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]) -> str:
    """The key of a student: what it learns from and how, not where it is trained."""
    settings = config.student.model_dump(mode="json", exclude={"device"})
    tables = [[shard.sha256, report.annotations.sha256] for shard, report in zip(texts, annotated, strict=True)]
    return fingerprint([settings, tables, config.task.label_names, config.seed, __version__])


def find_student(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> DistillReport | None:
    """The student that an earlier run trained on the same sets, if any."""
    return open_store(config.store).find_done("distill", student_key(config, texts, annotated), DistillReport)


def distill_student(
    config: RunConfig,
    texts: Sequence[TableRef],
    annotated: Sequence[AnnotateReport],
    on_progress: OnProgress = ignore_progress,
) -> DistillReport:
    """Train the student on every text that has candidates, gold unseen.

    Raises:
        StudentError: no such weights or device, nothing to learn from, a loss that is no number.
    """
    from candist_core.student.distill import distill

    if done := find_student(config, texts, annotated):
        return done
    store, key = open_store(config.store), student_key(config, texts, annotated)
    rows = read_training_rows(store, config, texts, annotated)
    names = config.task.label_names
    with tempfile.TemporaryDirectory(prefix="candist-student-") as scratch:
        base = fetch_student(config, Path(scratch))
        folder = Path(scratch) / "student"
        result = distill(
            rows["text"].to_list(),
            candidate_mask(rows["candidates"], names),
            rank_table(rows["candidates"], names),
            names,
            config.student.model_copy(update={"model": base}),
            config.seed,
            folder,
            on_progress=on_progress,
            n_threads=os.cpu_count(),
        )
        files = _keep_folder(store, folder, f"students/{key}")
    report = DistillReport(
        folder=f"students/{key}",
        files=files,
        key=key,
        base_model=config.student.model,
        device=result.device,
        device_reason=result.device_reason,
        n_train=rows.height,
        epochs=result.epochs,
        seconds=result.seconds,
    )
    store.mark_done("distill", key, report)
    return report


def read_training_rows(
    store: Store, config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> pl.DataFrame:
    """doc_id, text, candidates of the texts a student can learn from: a set, and no larger than allowed.

    A set beyond `max_candidates` says little more than "unsure"; uniform targets over it would teach noise.
    """
    size = pl.col("candidates").list.len()
    return pl.concat(
        store.read_table(shard)
        .join(
            store.read_table(report.annotations, columns=["doc_id", "candidates"]), on="doc_id", maintain_order="left"
        )
        .filter(size.is_between(1, config.task.max_candidates))
        for shard, report in zip(texts, annotated, strict=True)
    )


def fetch_student(config: RunConfig, scratch: Path) -> str:
    """The model as something to load locally: an `s3://` folder is downloaded by the store's access settings."""
    model = config.student.model
    if "://" not in model:
        return model
    where = Location(uri=model, **config.store.model_dump(include=ACCESS))
    return str(fetch_folder(where, scratch / "base"))


def _keep_folder(store: Store, folder: Path, prefix: str) -> tuple[StoredFile, ...]:
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        uri = f"{prefix}/{path.relative_to(folder).as_posix()}"
        store.write_bytes(uri, data)
        files.append(StoredFile(uri=uri, size_bytes=len(data), sha256=sha256(data).hexdigest()))
    return tuple(files)
