"""Rejects: rows that left the pipeline, with stage and reason, of a run as far as it came, or of a version."""

import polars as pl

from candist_core.config import Location, RunConfig
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError, SourceError
from candist_core.parquet import decode_table
from candist_core.stages.annotate import find_annotations
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.versions import find_version
from candist_core.tables import REJECTS


def rejects_of_run(config: RunConfig) -> pl.DataFrame:
    """The rows that a run has rejected so far, under rejects/1: at ingest, by the teacher, by checks.

    Raises:
        SourceError: the corpus has not been read yet, or was changed since.
    """
    if (ingested := find_ingested(config)) is None:
        found, wanted = "no run over its files as they are now", "one that has begun"
        raise SourceError(f"corpus {config.source.uri}", found, wanted, "run it, or `candist estimate`, first")
    store, plan = open_store(config.store), plan_annotation(config)
    annotated = [done for shard in ingested.texts if (done := find_annotations(plan, shard))]
    return pl.concat(store.read_table(table) for table in (ingested.rejects, *(one.rejects for one in annotated)))


def rejects_of_version(reference: Location) -> pl.DataFrame:
    """The rejects of `PLACE/DATASET[@VERSION]`, under rejects/1.

    Raises:
        StoreError: no such version.
    """
    version = find_version(reference)
    return decode_table(version.store.read_bytes(f"{version.manifest.folder}/rejects.parquet"), REJECTS.name)


def of_reasons(rejects: pl.DataFrame, reasons: tuple[str, ...]) -> pl.DataFrame:
    """Only the rejects of some reasons; all where none is named.

    Raises:
        ConfigError: a reason that no row has.
    """
    known = rejects["reason"].unique().sort().to_list()
    if strange := next((reason for reason in reasons if reason not in known), None):
        there = ", ".join(map(repr, known[:20])) or "none: nothing was rejected"
        raise ConfigError("--reason", repr(strange), f"one of {there}", "name one of these")
    return rejects.filter(pl.col("reason").is_in(list(reasons))) if reasons else rejects
