"""Clusters that a run makes or reaches, with real processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from candist_core.compute_config import ComputeConfig
from candist_core.errors import ConfigError, TransientError
from flows.clusters import local_size, make_any_cluster, make_cluster
from flows.label_corpus import label_corpus
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows

ROOT = Path(__file__).parents[2]
GIB = 2**30


@pytest.mark.parametrize(
    ("settings", "cores", "memory_gib", "size"),
    [
        ({}, 2, 24, (2, 1)),
        ({}, 64, 16, (8, 8)),
        ({}, 4, 1, (1, 4)),
        ({"workers": 3}, 2, 1, (3, 1)),
        ({"workers": 1, "threads": 6}, 2, 64, (1, 6)),
        ({"threads": 2}, 8, 64, (8, 2)),
    ],
)
def test_workers_go_by_cores_and_memory_where_nothing_is_set(settings, cores, memory_gib, size):
    assert local_size(ComputeConfig(**settings), cores, memory_gib * GIB) == size


@pytest.mark.slow
def test_any_cluster_class_is_made_with_its_arguments_and_scaled():
    arguments = {
        "n_workers": 0, "processes": False, "threads_per_worker": 2, "host": "127.0.0.1",
        "protocol": "tcp://", "dashboard_address": "127.0.0.1:0",
    }  # fmt: skip
    with make_any_cluster("distributed.LocalCluster", arguments, workers=2, scale=None) as cluster:
        assert isinstance(cluster, LocalCluster)
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=20)
            assert sorted(client.nthreads().values()) == [2, 2]


@pytest.mark.slow
def test_an_adaptive_cluster_grows_with_the_work_and_shrinks_after_it():
    with make_cluster(1, processes=False, scale=(0, 3)) as cluster, Client(cluster, set_as_default=False) as client:
        assert len(client.nthreads()) == 0
        futures = client.map(time.sleep, [0.5] * 30, pure=False)
        deadline = time.monotonic() + 30
        while len(client.nthreads()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.gather(futures)
        assert len(client.nthreads()) <= 3


@pytest.mark.parametrize(
    ("path", "arguments", "sentence"),
    [
        ("no_such_package.Cluster", {}, r"found no module 'no_such_package'.*install the package"),
        ("distributed.NoSuchCluster", {}, r"found no 'NoSuchCluster' in distributed"),
        (
            "distributed.SpecCluster",
            {"n_wrokers": 1},
            r"SpecCluster: found TypeError: .*change compute\.cluster_args",
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_one_sentence(path, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_any_cluster(path, arguments, None, None)


@contextmanager
def started(*arguments: str, path: str = str(ROOT)) -> Iterator[subprocess.Popen[bytes]]:
    """A `dask` command as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def scheduler(port: int) -> Any:
    return started("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")


def worker(port: int, path: str = str(ROOT)) -> Any:
    options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "60")
    return started("dask_worker", f"tcp://127.0.0.1:{port}", *options, path=path)


def wait_for_workers(port: int, n: int) -> None:
    with Client(f"tcp://127.0.0.1:{port}", set_as_default=False, timeout=60) as client:
        client.wait_for_workers(n, timeout=60)


@pytest.mark.flow
def test_a_worker_with_another_version_of_candist_is_told_before_any_work_starts(tmp_path, prefect_server):
    old = tmp_path / "old" / "candist-0.0.9.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: candist\nVersion: 0.0.9\n")
    port = free_port()
    with scheduler(port), worker(port, path=f"{old.parent}:{ROOT}"):
        wait_for_workers(port, 1)
        config = demo_config(tmp_path, n=20, compute={"address": f"tcp://127.0.0.1:{port}"})
        with pytest.raises(ConfigError) as caught:
            label_corpus(config)
    assert "found candist 0.0.9, wanted candist 0.1.0; install the same requirements.lock there" in str(caught.value)
    assert not (tmp_path / "work" / "annotations").exists()


@pytest.mark.flow
def test_a_run_whose_scheduler_dies_fails_with_a_sentence_and_goes_on_with_a_new_one(
    tmp_path, prefect_server, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", "k")
    replies = {row["id"]: row["reply"] for row in demo_replies(200)}
    said = {row["text"]: replies[row["id"]] for row in demo_rows(200)}
    port, doomed = free_port(), list[subprocess.Popen[bytes]]()

    def answer(body: Any) -> str:
        if doomed and len(server.requests) >= 60:
            doomed.pop().kill()
        return said[user_text(body)]

    with ChatServer(answer=answer, latency_s=0.1) as server, ExitStack() as stack:
        teacher = {
            "kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
            "max_in_flight": 4,
        }  # fmt: skip
        config = demo_config(
            tmp_path,
            n=200,
            source={"shard_rows": 20},
            teacher=teacher,
            compute={"address": f"tcp://127.0.0.1:{port}"},
        )
        doomed.append(stack.enter_context(scheduler(port)))
        stack.enter_context(worker(port))
        wait_for_workers(port, 1)
        with pytest.raises(TransientError, match="run again, what is done is kept"):
            label_corpus(config)
        paid = len(server.requests)
        assert 60 <= paid < 200
        stack.enter_context(scheduler(port))
        stack.enter_context(worker(port))
        wait_for_workers(port, 1)
        published = label_corpus(config)
        assert published.manifest.counts.rows == 200
        # What was under way when the scheduler died may be asked again.
        assert len(server.requests) <= 200 + 4
