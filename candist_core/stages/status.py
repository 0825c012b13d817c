"""Status: how far a run has come, read from its done-markers alone; starts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, DistillReport, Usage
from candist_core.stages.distill import find_student
from candist_core.stages.incremental import find_reused
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import find_labels
from candist_core.stages.publish import open_publish_store
from candist_core.stages.sample import find_asked
from candist_core.tables import TableRef
from candist_core.versions import list_versions


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage: `done` of `total` units; `total` is 0 where an earlier stage has to end first."""

    stage: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class RunStatus:
    """All stages of a run, what its finished shards used, and the versions of its data set.

    `failed_checks` are those that some finished shard did not pass.
    """

    stages: tuple[StageStatus, ...]
    usage: Usage
    versions: tuple[int, ...]
    failed_checks: tuple[str, ...] = ()


def status_of_run(config: RunConfig) -> RunStatus:
    """Look for what earlier runs with the same inputs and settings left."""
    versions = tuple(list_versions(open_publish_store(config), config.dataset))
    ingested = find_ingested(config)
    if ingested is None:
        stages = tuple(
            StageStatus(name, 0, 0, "shards") for name in ("ingest", "annotate", "check", "distill", "predict")
        )
        return RunStatus(stages, Usage(), versions)
    n, found = len(ingested.texts), find_asked(config, ingested, plan_annotation(config))
    annotated, asked = found.annotated, found.whole(config, ingested)
    student = _find_student(config, asked.texts, asked.annotated) if asked else None
    pairs = zip(ingested.texts, asked.by_shard, strict=True) if student and asked else ()
    n_predicted = sum(find_labels(config, *pair, student) is not None for pair in pairs if student)
    checks = {check.name for report in annotated for check in report.checks}
    failed = {check.name for report in annotated for check in report.checks if not check.passed}
    stages = (
        StageStatus("ingest", ingested.n_rows, ingested.n_rows, "rows"),
        StageStatus("annotate", len(annotated), len(found.texts), "shards"),
        StageStatus("check", len(checks) - len(failed), len(checks), "checks passed"),
        StageStatus("distill", int(student is not None), 1, "students"),
        StageStatus("predict", n_predicted, n, "shards"),
    )
    return RunStatus(stages, _usage(annotated), versions, tuple(sorted(failed)))


def _find_student(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> DistillReport | None:
    reused = find_reused(config, texts, annotated)
    return reused[0] if reused else find_student(config, texts, annotated)


def _usage(annotated: Sequence[AnnotateReport]) -> Usage:
    return sum((report.usage for report in annotated), Usage())
