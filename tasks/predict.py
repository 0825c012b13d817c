"""Predict as a task: a group of shards."""

from collections.abc import Sequence

from prefect import task

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, DistillReport, PredictReport
from candist_core.stages import predict as stage
from candist_core.tables import TableRef
from tasks.groups import GroupResult, run_group
from tasks.policy import STAGE
from tasks.progress import progress_reporter
from tasks.shares import wanted_here


@task(name="predict-shards", task_run_name="predict {name}", **STAGE)
def predict_group(
    config: RunConfig, shards: Sequence[tuple[TableRef, AnnotateReport]], student: DistillReport, name: str
) -> GroupResult[PredictReport]:
    """Give every text of a group of shards its final label; of a shard that is done, take its table."""
    on_progress = progress_reporter()

    def work(i: int) -> PredictReport:
        return stage.predict_shard(config, *shards[i], student, on_progress)

    texts = [shard for shard, _ in shards]
    return run_group("predict", texts, work, wanted_here(), lambda report: f"{report.labels.rows:,} rows")
