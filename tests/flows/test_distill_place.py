"""The student trained where `compute.distill` says, on real Dask workers and by a real deployment."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster, SchedulerPlugin, Worker
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from candist_core.config import RunConfig
from candist_core.errors import ConfigError, StoreError, StudentError
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.distill import find_student
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.lesson import DistillInputs, keep_inputs, read_inputs, with_full_paths
from candist_core.stages.plan import plan_annotation
from flows.clusters import make_cluster
from flows.label_corpus import label_corpus
from tests.flows.corpora import demo_config

ROOT = Path(__file__).parents[2]


def inputs_of(config: RunConfig) -> DistillInputs:
    """The inputs of a training, made in this process."""
    plan, corpus = plan_annotation(config), ingest_corpus(config)
    return DistillInputs(texts=corpus.texts, annotated=tuple(annotate_shard(plan, shard) for shard in corpus.texts))


@contextmanager
def gpu_cluster(n_plain: int = 1) -> Iterator[LocalCluster]:
    """Workers without anything, and one named `gpu` that holds one unit of the resource GPU."""
    with make_cluster(workers=n_plain, processes=False) as cluster:
        cluster.worker_spec["gpu"] = {"cls": Worker, "options": {"nthreads": 2, "resources": {"GPU": 1}}}
        cluster.sync(cluster._correct_state)
        yield cluster


class Seen(SchedulerPlugin):
    """Which workers have ended tasks, by the task's kind."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._scheduler = cluster.scheduler
        self.workers: dict[str, set[str]] = {}
        cluster.scheduler.add_plugin(self)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        if (start, finish) == ("processing", "memory"):
            name = str(self._scheduler.workers[kwargs["worker"]].name)
            self.workers.setdefault(str(key).split("-")[0], set()).add(name)


@pytest.mark.flow
def test_a_student_is_trained_and_asked_on_the_worker_with_a_gpu_and_nowhere_else(tmp_path, prefect_server):
    with gpu_cluster() as cluster:
        seen = Seen(cluster)
        config = demo_config(
            tmp_path, n=200, compute={"address": cluster.scheduler_address, "distill": "dask"},
        )  # fmt: skip
        published = label_corpus(config)
    assert (seen.workers["distill_student"], seen.workers["predict_group"]) == ({"gpu"}, {"gpu"}), seen.workers
    assert published.manifest.student.n_train > 0


@pytest.mark.flow
def test_without_a_worker_that_holds_a_gpu_the_run_ends_in_a_sentence_before_anything_is_asked(
    tmp_path, prefect_server
):
    config = demo_config(tmp_path, n=40, compute={"distill": "dask"})
    with pytest.raises(ConfigError, match=r"no worker with the resource GPU among 2, .*set compute\.distill to local"):
        label_corpus(config)
    assert not (tmp_path / "work" / "annotations").exists()


SERVE = """
from flows.distill_student import distill_student
distill_student.serve(name="distill-student", print_starting_message=False)
"""


@pytest.fixture
def deployment(tmp_path: Path, prefect_server: str) -> Iterator[str]:
    """The deployment `distill-student/distill-student`, served by a process in a folder of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    name, deadline = "distill-student/distill-student", time.monotonic() + 60
    try:
        with get_client(sync_client=True) as client:
            while not _is_deployed(client, name):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield name
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            member.kill()
        process.wait()
        with get_client(sync_client=True) as client:
            client.delete_deployment(client.read_deployment_by_name(name).id)


def _is_deployed(client: Any, name: str) -> bool:
    try:
        client.read_deployment_by_name(name)
    except ObjectNotFound:
        return False
    return True


@pytest.mark.flow
def test_a_deployment_trains_the_student_that_this_process_would(tmp_path, deployment, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A relative store means another place in the folder of the deployment.
    config = demo_config(tmp_path, n=120, store={"uri": "work"}, compute={"distill": "deployment"})
    published = label_corpus(config)
    (tmp_path / "local").mkdir()
    here = label_corpus(demo_config(tmp_path / "local", n=120))
    theirs, ours = published.manifest.student, here.manifest.student
    assert theirs.key == ours.key
    assert {file.sha256 for file in theirs.files} == {file.sha256 for file in ours.files}
    assert set(theirs.model_dump()) == set(ours.model_dump())


@pytest.mark.flow
def test_a_training_that_fails_elsewhere_tells_its_sentence_here(tmp_path, deployment):
    config = demo_config(
        tmp_path, n=120, student={"model": str(tmp_path / "no-such")}, compute={"distill": "deployment"}
    )
    with pytest.raises(StudentError, match=r"distill-student.*Failed.*no-such"):
        label_corpus(config)


@pytest.mark.flow
def test_a_deployment_that_is_not_there_ends_the_run_before_anything_is_asked(tmp_path, prefect_server):
    config = demo_config(
        tmp_path, n=40, compute={"distill": "deployment", "distill_deployment": "distill-student/nowhere"}
    )
    with pytest.raises(ConfigError, match=r"distill-student/nowhere: found no such deployment at http://127"):
        label_corpus(config)
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_the_inputs_of_a_training_come_back_from_the_store_as_they_were(tmp_path):
    config = demo_config(tmp_path, n=40)
    inputs = inputs_of(config)
    path = keep_inputs(config, inputs)
    assert read_inputs(config, path) == inputs
    assert find_student(config, inputs.texts, inputs.annotated) is None


def test_inputs_that_are_none_are_one_sentence(tmp_path):
    config = demo_config(tmp_path, n=1)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "x.json").write_text('{"texts": 1}')
    with pytest.raises(StoreError, match=r"found no inputs of a training"):
        read_inputs(config, "x.json")
    with pytest.raises(StoreError):
        read_inputs(config, "../corpus.jsonl")


def test_another_process_is_told_full_paths_and_buckets_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = demo_config(tmp_path, n=1, store={"uri": "work"}, audit={"uri": "s3://bucket/audit.csv"})
    full = with_full_paths(config)
    assert full.store.uri == str(tmp_path / "work")
    assert full.audit.uri == "s3://bucket/audit.csv"
    assert with_full_paths(demo_config(tmp_path, n=1)).audit.uri is None
