"""Evaluate as tasks: the labels, by the only reader of gold, and sets and beliefs without it."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import (
    AnnotateReport,
    DistillReport,
    EvaluateReport,
    IngestReport,
    PredictReport,
    QualityReport,
)
from candist_core.stages import evaluate as stage
from candist_core.tables import TableRef
from tasks.policy import STAGE


@task(name="evaluate", task_run_name="evaluate {config.name}", **STAGE)
def evaluate_labels(
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    predicted: Sequence[PredictReport],
    student: DistillReport | None = None,
) -> EvaluateReport:
    """Measure the labels, against gold and an audit where there are any."""
    return stage.evaluate_labels(config, ingested, annotated, predicted, student)


@task(name="assess-quality", task_run_name="assess quality of {config.name}", **STAGE)
def assess_quality(
    config: RunConfig,
    texts: Sequence[TableRef],
    annotated: Sequence[AnnotateReport],
    student: DistillReport,
    predicted: Sequence[PredictReport],
    metrics: EvaluateReport | None = None,
) -> QualityReport:
    """Tell the quality of candidate sets without gold, and name signs of failure, those that gold shows too."""
    return stage.assess_quality(config, texts, annotated, student, predicted, metrics)
