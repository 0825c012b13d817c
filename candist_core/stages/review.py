"""Review: texts of a version out to people, and their answers back into the run's audit."""

import json
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import polars as pl

from candist_core.compare import Comparison, compare_versions
from candist_core.config import Location, RunConfig
from candist_core.edges.labelled_source import read_audit
from candist_core.edges.scan import told_rows
from candist_core.errors import ConfigError, ReviewError, StoreError
from candist_core.manifest import Manifest
from candist_core.review import RANDOM_SHARE, Why, choose_texts
from candist_core.review_formats import LABEL_STUDIO_INTERFACE, read_answers, to_argilla, to_csv, to_label_studio
from candist_core.reviewed import ReviewReport, join_reviews, match_answers
from candist_core.stages.publish import open_publish_store
from candist_core.stages.versions import Version, find_version, scan_version
from candist_core.versions import read_manifest

_COMPARED = ("doc_id", "text", "label", "confidence", "source")


class ReviewFormat(StrEnum):
    """How chosen texts are written."""

    CSV = "csv"
    LABEL_STUDIO = "label-studio"
    ARGILLA = "argilla"


def format_of(name: str) -> ReviewFormat:
    """The format of a name.

    Raises:
        ReviewError: there is none; those there are are named.
    """
    if name not in set(ReviewFormat):
        raise ReviewError("--format", repr(name), f"one of {', '.join(ReviewFormat)}", "name one of these")
    return ReviewFormat(name)


def reviewed_version(config: RunConfig, version: str = "latest") -> str:
    """The id of a version of the run's data set: "latest", a number or an id.

    Raises:
        StoreError: there is none.
    """
    return _version_of(config, version).manifest.version


@dataclass(frozen=True, slots=True)
class Chosen:
    """Texts of a version that people should look at: doc_id, text, candidates, why."""

    manifest: Manifest
    texts: pl.DataFrame


def choose_for_review(reference: Location, budget: int, random_share: float = RANDOM_SHARE, seed: int = 0) -> Chosen:
    """The texts of a version whose review helps most, see `candist_core.review`.

    Raises:
        StoreError: no such version.
    """
    version = find_version(reference)
    names = version.manifest.spec.label_names
    return Chosen(version.manifest, choose_texts(_rows_of(version), budget, random_share, seed, names))


def export_review(chosen: Chosen, out: Path, form: ReviewFormat = ReviewFormat.CSV) -> list[Path]:
    """Write chosen texts: one file of CSV, a file of tasks and one with the interface, or a folder for Argilla.

    Returns:
        What was written.

    Raises:
        ReviewError: a name that is taken.
        StoreError: it cannot be written.
    """
    spec = chosen.manifest.spec
    if form is ReviewFormat.CSV:
        files = {out: to_csv(chosen.texts)}
    elif form is ReviewFormat.LABEL_STUDIO:
        interface = out.with_suffix(".xml")
        files = {out: to_label_studio(chosen.texts, spec), interface: LABEL_STUDIO_INTERFACE.encode()}
    else:
        name = f"{chosen.manifest.dataset}-{chosen.manifest.version}"
        files = {out / path: data for path, data in to_argilla(chosen.texts, spec, name).items()}
    for path in (out, *files):
        if os.path.lexists(path):
            raise ReviewError(f"file {path}", "one that exists", "a new one", "name another with --out")
    for path, data in files.items():
        _write(path, data, make_folder=form is ReviewFormat.ARGILLA)
    return list(files)


def import_answers(config: RunConfig, answers: Path, into: Path, version: str = "latest") -> ReviewReport:
    """Join answers with all that was reviewed before, in a file that the next run takes as its audit.

    Args:
        config: the run whose version was reviewed; what its `audit.uri` holds is kept.
        answers: a file, or the folder that Argilla's `to_disk` wrote.
        into: the file of reviewed texts, JSON lines; written anew, with what it held.
        version: which version was reviewed: "latest", a number or an id.

    Returns:
        What came of the answers, and what they say of the version.

    Raises:
        ReviewError: answers that cannot be read, or not about this version.
        ConfigError: no column that tells random texts from doubtful ones.
        StoreError: no such version, no place to write.
    """
    if config.audit.why is None:
        raise ConfigError("audit.why", "none", "a column, why for example", "name one: only random texts calibrate")
    if into.suffix != ".jsonl":
        raise ReviewError(f"file {into}", f"the ending {into.suffix!r}", ".jsonl", "name it so")
    rows = _rows_of(_version_of(config, version))
    said = read_answers(_read(answers), answers.name if answers.is_file() else "records.json")
    table, report = match_answers(said, rows, config.task.label_names, f"answers {answers}")
    places = dict.fromkeys(place for place in (config.audit.uri, str(into) if into.exists() else None) if place)
    before = [row for place in places for row in _reviewed_in(config, place)]
    columns = (config.audit.text, config.audit.label, config.audit.why)
    lines = (
        json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in join_reviews(before, table)
    )
    _write(into, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    return report


def compare(reference: Location, other: Location) -> Comparison:
    """What differs between two versions, each as `find_version` takes it.

    Raises:
        StoreError: no such version.
    """
    return _compared(find_version(reference), find_version(other))


def compare_published(config: RunConfig, before: str, after: str) -> Comparison:
    """What differs between two versions of a run's data set: numbers or ids."""
    return _compared(_version_of(config, before), _version_of(config, after))


def _version_of(config: RunConfig, version: str) -> Version:
    store = open_publish_store(config)
    return Version(read_manifest(store, config.dataset, version), store)


def _rows_of(version: Version) -> pl.DataFrame:
    with told_rows(f"version {version.uri}"):
        return scan_version(version, verify=True).collect()


def _compared(first: Version, second: Version) -> Comparison:
    with told_rows(f"versions {first.uri} and {second.uri}"):
        rows, others = (scan_version(each, verify=True).select(_COMPARED).collect() for each in (first, second))
    return compare_versions(first.manifest, second.manifest, rows, others)


def _reviewed_in(config: RunConfig, uri: str) -> list[tuple[str, str, str]]:
    audit = config.audit.model_copy(update={"uri": uri})
    verdicts = read_audit(audit, config.source, config.task.label_names)
    whys = {True: str(Why.RANDOM), False: str(Why.DOUBTFUL)}
    return [(text, verdict.label, whys[verdict.is_random]) for text, verdict in verdicts.items()]


def _read(path: Path) -> bytes:
    place = path / "records.json" if path.is_dir() else path
    try:
        return place.read_bytes()
    except OSError as error:
        found = (error.strerror or "an error").lower()
        raise ReviewError(f"answers {path}", found, "a file, or a folder of Argilla", "check the path") from error


def _write(path: Path, data: bytes, make_folder: bool = False) -> None:
    """Write a file whole or not at all."""
    temp = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temp.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        finally:
            temp.unlink(missing_ok=True)
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {path}", found, "a place to write", "choose another") from error
