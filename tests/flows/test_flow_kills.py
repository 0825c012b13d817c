"""Kill -9 of a whole run, as a process of its own: no reply is lost, little is paid twice, and no byte differs.

Three kills by default, twenty with CANDIST_FULL=1 (`make test-full`).
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from candist_core.config import Location, load_config
from candist_core.edges.store import open_store
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.versions import Version, scan_version
from candist_core.versions import list_versions, read_manifest
from flows.clusters import make_cluster
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config
from tests.student.conftest import tiny_bert as tiny_bert

pytestmark = pytest.mark.flow

N_KILLS = 20 if os.environ.get("CANDIST_FULL") == "1" else 3
KINDS = ("flow", "group", "worker")
N_TEXTS, SHARD_ROWS, IN_FLIGHT, LATENCY_S = 400, 50, 8, 0.05
# The last kill comes while so many texts are still to be asked.
N_SPARED = 60
# A killed run sends nothing more after this.
SILENT_AFTER_S = 10.0


class Run:
    """`candist run` as a process in a session of its own."""

    def __init__(self, config_path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(config_path), "--yes", "--quiet"],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave no process, however a test ends."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def wait_until_asked(self, server: ChatServer, n: int) -> None:
        """Come back when the server has been asked n times more than now."""
        deadline, n = time.monotonic() + 90, n + len(server.requests)
        while len(server.requests) < n:
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def kill(self, kind: str, chance: random.Random) -> None:
        """SIGKILL to the flow's process, to one of its workers, or to all at once; but for the second nothing is left.

        What runs no longer sends nothing, so the silence need not be waited for.
        """
        if kind == "worker":
            os.kill(chance.choice(self._wait_for_workers()), signal.SIGKILL)
            return
        killed_at = time.monotonic()
        if kind == "group":
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        while left := running_in(self._process.pid):
            assert time.monotonic() < killed_at + SILENT_AFTER_S, f"processes {left} outlived their flow"
            time.sleep(0.05)

    def finish(self) -> None:
        """Let it come to its end, which has to be a good one."""
        said = self._process.communicate(timeout=120)[1]
        assert self._process.returncode == 0, said

    def _wait_for_workers(self) -> list[int]:
        """Process ids of the workers; none are there while one that was killed before is started again."""
        deadline = time.monotonic() + 90
        while not (pids := self._worker_pids()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return pids

    def _worker_pids(self) -> list[int]:
        children = psutil.Process(self._process.pid).children()
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


def running_in(session: int) -> list[int]:
    """Processes of a session that are no zombies."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def recorded_answers() -> dict[str, str]:
    """What the recorded teacher said, by text."""
    replies = {row["id"]: row["reply"] for row in demo_replies(N_TEXTS)}
    return {row["text"]: replies[row["id"]] for row in demo_rows(N_TEXTS)}


def configured(folder: Path, server: ChatServer, student: Path, **compute: Any) -> Path:
    folder.mkdir()
    teacher = {
        "kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
        "max_in_flight": IN_FLIGHT,
    }  # fmt: skip
    config = demo_config(
        folder,
        n=N_TEXTS,
        epochs=1,
        source={"shard_rows": SHARD_ROWS},
        teacher=teacher,
        student={"model": str(student), "max_tokens": 32},
        # This student is made of chance and knows no label.
        checks={"min_agreement": 0.0},
        compute={"workers": 2, "processes": True, **compute},
    )
    return write_config(folder, config)


def annotate_here(path: Path) -> None:
    """All shards of a run one after the other in this process, as fast as it goes."""
    config = load_config(path, ("teacher.max_in_flight=64",))
    plan = plan_annotation(config)
    reports = [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]
    assert sum(report.usage.n_requests + report.usage.n_reused for report in reports) == N_TEXTS


def annotations_of(path: Path) -> dict[str, bytes]:
    """The stored tables of annotations and rejects, by name."""
    return {table.name: table.read_bytes() for table in (path.parent / "work" / "annotations").iterdir()}


def test_killed_runs_pay_twice_for_what_was_in_flight_at_most_and_end_in_the_bytes_of_an_undisturbed_one(
    tmp_path, prefect_server, tiny_bert, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", "k")
    answers, chance = recorded_answers(), random.Random(23)
    n_between = (N_TEXTS - N_SPARED) // N_KILLS
    with ChatServer(answer=lambda body: answers[user_text(body)], latency_s=LATENCY_S) as server, ExitStack() as runs:
        path = configured(tmp_path / "killed", server, tiny_bert)
        run = None
        for i in range(N_KILLS):
            kind = KINDS[i % len(KINDS)]
            run = run or runs.enter_context(Run(path))
            run.wait_until_asked(server, chance.randrange(1, n_between))
            run.kill(kind, chance)
            assert len(server.counts) < N_TEXTS, f"kill {i}, of a {kind}, came when all was asked"
            # Who loses a worker goes on by itself.
            run = run if kind == "worker" else None
        (run or runs.enter_context(Run(path))).finish()
        n_twice = server.counts.total() - N_TEXTS
        assert len(server.counts) == N_TEXTS
        # What was in flight is asked again, so kills that cost nothing were none.
        assert 1 <= n_twice <= N_KILLS * IN_FLIGHT
        assert max(server.counts.values()) <= 1 + N_KILLS
        assert server.max_in_flight <= IN_FLIGHT
    with ChatServer(answer=lambda body: answers[user_text(body)]) as server:
        undisturbed = configured(tmp_path / "undisturbed", server, tiny_bert)
        annotate_here(undisturbed)
        assert set(server.counts.values()) == {1}
    assert annotations_of(path) == annotations_of(undisturbed)
    config = load_config(path)
    store = open_store(Location(uri=config.publish.uri))
    assert list_versions(store, config.dataset) == [1]
    assert scan_version(Version(read_manifest(store, config.dataset, 1), store)).collect().height == N_TEXTS


def test_on_a_cluster_of_someone_else_the_shards_of_a_killed_flow_stop_asking_and_nothing_is_paid_twice(
    tmp_path, prefect_server, tiny_bert, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", "k")
    answers = recorded_answers()
    with (
        make_cluster(workers=2, processes=False) as cluster,
        ChatServer(answer=lambda body: answers[user_text(body)], latency_s=0.2) as server,
    ):
        path = configured(tmp_path / "run", server, tiny_bert, address=cluster.scheduler_address)
        with Run(path) as run:
            run.wait_until_asked(server, 30)
            run.kill("flow", random.Random())
        killed_at, leases = time.monotonic(), cluster.scheduler.extensions["semaphores"]
        # A shard holds a lease for as long as it asks.
        while leases.leases or leases.max_leases:
            assert time.monotonic() < killed_at + SILENT_AFTER_S
            time.sleep(0.05)
        asked = len(server.requests)
        assert 30 <= asked < 100, "each of the two shards has 50"
        annotate_here(path)
    assert len(server.counts) == N_TEXTS
    # The workers live on: what was under way came back and was kept.
    assert set(server.counts.values()) == {1}
