"""Incremental: the student of the latest version, taken over for a corpus that has grown, if it is fit.

The latest version is the base: texts that stand in it with the same candidates keep their labels, and the student that
made them says what it believes of the others, which it never saw. How far these have drifted is measured against the
version whose run distilled that student, so that drift which creeps in over many runs is seen. Invariant: a text that
keeps its label keeps all of labels/1.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from candist_core.config import RunConfig
from candist_core.drift import DriftReport, drift_checks
from candist_core.edges.store import Store, open_store
from candist_core.errors import DriftError
from candist_core.incremental_config import OnDrift
from candist_core.manifest import Manifest
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.reports import AnnotateReport, DistillReport, Report, StudentOrigin
from candist_core.spec import fingerprint
from candist_core.stages.beliefs import BeliefsOfTexts
from candist_core.stages.distill import reviewed_texts, settings_key, student_key
from candist_core.stages.new_texts import NewTexts
from candist_core.stages.predict import find_labels
from candist_core.stages.publish import open_publish_store
from candist_core.stages.versions import Version
from candist_core.tables import REVIEWED, TableRef
from candist_core.version import __version__
from candist_core.versions import find_content, list_versions, read_numbered

_CHUNK_TEXTS = 500_000
"""Texts looked for in the base at once; more are looked for in several readings of it."""


@dataclass(frozen=True, slots=True)
class Base:
    """The latest version, and the one whose run distilled its student."""

    version: Version
    reference: Version
    student: DistillReport


class Adopted(Report):
    """A student taken over for a corpus; nothing is judged yet. `drift` is None where too few texts are new."""

    student: DistillReport
    base: int
    reference: int
    reference_version: str
    n_new: int
    n_judged: int
    drift: DriftReport | None


def find_base(config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]) -> Base | str:
    """What an incremental run begins with, or in words why it has to distil."""
    target = open_publish_store(config)
    if not (numbers := list_versions(target, config.dataset)):
        return "there is no version before this one"
    latest = read_numbered(target, config.dataset, numbers[-1])
    key = latest.student.key
    if student_key(config, texts, annotated) == key:
        return "these texts are the ones to learn from"
    student = open_store(config.store).find_done("distill", key, DistillReport)
    if student is None:
        return f"the student of version {latest.number} is not in the store"
    if student.settings_key != settings_key(config):
        return f"settings of task, teacher or student are not those of version {latest.number}"
    if (reference := _reference(target, latest, numbers)) is None:
        return f"the version whose run distilled the student of version {latest.number} was removed"
    return Base(Version(latest, target), Version(reference, target), student)


def find_adopted(
    config: RunConfig, base: Base, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> Adopted | None:
    """What an earlier run over the same texts left, if any."""
    return open_store(config.store).find_done("adopt", _key(config, base, texts, annotated), Adopted)


def adopt_student(
    config: RunConfig,
    base: Base,
    texts: Sequence[TableRef],
    annotated: Sequence[AnnotateReport],
    on_progress: OnProgress = ignore_progress,
) -> Adopted:
    """Take the student of the base over: beliefs about texts new to it, labels that stay, and drift.

    Memory: half a million texts' labels, and hashes of the base's texts.

    Raises:
        StoreError: a version or the student cannot be read.
    """
    if done := find_adopted(config, base, texts, annotated):
        return done
    store, shards = open_store(config.store), list(zip(texts, annotated, strict=True))
    with tempfile.TemporaryDirectory(prefix="candist-adopt-") as scratch:
        beliefs = BeliefsOfTexts(config, store, base.student, base.reference)
        held: dict[str, TableRef] = {}
        for i, shard in enumerate(texts):
            on_progress(Progress("reuse", "", i, len(texts), "shards"))
            held[shard.sha256] = beliefs.of(shard)
        reviewed = _keep_reviewed(config, store, base.student, texts)
        student = base.student.model_copy(update={"beliefs": held, "reviewed": reviewed})
        looked = [pair for pair in shards if find_labels(config, *pair, student) is None]
        window = NewTexts(config, base.version, base.reference, student, store)
        kept: dict[str, TableRef] = {}
        for chunk in _chunks(looked):
            kept |= window.look(chunk)
        drift = window.drift(Path(scratch))
    report = Adopted(
        student=student.model_copy(update={"kept": kept}),
        base=base.version.manifest.number,
        reference=base.reference.manifest.number,
        reference_version=base.reference.manifest.version,
        n_new=window.n_new,
        n_judged=window.counts.n,
        drift=drift,
    )
    store.mark_done("adopt", _key(config, base, texts, annotated), report)
    return report


def find_reused(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> tuple[DistillReport, StudentOrigin] | None:
    """The student that an earlier run over the same texts took over, and where it came from, if it did."""
    if not config.incremental.reuse_student or isinstance(base := find_base(config, texts, annotated), str):
        return None
    if (adopted := find_adopted(config, base, texts, annotated)) is None:
        return None
    origin = judge_student(config, adopted)
    return (adopted.student, origin) if origin.is_reused else None


def _keep_reviewed(config: RunConfig, store: Store, student: DistillReport, texts: Sequence[TableRef]) -> TableRef:
    """Labels that people gave to texts of this corpus; one of an audit may have come into it only now."""
    rows = reviewed_texts(store, config, texts)
    if rows is None:
        return student.reviewed
    key = fingerprint([shard.sha256 for shard in texts])[:8]
    return store.write_table(f"reviewed/{student.key}-{key}.parquet", rows, REVIEWED)


def judge_student(config: RunConfig, adopted: Adopted) -> StudentOrigin:
    """Whether the student is still fit for new texts, and so is reused."""
    settings, drift = config.incremental, adopted.drift
    checks = drift_checks(drift, settings, config.task.label_names) if drift is not None else ()
    failed = [check for check in checks if not check.passed]
    is_reused = not failed or settings.on_drift is OnDrift.WARN
    if not adopted.n_new:
        reason = "no text is new"
    elif not checks:
        reason = f"{adopted.n_judged:,} new texts are too few to judge (incremental.min_texts {settings.min_texts:,})"
    elif failed:
        reason = f"drift beyond {len(failed)} of {len(checks)} thresholds: {', '.join(one.name for one in failed)}"
    else:
        reason = f"fit for {adopted.n_judged:,} new texts by {len(checks)} measures of drift"
    return StudentOrigin(
        is_reused=is_reused,
        reason=reason,
        number=adopted.reference if is_reused else None,
        version=adopted.reference_version if is_reused else None,
        n_new=adopted.n_new,
        checks=checks,
    )


def stop_if_drifted(config: RunConfig, origin: StudentOrigin) -> None:
    """End a run that is to stop at drift.

    Raises:
        DriftError: naming each threshold that was passed.
    """
    failed = tuple(str(check) for check in origin.checks if not check.passed)
    if failed and config.incremental.on_drift is OnDrift.FAIL:
        raise DriftError("drift", failed)


def _key(config: RunConfig, base: Base, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]) -> str:
    """Not the base itself: what is adopted for a corpus is what the next version is made of, and then its base."""
    tables = [[shard.sha256, report.annotations.sha256] for shard, report in zip(texts, annotated, strict=True)]
    looks = [config.incremental.min_texts, config.incremental.sample_texts]
    return fingerprint([base.student.key, tables, looks, __version__])


def _reference(target: Store, latest: Manifest, numbers: list[int]) -> Manifest | None:
    """The version whose run distilled the latest one's student; None where it was removed.

    No other can stand in: by its texts it would be told which texts the student learned from.
    """
    if latest.origin is None or latest.origin.version is None:
        return latest
    return find_content(target, latest.dataset, latest.origin.version, numbers)


def _chunks(
    shards: list[tuple[TableRef, AnnotateReport]],
) -> Iterator[list[tuple[TableRef, AnnotateReport]]]:
    n_before = 0
    numbered = []
    for pair in shards:
        numbered.append((n_before // _CHUNK_TEXTS, pair))
        n_before += pair[0].rows
    for _, group in groupby(numbered, key=lambda one: one[0]):
        yield [pair for _, pair in group]
