"""Status: how far a run has come, read from its done-markers alone; starts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, Usage
from candist_core.stages.distill import find_student
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import find_labels
from candist_core.stages.publish import open_publish_store
from candist_core.stages.sample import find_asked
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
    """All stages of a run, what its finished shards used, and the versions of its data set."""

    stages: tuple[StageStatus, ...]
    usage: Usage
    versions: tuple[int, ...]


def status_of_run(config: RunConfig) -> RunStatus:
    """Look for what earlier runs with the same inputs and settings left."""
    versions = tuple(list_versions(open_publish_store(config), config.dataset))
    ingested = find_ingested(config)
    if ingested is None:
        stages = tuple(StageStatus(name, 0, 0, "shards") for name in ("ingest", "annotate", "distill", "predict"))
        return RunStatus(stages, Usage(), versions)
    n, found = len(ingested.texts), find_asked(config, ingested, plan_annotation(config))
    annotated, asked = found.annotated, found.whole(config, ingested)
    student = find_student(config, asked.texts, asked.annotated) if asked else None
    pairs = zip(ingested.texts, asked.by_shard, strict=True) if student and asked else ()
    n_predicted = sum(find_labels(config, *pair, student) is not None for pair in pairs if student)
    stages = (
        StageStatus("ingest", ingested.n_rows, ingested.n_rows, "rows"),
        StageStatus("annotate", len(annotated), len(found.texts), "shards"),
        StageStatus("distill", int(student is not None), 1, "students"),
        StageStatus("predict", n_predicted, n, "shards"),
    )
    return RunStatus(stages, _usage(annotated), versions)


def _usage(annotated: Sequence[AnnotateReport]) -> Usage:
    return sum((report.usage for report in annotated), Usage())
