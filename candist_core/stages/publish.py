"""Publish: a run's tables to an immutable version, and its rows into files for people."""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from candist_core.config import ACCESS, Location, PublishConfig, RunConfig
from candist_core.edges.data_docs import render_checks
from candist_core.edges.lineage import tell_lineage
from candist_core.edges.store import Store, open_store
from candist_core.errors import ConfigError, StoreError
from candist_core.publish import Published, publish
from candist_core.reports import RunReports
from candist_core.version import __version__

DATA_DOCS = "validation/index.html"
"""Where the Data Docs of a version's checks stand in its folder."""


def open_publish_store(config: RunConfig | PublishConfig) -> Store:
    """The store under which the run's data set is published."""
    place = config.publish if isinstance(config, RunConfig) else config
    return open_store(Location(uri=place.uri, **place.model_dump(include=ACCESS)))


def publish_version(config: RunConfig, reports: RunReports, run_id: str = "") -> Published:
    """Publish what a run made, with its report, or find the version that already holds it."""
    # Loaded here: it draws plots, and a notebook that only reads versions needs none.
    from candist_core.edges.report.page import Page
    from candist_core.stages.changes import changes_since_latest

    target = open_publish_store(config)
    published = publish(
        open_store(config.store),
        target,
        config,
        reports.model_copy(update={"changes": changes_since_latest(target, config, reports)}),
        run_id=run_id,
        created_at=datetime.now(UTC),
        code_version=__version__,
        page=Page(config.task),
        pages={DATA_DOCS: render_checks(reports.annotated, reports.checks)},
    )
    if config.publish.lineage_url and published.is_new:
        tell_lineage(config.publish.lineage_url, published.manifest, published.uri)
    return published


def draw_audit(frame: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Distinct texts drawn at random for a person to label: doc_id, text, an empty label, and why.

    Nothing of what was found is shown, no candidates either: whoever sees a verdict tends to agree with it, and a
    single candidate is one.

    Example:
        >>> frame = pl.DataFrame({"doc_id": ["a"], "text": ["t"], "candidates": [["x", "y"]], "label": ["x"]})
        >>> draw_audit(frame, n=5, seed=0).row(0)
        ('a', 't', '', 'random')
    """
    distinct = frame.unique("text", keep="first", maintain_order=True)
    drawn = distinct.sample(min(n, distinct.height), shuffle=True, seed=seed)
    return drawn.select("doc_id", "text", label=pl.lit(""), why=pl.lit("random"))


def export_labels(frame: pl.DataFrame, path: Path, *, may_replace: bool = True) -> None:
    """Write rows as CSV, JSON lines or Parquet, by the path's ending; in CSV lists become `a|b`.

    Whoever reads the file meanwhile, or is left with it when this is stopped, has the old one or the new one whole.

    Raises:
        ConfigError: another ending, or a file that is there and may not be replaced.
        StoreError: no such folder, or no right to write there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    flat = frame.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("|")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.List)
    )
    writers = {
        ".csv": lambda: flat.write_csv(part),
        ".jsonl": lambda: frame.write_ndjson(part),
        ".parquet": lambda: frame.write_parquet(part),
    }
    if path.suffix not in writers:
        raise ConfigError(f"file {path}", f"the ending {path.suffix!r}", " or ".join(writers), "name it so")
    if path.exists() and not may_replace:
        raise ConfigError(f"file {path}", "one that exists", "a new one", "name another with --out, or add --force")
    try:
        writers[path.suffix]()
        part.replace(path)
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {path}", found, "a place to write", "choose another") from error
    finally:
        part.unlink(missing_ok=True)
