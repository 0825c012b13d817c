"""The main flow: from a corpus to a published version.

```
ingest -> annotate (Dask, a task a shard) -> check -> distill -> predict (Dask) -> evaluate -> check -> publish
```

A run that finds a stage done by an earlier one takes its tables; a failed gate publishes nothing.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect_dask import DaskTaskRunner
from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.config import RunConfig
from candist_core.findings import as_checks
from candist_core.publish import Published
from candist_core.reports import AnnotateReport, CheckResult, DistillReport, IngestReport, PredictReport, RunReports
from candist_core.stages.distill import find_student
from candist_core.stages.ingest import find_ingested
from candist_core.stages.predict import find_labels
from candist_core.tables import TableRef
from flows.gate import stop_if_failed
from flows.progress import Watch
from flows.runner import Cluster, run_window
from flows.sampling import ask_teacher
from flows.summary import summary_markdown
from tasks.check import check_annotations, check_labels
from tasks.distill import distill_student
from tasks.evaluate import assess_quality, evaluate_labels
from tasks.ingest import ingest_corpus
from tasks.predict import predict_shard
from tasks.progress import listen
from tasks.publish import publish_version


def _run_name() -> str:
    config = runtime.flow_run.parameters["config"]
    name = config["name"] if isinstance(config, dict) else config.name
    return f"{name}-{runtime.flow_run.id[:8]}"


@flow(name="label-corpus", flow_run_name=_run_name, task_runner=DaskTaskRunner(), persist_result=False)
def label_corpus(config: RunConfig) -> Published:
    """Label a corpus and publish the result as a version.

    Args:
        config: everything the run needs.

    Returns:
        The version: new, or the one that already held the same labels.

    Raises:
        BadInputError: something in the configuration, the corpus or the teacher; the sentence says what.
        GateError: a check failed; nothing is published.
        BudgetError: the cap is reached; what is paid for is kept.
        TransientError: shards failed after their retries; run again.
    """
    with ExitStack() as stack:
        watch = stack.enter_context(Watch())
        stack.callback(listen(watch.hear))
        cluster = Cluster(config.compute, watch.hear)
        ingested = _ingest(config, watch)
        asked = ask_teacher(config, ingested, cluster, watch)
        annotated = asked.annotated
        with watch.stage("check", len(annotated), "shards"):
            checks = [*check_annotations(config, annotated)]
            _gate("annotations", checks)
        student = _distill(config, asked.texts, annotated, cluster, watch)
        predicted = _predict(config, ingested, asked.by_shard, student, cluster, watch)
        with watch.stage("evaluate", ingested.n_examples, "rows"):
            metrics = evaluate_labels(config, ingested, asked.by_shard, predicted, student)
            quality = assess_quality(config, asked.texts, annotated, student, predicted)
            if metrics.gold is not None:
                watch.say(
                    f"accuracy on gold: teacher {metrics.gold.teacher_accuracy}, final {metrics.gold.final_accuracy}"
                )
            checks += check_labels(config, annotated, predicted, asked.n_unread)
            checks += as_checks(quality.findings, config.checks.on_fail)
            _gate("labels", checks)
        with watch.stage("publish", ingested.n_examples, "rows"):
            reports = RunReports(
                ingested=ingested,
                annotated=tuple(annotated),
                student=student,
                predicted=tuple(predicted),
                metrics=metrics,
                checks=tuple(checks),
                quality=quality,
                sampling=asked.report,
            )
            published = publish_version(config, reports, runtime.flow_run.id)
        create_markdown_artifact(summary_markdown(published), key="summary", description="What the run made")
        return published


def _ingest(config: RunConfig, watch: Watch) -> IngestReport:
    if done := find_ingested(config):
        with watch.stage("ingest", done.n_rows, "rows", already=done.n_rows):
            return done
    with watch.stage("ingest", 0, "rows") as stage:
        made: IngestReport = ingest_corpus(config)
        stage.total = made.n_rows
        return made


def _distill(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport], cluster: Cluster, watch: Watch
) -> DistillReport:
    n_seen = config.student.passes * sum(report.annotations.rows for report in annotated)
    if done := find_student(config, texts, annotated):
        with watch.stage("distill", n_seen, "reads", already=n_seen):
            return done
    cluster.connect()
    made: dict[int, DistillReport] = {}

    def submit(i: int) -> PrefectDaskFuture[DistillReport]:
        future: PrefectDaskFuture[DistillReport] = distill_student.submit(config, texts, annotated)
        return future

    def keep(i: int, report: DistillReport) -> Sequence[int]:
        made[i] = report
        return ()

    with watch.stage("distill", n_seen, "reads"):
        run_window(submit, [0], lambda: 1, keep, watch.tick)
    return made[0]


def _predict(
    config: RunConfig,
    ingested: IngestReport,
    annotated: Sequence[AnnotateReport],
    student: DistillReport,
    cluster: Cluster,
    watch: Watch,
) -> list[PredictReport]:
    shards = list(zip(ingested.texts, annotated, strict=True))
    made = {i: done for i, pair in enumerate(shards) if (done := find_labels(config, *pair, student))}
    already = sum(report.labels.rows for report in made.values())

    def submit(i: int) -> PrefectDaskFuture[PredictReport]:
        cluster.connect()
        future: PrefectDaskFuture[PredictReport] = predict_shard.submit(
            config, *shards[i], student.of_shard(shards[i][0])
        )
        return future

    def keep(i: int, report: PredictReport) -> Sequence[int]:
        made[i] = report
        return ()

    todo = [i for i in range(len(shards)) if i not in made]
    with watch.stage("predict", ingested.n_texts, already=already):
        run_window(submit, todo, lambda: cluster.n_slots, keep, watch.tick)
    return [made[i] for i in range(len(shards))]


def _gate(stage: str, checks: Sequence[CheckResult]) -> None:
    """Show the checks so far in Prefect and stop at the ones that fail the run."""
    rows = [check.model_dump(include={"name", "passed", "observed", "wanted", "on_fail"}) for check in checks]
    create_table_artifact(rows, key=f"checks-{stage}", description=f"Checks up to the {stage}")
    stop_if_failed(stage, checks)
