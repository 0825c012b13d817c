"""Predict as a task: one shard."""

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, DistillReport, PredictReport
from candist_core.stages import predict as stage
from candist_core.tables import TableRef
from tasks.policy import STAGE
from tasks.progress import progress_reporter


@task(name="predict-shard", task_run_name="predict {texts.uri}", **STAGE)
def predict_shard(
    config: RunConfig, texts: TableRef, annotated: AnnotateReport, student: DistillReport
) -> PredictReport:
    """Give every text of one shard its final label."""
    return stage.predict_shard(config, texts, annotated, student, progress_reporter())
