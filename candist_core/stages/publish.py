"""Publish: a run's tables to an immutable version, and versions back to whoever reads them."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from candist_core.config import ACCESS, Location, RunConfig
from candist_core.edges.data_docs import render_checks
from candist_core.edges.store import Store, open_store
from candist_core.errors import ConfigError, StoreError
from candist_core.publish import Manifest, Published, list_versions, publish, read_labels, read_manifest
from candist_core.reports import RunReports
from candist_core.version import __version__

DATA_DOCS = "validation/index.html"
"""Where the Data Docs of a version's checks stand in its folder."""


def open_publish_store(config: RunConfig) -> Store:
    """The store under which the run's data set is published."""
    return open_store(Location(uri=config.publish.uri, **config.publish.model_dump(include=ACCESS)))


def publish_version(config: RunConfig, reports: RunReports, run_id: str = "") -> Published:
    """Publish what a run made, or find the version that already holds it."""
    return publish(
        open_store(config.store),
        open_publish_store(config),
        config,
        reports,
        run_id=run_id,
        created_at=datetime.now(UTC),
        code_version=__version__,
        pages={DATA_DOCS: render_checks(reports.annotated, reports.checks)},
    )


def find_version(
    reference: str, endpoint_url: str | None = None, profile: str | None = None
) -> tuple[Manifest, str, Store]:
    """The manifest behind `PLACE/DATASET[@VERSION]`, the version's place, and its store.

    Args:
        reference: such as `published/reviews`, `s3://bucket/sets/reviews@3`, `published/reviews@1f0c…`.
        endpoint_url: of an S3-compatible store.
        profile: of the AWS credentials file.

    Raises:
        StoreError: no such data set or version; the sentence names those there are.
    """
    place, mark, version = reference.rpartition("@")
    if not mark or "/" in version:
        place, version = reference, "latest"
    root, _, dataset = place.rstrip("/").rpartition("/")
    if not dataset or root.endswith(":/") or not version:
        raise StoreError(
            f"version {reference!r}", "no data set in it", "FOLDER/DATASET or FOLDER/DATASET@VERSION", "name one"
        )
    store = open_store(Location(uri=root or ".", endpoint_url=endpoint_url, profile=profile))
    if not list_versions(store, dataset) and (inside := _datasets_in(place, endpoint_url, profile)):
        names = ", ".join(f"{place}/{name}" for name in inside)
        raise StoreError(f"version {reference!r}", "a folder of data sets", f"one of {names}", "name one")
    manifest = read_manifest(store, dataset, version)
    return manifest, f"{root or '.'}/{manifest.folder}", store


def _datasets_in(place: str, endpoint_url: str | None, profile: str | None) -> list[str]:
    """Names of the data sets right below a place."""
    store = open_store(Location(uri=place, endpoint_url=endpoint_url, profile=profile))
    parts = (path.split("/") for path in store.list_paths(""))
    return sorted({part[0] for part in parts if len(part) == 3 and part[1] == "manifests"})


def load_labels(reference: str, endpoint_url: str | None = None, profile: str | None = None) -> pl.DataFrame:
    """All rows of a version; see `find_version`. Each file's hash is checked."""
    manifest, _, store = find_version(reference, endpoint_url, profile)
    return read_labels(store, manifest)


def draw_audit(frame: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """Distinct texts drawn at random for a person to label: doc_id, text, candidates, and an empty label.

    Neither the final label nor the confidence is shown: whoever sees them tends to agree.

    Example:
        >>> frame = pl.DataFrame({"doc_id": ["a"], "text": ["t"], "candidates": [["x", "y"]], "label": ["x"]})
        >>> draw_audit(frame, n=5, seed=0).row(0)
        ('a', 't', ['x', 'y'], '')
    """
    distinct = frame.unique("text", keep="first", maintain_order=True)
    drawn = distinct.sample(min(n, distinct.height), shuffle=True, seed=seed)
    return drawn.select("doc_id", "text", pl.col("candidates").list.sort(), label=pl.lit(""))


def export_labels(frame: pl.DataFrame, path: Path) -> None:
    """Write rows as CSV, JSON lines or Parquet, by the path's ending; in CSV lists become `a|b`.

    Raises:
        ConfigError: another ending.
        StoreError: no such folder, or no right to write there.
    """
    flat = frame.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("|")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.List)
    )
    writers = {
        ".csv": lambda: flat.write_csv(path),
        ".jsonl": lambda: frame.write_ndjson(path),
        ".parquet": lambda: frame.write_parquet(path),
    }
    if path.suffix not in writers:
        raise ConfigError(f"file {path}", f"the ending {path.suffix!r}", " or ".join(writers), "name it so")
    try:
        writers[path.suffix]()
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {path}", found, "a place to write", "choose another") from error
