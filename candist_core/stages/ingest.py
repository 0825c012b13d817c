"""Ingest: from files of any kind to shards of examples and of distinct texts."""

from collections.abc import Sequence

import polars as pl

from candist_core.config import ACCESS, RunConfig, SourceConfig
from candist_core.edges.source import find_files, read_batches
from candist_core.edges.store import open_store
from candist_core.forgotten import Forgotten, read_forgotten
from candist_core.ingest import ingest
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.reports import IngestReport, SourceFile
from candist_core.spec import fingerprint
from candist_core.tables import CONTRACTS, TableRef
from candist_core.version import __version__


def _key(source: SourceConfig, files: Sequence[SourceFile], forgotten: Forgotten) -> str:
    settings = source.model_dump(mode="json", exclude=ACCESS)
    left_out = [forgotten.state] if forgotten.state else []
    return fingerprint([settings, [file.model_dump() for file in files], __version__, *left_out])


def find_ingested(config: RunConfig) -> IngestReport | None:
    """The shards of an earlier run over the same files, if any."""
    store = open_store(config.store)
    key = _key(config.source, find_files(config.source), read_forgotten(store, config.name))
    return store.find_done("ingest", key, IngestReport)


def ingest_corpus(config: RunConfig, on_progress: OnProgress = ignore_progress) -> IngestReport:
    """Read the corpus into shards, or find those of an earlier run over the same files.

    Raises:
        SourceError: no file, no such column, no usable row, a file that is not what its ending says.
    """
    store, source = open_store(config.store), config.source
    files, forgotten = find_files(source), read_forgotten(store, config.name)
    key = _key(source, files, forgotten)
    if done := store.find_done("ingest", key, IngestReport):
        return done

    written = 0

    def write(kind: str, index: int, frame: pl.DataFrame) -> TableRef:
        nonlocal written
        if kind == "examples/1":
            written += frame.height
            on_progress(Progress("ingest", "", written, 0, "rows"))
        return store.write_table(f"{kind.partition('/')[0]}/{key}/{index:05d}.parquet", frame, CONTRACTS[kind])

    is_forgotten = forgotten.is_source_row if forgotten else None
    batches = read_batches(source, files, source.shard_rows)
    report = ingest(batches, source, files, write, store.read_table, is_forgotten)
    store.mark_done("ingest", key, report)
    return report
