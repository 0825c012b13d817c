"""The private Prefect server, started for real in processes whose environment the test holds in its hand."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.server import quiet_environment
from tests.flows.corpora import demo_config, write_config

ROOT = Path(__file__).parents[2]

PRELUDE = """
import json, os, sys, time
from pathlib import Path
from flows.server import private_server, quiet_environment
os.environ.update(quiet_environment())
"""

SIXTY_TASKS = """
import httpx
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

@task
def double(i):
    return 2 * i

@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def doubled():
    return sum(future.result() for future in [double.submit(i) for i in range(60)])

with private_server() as url:
    total, completed, inherited = doubled(), 0, os.environ["PREFECT_API_URL"]
    wanted = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    until = time.monotonic() + 30
    while completed < 60 and time.monotonic() < until:
        completed = httpx.post(url + "/task_runs/count", json=wanted, trust_env=False).json()
        time.sleep(0.1)
    everything = httpx.post(url + "/task_runs/count", json={}, trust_env=False).json()
after = os.environ.get("PREFECT_API_URL")
print(json.dumps([total, completed, everything, inherited == url, after, url]))
"""

SLEEP = """
with private_server() as url:
    print(url, flush=True)
    time.sleep(120)
"""

ONLY_START = """
from candist_core.errors import TransientError
try:
    with private_server() as url:
        print(url)
except TransientError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the module's own, so that the migrations run once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def environment(tmp_path: Path, cache: Path) -> dict[str, str]:
    """A user's environment with nothing of this one's Prefect; home and temporary folder are below `tmp_path`."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    ours = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp", "XDG_CACHE_HOME": cache, "PYTHONPATH": ROOT}
    return kept | {name: str(value) for name, value in ours.items()}


def run(script: str, environment: dict[str, str], cwd: Path) -> tuple[list[str], str]:
    """Lines of stdout, and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.stdout.splitlines(), done.stderr


def is_answering(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def is_soon(claim: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not (held := claim()) and time.monotonic() < until:
        time.sleep(0.05)
    return held


@pytest.mark.flow
def test_all_sixty_thread_tasks_are_recorded_and_the_user_s_prefect_is_left_alone(environment, tmp_path):
    precious = tmp_path / "precious.db"
    environment |= {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{precious}",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    (tmp_path / "prefect.toml").write_text("[server.database]\nconnection_url = 'postgresql://nowhere.invalid/x'\n")
    out, noise = run(SIXTY_TASKS, environment, tmp_path)
    assert noise == ""
    total, completed, everything, is_inherited, after, url = json.loads(out[-1])
    assert (total, completed, everything) == (60 * 59, 60, 60)
    assert is_inherited
    assert after is None
    assert not is_answering(url)
    assert not precious.exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


@pytest.mark.flow
def test_the_server_of_a_killed_process_is_gone_with_its_files_within_two_seconds(environment, tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + SLEEP], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with parent:
        url = parent.stdout.readline().strip()
        assert is_answering(url)
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        parent.kill()
    assert is_soon(lambda: not is_answering(url) and not any((tmp_path / "tmp").iterdir()), within_s=2.0)


@pytest.mark.flow
def test_a_broken_template_costs_one_start_and_no_more(environment, tmp_path):
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    (first,), _ = run(ONLY_START, environment, tmp_path)
    assert first.startswith("http://127.0.0.1:")
    (template,) = (tmp_path / "cache" / "candist").iterdir()
    template.write_bytes(b"no database" * 1000)
    (sentence,), noise = run(ONLY_START, environment, tmp_path)
    assert sentence == (
        "the private Prefect server did not start: sqlalchemy.exc.DatabaseError: (sqlite3.DatabaseError) file is not "
        "a database; run again, or set PREFECT_API_URL to a server of yours"
    )
    assert noise == ""
    assert not template.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["environment", "profile"])
def test_a_configured_api_is_yielded_and_nothing_is_started(environment, tmp_path, prefect_server, place):
    if place == "environment":
        environment["PREFECT_API_URL"] = prefect_server
    else:
        (tmp_path / "home" / ".prefect").mkdir()
        profiles = f'active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "{prefect_server}"\n'
        (tmp_path / "home" / ".prefect" / "profiles.toml").write_text(profiles)
    out, _ = run(ONLY_START, environment, tmp_path)
    assert out == [prefect_server]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_quiet_environment_says_what_to_set_and_sets_nothing():
    before = dict(os.environ)
    quiet = quiet_environment()
    assert quiet["DO_NOT_TRACK"] == "1"
    assert quiet["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert all(isinstance(value, str) for value in quiet.values())
    quiet["DO_NOT_TRACK"] = "0"
    assert quiet_environment()["DO_NOT_TRACK"] == "1"
    assert dict(os.environ) == before


def test_a_configured_server_that_is_not_there_is_one_sentence(tmp_path):
    path = write_config(tmp_path, demo_config(tmp_path, n=4))
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "run", str(path), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("candist: Prefect server at http://127.0.0.1:9/api: no answer (ConnectError); start it")
