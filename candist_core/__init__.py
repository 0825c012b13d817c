"""candist: candidate label sets from a large language model, distilled into a small student.

The stages of a run, one function each, for notebooks and scripts; `flows` runs the same ones under Prefect and Dask.
Importing this package loads neither torch, nor Great Expectations, nor Prefect: each name is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from candist_core.config import Location as Location
    from candist_core.config import RunConfig as RunConfig
    from candist_core.config import load_config as load_config
    from candist_core.reports import RunReports as RunReports
    from candist_core.stages.annotate import annotate_shard as annotate_shard
    from candist_core.stages.check import check_annotations as check_annotations
    from candist_core.stages.check import check_corpus as check_corpus
    from candist_core.stages.check import check_labels as check_labels
    from candist_core.stages.distill import distill_student as distill_student
    from candist_core.stages.evaluate import assess_quality as assess_quality
    from candist_core.stages.evaluate import evaluate_labels as evaluate_labels
    from candist_core.stages.ingest import ingest_corpus as ingest_corpus
    from candist_core.stages.plan import plan_annotation as plan_annotation
    from candist_core.stages.predict import predict_shard as predict_shard
    from candist_core.stages.publish import publish_version as publish_version
    from candist_core.stages.pull import pull_version as pull_version
    from candist_core.stages.push import push_version as push_version
    from candist_core.stages.replies import export_replies as export_replies
    from candist_core.stages.verify import verify_annotations as verify_annotations
    from candist_core.stages.versions import find_version as find_version
    from candist_core.stages.versions import load as load
    from candist_core.stages.versions import verify_version as verify_version

_HOMES = {
    "Location": "config",
    "RunConfig": "config",
    "RunReports": "reports",
    "annotate_shard": "stages.annotate",
    "assess_quality": "stages.evaluate",
    "check_annotations": "stages.check",
    "check_corpus": "stages.check",
    "check_labels": "stages.check",
    "distill_student": "stages.distill",
    "export_replies": "stages.replies",
    "evaluate_labels": "stages.evaluate",
    "find_version": "stages.versions",
    "ingest_corpus": "stages.ingest",
    "load": "stages.versions",
    "load_config": "config",
    "plan_annotation": "stages.plan",
    "predict_shard": "stages.predict",
    "publish_version": "stages.publish",
    "pull_version": "stages.pull",
    "push_version": "stages.push",
    "verify_annotations": "stages.verify",
    "verify_version": "stages.versions",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'candist_core' has no attribute {name!r}")
    return getattr(import_module(f"candist_core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(_HOMES)
