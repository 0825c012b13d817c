"""Report: one HTML file of a published version, or of a run that has labelled everything, published or not."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from candist_core.config import Location, RunConfig
from candist_core.edges.report.page import Page
from candist_core.edges.report.stopped import render_stopped
from candist_core.edges.store import open_store
from candist_core.errors import StoreError
from candist_core.findings import as_checks
from candist_core.manifest import Manifest
from candist_core.publish import draft_manifest
from candist_core.reports import RunReports
from candist_core.stages.check import check_annotations, check_corpus, check_labels
from candist_core.stages.distill import find_student
from candist_core.stages.evaluate import assess_quality, evaluate_labels
from candist_core.stages.incremental import find_reused
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import find_labels
from candist_core.stages.publish import open_publish_store
from candist_core.stages.sample import find_asked
from candist_core.stages.stopped import find_stopped
from candist_core.stages.versions import find_version, scan_version
from candist_core.version import __version__
from candist_core.versions import find_content, list_versions

ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report: the page, and the manifest it tells of; `title` names a run that has none."""

    html: bytes
    manifest: Manifest | None
    title: str = ""

    @property
    def file_name(self) -> str:
        """A name for the file that tells versions apart."""
        name = f"{self.manifest.dataset}-{self.manifest.version}" if self.manifest else self.title
        return f"{name}.html"


def report_of_version(reference: Location) -> ReportFile:
    """The report of `PLACE/DATASET[@VERSION]`, made anew from its rows; see `find_version`.

    Memory: 50,000 rows.

    Raises:
        StoreError: no such version, or a file of it is not the one that was published.
    """
    version = find_version(reference)
    page = Page(version.manifest.spec)
    for rows in scan_version(version, verify=True).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True):
        page.add(rows)
    return ReportFile(page.render(version.manifest), version.manifest)


def report_of_run(config: RunConfig) -> ReportFile:
    """The report of what a run has made; it need not be published, a check may have stopped it at any stage.

    Labels are measured and checked anew, nothing is asked of a teacher or a student, and nothing is written.

    Raises:
        StoreError: the run has not labelled everything yet, and no check has stopped it; the sentence names the stage.
    """
    if stopped := find_stopped(config):
        return ReportFile(render_stopped(stopped), None, f"{config.name}-stopped")
    reports, page = reports_of_run(config), Page(config.task)
    manifest = draft_manifest(
        open_store(config.store),
        config,
        reports,
        page,
        run_id="",
        created_at=datetime.now(UTC),
        code_version=__version__,
    )
    target = open_publish_store(config)
    numbers = list_versions(target, config.dataset)
    if found := find_content(target, config.dataset, manifest.version, numbers):
        return ReportFile(page.render(found), found)
    return ReportFile(page.render(manifest, is_published=False), manifest)


def write_report(report: ReportFile, path: Path | None = None) -> Path:
    """Write the page to a file, by default one named after the version in the working folder.

    Raises:
        StoreError: no such folder, or no right to write there.
    """
    out = path or Path(report.file_name)
    try:
        out.write_bytes(report.html)
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {out}", found, "a place to write", "choose another with --out") from error
    return out


def reports_of_run(config: RunConfig) -> RunReports:
    """What the stages of a run left, and what evaluation and checks say of it now.

    Raises:
        StoreError: the run has not labelled everything yet; the sentence names the stage.
    """
    ingested = find_ingested(config)
    if ingested is None:
        raise _unfinished(config, "no ingested corpus")
    n, found = len(ingested.texts), find_asked(config, ingested, plan_annotation(config))
    asked = found.whole(config, ingested)
    if asked is None:
        raise _unfinished(config, f"{len(found.annotated)} of {len(found.texts)} shards annotated")
    annotated = asked.annotated
    reused = find_reused(config, asked.texts, annotated)
    student, origin = reused or (find_student(config, asked.texts, annotated), None)
    if student is None:
        raise _unfinished(config, "no student")
    pairs = zip(ingested.texts, asked.by_shard, strict=True)
    predicted = [labelled for pair in pairs if (labelled := find_labels(config, *pair, student))]
    if len(predicted) < n:
        raise _unfinished(config, f"{len(predicted)} of {n} shards labelled")
    metrics = evaluate_labels(config, ingested, asked.by_shard, predicted, student)
    quality = assess_quality(config, asked.texts, annotated, student, predicted, metrics)
    checks = [*check_corpus(config, ingested), *check_annotations(config, annotated)]
    checks += check_labels(config, annotated, predicted, asked.n_unread)
    checks += as_checks(quality.findings, config.checks)
    checks += origin.checks if origin is not None else ()
    return RunReports(
        ingested=ingested,
        annotated=tuple(annotated),
        student=student,
        predicted=tuple(predicted),
        metrics=metrics,
        checks=tuple(checks),
        quality=quality,
        origin=origin,
        sampling=asked.report,
    )


def _unfinished(config: RunConfig, found: str) -> StoreError:
    return StoreError(f"run {config.name}", found, "every text labelled", "run it with `candist run`")
