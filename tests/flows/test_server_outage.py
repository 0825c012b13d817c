"""Prefect's server away in the middle of a run: 10 s by default, a minute with CANDIST_FULL=1 (`make test-full`)."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.versions import list_versions, read_manifest
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config

pytestmark = pytest.mark.flow
ROOT = Path(__file__).parents[2]
AWAY_S = 60.0 if os.environ.get("CANDIST_FULL") == "1" else 10.0
SERVE = """
import sys, uvicorn
from prefect.server.api.server import create_app
uvicorn.run(create_app(ephemeral=True), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


class Server:
    """A Prefect server on a fixed port that can be killed and started again with the same database."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        home.mkdir()
        settings = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        self._environment, self._home = inherited | settings, home
        self.url = f"http://127.0.0.1:{self.port}/api"

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.port)], env=self._environment, cwd=self._home
        )
        deadline = time.monotonic() + 90
        while not self._is_answering():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _is_answering(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except OSError:
            return False


def test_a_run_outlives_an_absence_of_prefect_s_server_and_pays_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    replies = {row["id"]: row["reply"] for row in demo_replies(200)}
    said = {row["text"]: replies[row["id"]] for row in demo_rows(200)}

    def answer(body: dict[str, Any]) -> str:
        return said[user_text(body)]

    with ChatServer(answer=answer, latency_s=0.2) as teacher, Server(tmp_path / "prefect") as server:
        config = demo_config(
            tmp_path,
            n=200,
            source={"shard_rows": 20},
            teacher={
                "kind": "openai", "base_url": teacher.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
                "max_in_flight": 4,
            },
        )  # fmt: skip
        run = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(write_config(tmp_path, config)), "--yes", "--quiet"],
            cwd=ROOT,
            env=os.environ | {"PREFECT_API_URL": server.url},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            deadline = time.monotonic() + 90
            while len(teacher.requests) < 50:
                assert run.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.kill()
            time.sleep(AWAY_S)
            server.start()
            said_last = run.communicate(timeout=240)[1]
        finally:
            run.kill()
            run.wait()
        assert run.returncode == 0, said_last[-2000:]
        assert set(teacher.counts.values()) == {1}
    store = open_store(Location(uri=config.publish.uri))
    assert list_versions(store, config.dataset) == [1]
    assert read_manifest(store, config.dataset, 1).counts.rows == 200
