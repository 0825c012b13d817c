"""Check as tasks: the corpus as it was read, the annotations as a whole, and the final labels."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, CheckResult, IngestReport, PredictReport
from candist_core.stages import check as stage
from tasks.policy import STAGE


@task(name="check-corpus", task_run_name="check corpus of {config.name}", **STAGE)
def check_corpus(config: RunConfig, ingested: IngestReport) -> tuple[CheckResult, ...]:
    """Check that few rows of the corpus were rejected."""
    return stage.check_corpus(config, ingested)


@task(name="check-annotations", task_run_name="check annotations of {config.name}", **STAGE)
def check_annotations(config: RunConfig, annotated: Sequence[AnnotateReport]) -> tuple[CheckResult, ...]:
    """Sum up the checks of the shards and check the whole run."""
    return stage.check_annotations(config, annotated)


@task(name="check-labels", task_run_name="check labels of {config.name}", **STAGE)
def check_labels(
    config: RunConfig, annotated: Sequence[AnnotateReport], predicted: Sequence[PredictReport], n_unread: int = 0
) -> tuple[CheckResult, ...]:
    """Check the final labels."""
    return stage.check_labels(config, annotated, predicted, n_unread)
