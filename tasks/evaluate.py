"""Evaluate as a task; the only reader of gold."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, EvaluateReport, IngestReport, PredictReport
from candist_core.stages import evaluate as stage
from tasks.policy import STAGE


@task(name="evaluate", task_run_name="evaluate {config.name}", **STAGE)
def evaluate_labels(
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    predicted: Sequence[PredictReport],
) -> EvaluateReport:
    """Measure the labels, against gold where there is any."""
    return stage.evaluate_labels(config, ingested, annotated, predicted)
