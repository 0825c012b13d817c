"""The main flow: from a corpus to a published version.

```
ingest -> annotate (Dask, a task a shard) -> check -> distill -> predict (Dask) -> evaluate -> check -> publish
```

A run that finds a stage done by an earlier one takes its tables; a failed gate publishes nothing.
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect_dask import DaskTaskRunner
from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.config import RunConfig
from candist_core.findings import as_checks
from candist_core.publish import Published
from candist_core.reports import AnnotateReport, CheckResult, DistillReport, IngestReport, PredictReport, RunReports
from candist_core.stages.ingest import find_ingested
from candist_core.stages.predict import find_labels
from candist_core.stages.preflight import preflight
from flows.approval import approve_cost, person_to_ask
from flows.distillation import check_place, train_student
from flows.gate import Gate
from flows.incremental import reuse_student
from flows.named import first_name, mark_start, mark_version
from flows.progress import Watch
from flows.runner import Cluster
from flows.sampling import ask_teacher
from flows.shown import show_version
from flows.telemetry import observed
from flows.window import Shards, run_window, told
from tasks.check import check_annotations, check_corpus, check_labels
from tasks.evaluate import assess_quality, evaluate_labels
from tasks.groups import GroupResult, name_of_group
from tasks.ingest import ingest_corpus
from tasks.logs import set_up_logs
from tasks.policy import as_is
from tasks.predict import predict_group
from tasks.progress import listen
from tasks.publish import publish_version


@flow(name="label-corpus", flow_run_name=first_name, task_runner=DaskTaskRunner(), persist_result=False)
def label_corpus(config: RunConfig) -> Published:
    """Label a corpus and publish the result as a version.

    Args:
        config: Everything the run needs. Required are a name, the labels, and where the corpus lies.

    Returns:
        The version: new, or the one that already held the same labels.

    Raises:
        BadInputError: something in the configuration, the corpus or the teacher; the sentence says what.
        GateError: a check failed; nothing is published.
        BudgetError: the cap is reached; what is paid for is kept.
        TransientError: shards failed after their retries; run again.
    """
    set_up_logs()
    mark_start(config)
    gate = Gate(person_to_ask() if config.checks.ask_on_failure else None)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch())
        stack.callback(listen(watch.hear))
        stack.enter_context(observed(config, runtime.flow_run.id, watch))
        cluster = Cluster(config.compute, watch.hear)
        # Nobody has looked before where a deployment starts; workers elsewhere may hold the keys alone.
        preflight(config, will_ask=not (config.compute.address or config.compute.cluster_class))
        check_place(config)
        ingested = _ingest(config, watch)
        checks = _pass(gate, "corpus", check_corpus(config, ingested))
        approve_cost(config)
        asked = ask_teacher(config, ingested, cluster, watch, gate)
        annotated = asked.annotated
        with watch.stage("check", len(annotated), "shards"):
            checks = _pass(gate, "annotations", [*checks, *check_annotations(config, as_is(annotated))])
        student, origin = reuse_student(config, ingested, annotated, cluster, watch)
        student = student or train_student(config, asked.texts, annotated, cluster, watch)
        predicted = _predict(config, ingested, asked.by_shard, student, cluster, watch)
        with watch.stage("evaluate", ingested.n_examples, "rows"):
            metrics = evaluate_labels(config, as_is(ingested), as_is(asked.by_shard), as_is(predicted), as_is(student))
            quality = assess_quality(
                config, as_is(asked.texts), as_is(annotated), as_is(student), as_is(predicted), metrics
            )
            if metrics.gold is not None:
                watch.say(
                    f"accuracy on gold: teacher {metrics.gold.teacher_accuracy}, final {metrics.gold.final_accuracy}"
                )
            checks += check_labels(config, as_is(annotated), as_is(predicted), asked.n_unread)
            checks += as_checks(quality.findings, config.checks)
            checks += origin.checks if origin is not None and origin.is_reused else ()
            checks = _pass(gate, "labels", checks)
        with watch.stage("publish", ingested.n_examples, "rows"):
            reports = RunReports(
                ingested=ingested,
                annotated=tuple(annotated),
                student=student,
                predicted=tuple(predicted),
                metrics=metrics,
                checks=tuple(checks),
                quality=quality,
                origin=origin,
                sampling=asked.report,
            )
            published = publish_version(config, as_is(reports), runtime.flow_run.id)
        show_version(config, published)
        mark_version(published)
        return published


def _ingest(config: RunConfig, watch: Watch) -> IngestReport:
    if done := find_ingested(config):
        with watch.stage("ingest", done.n_rows, "rows", already=done.n_rows):
            return done
    with watch.stage("ingest", 0, "rows") as stage:
        made: IngestReport = ingest_corpus(config)
        stage.total = made.n_rows
        return made


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

    def submit(group: Shards) -> PrefectDaskFuture[GroupResult[PredictReport]]:
        cluster.connect()
        mine = [shards[i] for i in group]
        texts = [shard for shard, _ in mine]
        with cluster.on_gpus() if cluster.n_gpus else nullcontext():
            future: PrefectDaskFuture[GroupResult[PredictReport]] = predict_group.submit(
                config, mine, student.of_shards(texts), name_of_group(texts)
            )
        return future

    def keep(group: Shards, result: GroupResult[PredictReport]) -> Sequence[int]:
        made.update((i, one) for i, one in zip(group, result.outcomes, strict=False) if isinstance(one, PredictReport))
        return ()

    todo = [i for i in range(len(shards)) if i not in made]
    with watch.stage("predict", ingested.n_texts, already=already):
        # Where there are GPUs all of it goes to them: a single one outruns dozens of cores.
        run_window(
            submit,
            todo,
            lambda: cluster.n_gpus or cluster.n_slots,
            keep,
            watch.tick,
            on_end=told(watch, ingested.texts),
        )
    return [made[i] for i in range(len(shards))]


def _pass(gate: Gate, stage: str, checks: Sequence[CheckResult]) -> list[CheckResult]:
    """Show the checks so far in Prefect and stop at the ones that fail the run."""
    rows = [check.model_dump(include={"name", "passed", "observed", "wanted", "on_fail"}) for check in checks]
    create_table_artifact(rows, key=f"checks-{stage}", description=f"Checks up to the {stage}")
    return gate.pass_or_stop(stage, checks)
