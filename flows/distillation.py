"""Where the student is trained: in this process, on a Dask worker with a GPU, or by a deployment on a GPU pool."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from candist_core.compute_config import DistillOn
from candist_core.config import RunConfig
from candist_core.errors import ConfigError, StudentError, TransientError
from candist_core.reports import AnnotateReport, DistillReport
from candist_core.stages.distill import find_student
from candist_core.stages.lesson import DistillInputs, keep_inputs, with_full_paths
from candist_core.tables import TableRef
from flows.progress import Watch
from flows.runner import Cluster
from flows.window import run_alone
from tasks.distill import distill_student
from tasks.policy import Sealed
from tasks.progress import listen

_POLL_S = 1.0
# Prefect calls a run late 15 s after it was due.
_SILENT_S = 20.0


def check_place(config: RunConfig) -> None:
    """Look for the deployment that is to train the student, before anything is paid for.

    Raises:
        ConfigError: there is none of that name.
    """
    if config.compute.distill is not DistillOn.DEPLOYMENT:
        return
    name = config.compute.distill_deployment
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            raise ConfigError(
                f"compute.distill_deployment {name}",
                f"no such deployment at {client.api_url}",
                "one that trains students",
                "deploy it, start a worker for its pool, or set compute.distill to local",
            ) from error


def train_student(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport], cluster: Cluster, watch: Watch
) -> DistillReport:
    """Train the student where `compute.distill` says, or take the one that an earlier run trained.

    Raises:
        ConfigError: no worker with a GPU, no such deployment.
        StudentError: nothing to learn from, a training that failed.
        TransientError: the place of training is gone; run again.
    """
    n_seen = config.student.passes * sum(report.annotations.rows for report in annotated)
    if done := find_student(config, texts, annotated):
        with watch.stage("distill", n_seen, "reads", already=n_seen):
            return done
    inputs = DistillInputs(texts=tuple(texts), annotated=tuple(annotated))
    with watch.stage("distill", n_seen, "reads"):
        if config.compute.distill is DistillOn.DEPLOYMENT:
            return _by_deployment(config, inputs, watch)
        if config.compute.distill is DistillOn.DASK:
            cluster.await_gpu(watch.tick)
            with cluster.on_gpus():
                future: Any = distill_student.submit(config, Sealed(inputs))
            report: DistillReport = run_alone(future, watch.tick)
            return report
        stop = listen(lambda progress: watch.tick())
        try:
            trained: DistillReport = distill_student(config, Sealed(inputs))
            return trained
        finally:
            stop()


def _by_deployment(config: RunConfig, inputs: DistillInputs, watch: Watch) -> DistillReport:
    """Start a run of the deployment, wait for it, take from the store what it trained."""
    full = with_full_paths(config)
    parameters = {"config": full.model_dump(mode="json"), "inputs": keep_inputs(config, inputs)}
    name = config.compute.distill_deployment
    started: Any = run_deployment(name, parameters=parameters, timeout=0, flow_run_name=f"distill {config.name}")
    with get_client(sync_client=True) as client:
        try:
            ended = _waited(client, started, watch)
        except BaseException:
            # Nobody waits for it any more; a server that is gone is told nothing.
            with suppress(httpx.HTTPError):
                client.set_flow_run_state(started.id, Cancelling())
            raise
    state = ended.state
    what = f"run {ended.name!r} of {name}"
    if state is None or state.type in (StateType.CANCELLED, StateType.CRASHED):
        raise TransientError(what, f"ended {state.name if state else 'without a state'}; run again, the rest is kept")
    if state.type is not StateType.COMPLETED:
        said = " ".join((state.message or "").split())[:500]
        raise StudentError(what, f"{state.name}: {said}", "a trained student", "see its log in Prefect")
    if report := find_student(config, inputs.texts, inputs.annotated):
        return report
    step = "set store.uri to a place that both can reach, such as s3://, and deploy the same version of candist"
    raise StudentError(what, "no student of its in the store", "one in a store that both share", step)


def _waited(client: SyncPrefectClient, run: FlowRun, watch: Watch) -> FlowRun:
    since, is_told = time.monotonic(), False
    while True:
        run = client.read_flow_run(run.id)
        if run.state is not None and run.state.is_final():
            return run
        if not is_told and run.start_time is None and time.monotonic() - since > _SILENT_S:
            is_told = True
            watch.say(f"distill: no worker has taken up run {run.name!r} yet; start one for its work pool")
        watch.tick()
        time.sleep(_POLL_S)
