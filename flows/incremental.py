"""The choice of an incremental run: the student of the latest version, or a new one."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, DistillReport, IngestReport, StudentOrigin
from candist_core.stages.incremental import (
    Adopted,
    Base,
    find_adopted,
    find_base,
    judge_student,
    stop_if_drifted,
)
from flows.progress import Watch
from flows.runner import Cluster
from flows.window import run_alone
from tasks.incremental import adopt_student


def reuse_student(
    config: RunConfig, ingested: IngestReport, annotated: Sequence[AnnotateReport], cluster: Cluster, watch: Watch
) -> tuple[DistillReport | None, StudentOrigin | None]:
    """The student of the latest version if runs are to reuse it and it is fit, and where the run's student comes from.

    Returns:
        No student where one is to be distilled; no origin where runs are not to reuse any.

    Raises:
        DriftError: new texts have drifted, and the run is to stop.
    """
    if not config.incremental.reuse_student:
        return None, None
    base = find_base(config, ingested.texts, annotated)
    if isinstance(base, str):
        watch.say(f"distilling: {base}")
        return None, StudentOrigin(is_reused=False, reason=base)
    adopted = _adopt(config, base, ingested, annotated, cluster, watch)
    origin = judge_student(config, adopted)
    rows = [check.model_dump(include={"name", "passed", "observed", "wanted"}) for check in origin.checks]
    create_table_artifact(rows, key="drift", description="New texts beside those that the student learned from")
    stop_if_drifted(config, origin)
    watch.say(f"{f'student of version {origin.number}' if origin.is_reused else 'distilling'}: {origin.reason}")
    return (adopted.student if origin.is_reused else None), origin


def _adopt(
    config: RunConfig,
    base: Base,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    cluster: Cluster,
    watch: Watch,
) -> Adopted:
    n = len(ingested.texts)
    if done := find_adopted(config, base, ingested.texts, annotated):
        with watch.stage("reuse", n, "shards", already=n):
            return done
    cluster.connect()
    with watch.stage("reuse", n, "shards"):
        future: Any = adopt_student.submit(config, base, ingested.texts, annotated)
        adopted: Adopted = run_alone(future, watch.tick)
        return adopted
