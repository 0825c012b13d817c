"""One private Prefect API server for a run, for those who keep none.

Prefect's own ephemeral server starts once in every Dask worker, loses task runs at its end, and outlives a killed
parent. This one is a single process on loopback that all workers find through the environment. It takes nothing from
the user's Prefect (settings, profile, database, home) and is gone, with its files, when the run is: also when the run
is killed, since the server watches its parent.
"""

import argparse
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import IO

from candist_core.errors import TransientError

START_TIMEOUT_S = 90.0
"""Measured on two busy cores: 4 to 5 s from the template database, 7 to 10 s with all migrations."""

_WATCH_S = 0.5
_STOP_S = 3.0
_LOOPBACK = "127.0.0.1"

_NO_TRACKING = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "GX_ANALYTICS_ENABLED": "false"}

_SILENCE = {
    # The console alone: the log of a run still reaches the API, where a kept server shows it.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Torch's threads else spin while they wait: beside one other busy process training took 61 s instead of 10 s.
    "OMP_WAIT_POLICY": "PASSIVE",
}

# The shipped automation marks a run as Crashed that is silent for three times as long (deployments/automations.yaml).
_SIGNS_OF_LIFE = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}

_SERVER_SETTINGS = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # Nobody reads events or streams here, and without them the database is half as large (9 of 17 MB, 500 tasks).
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}


_UI_SETTINGS = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # By the page's own origin, so that a tunnel to another port works as well.
    "PREFECT_SERVER_UI_API_URL": "/api",
}


def quiet_environment() -> dict[str, str]:
    """Environment variables of a run that prints, logs and tells nobody more than it should: Prefect, Dask, and others.

    They count only for what is imported after they are set, and for processes started after.

    Example:
        >>> quiet_environment()["DO_NOT_TRACK"]
        '1'
    """
    return _NO_TRACKING | _SILENCE | _SIGNS_OF_LIFE


@contextmanager
def private_server(home: Path | None = None) -> Iterator[str]:
    """The URL of a Prefect API: the configured one, or that of a server which lives as long as the context.

    Inside it this process and those it starts talk to that server. No server is started where `PREFECT_API_URL` is
    set, in the environment or in the Prefect profile.

    Args:
        home: where the server keeps its database; a temporary folder, removed at the end, when None.

    Raises:
        TransientError: the server did not start, its last words are in the sentence; or the configured one is silent.
    """
    from prefect.settings import PREFECT_API_URL

    if configured := PREFECT_API_URL.value():
        _require_answer(configured)
        yield configured
        return
    with ExitStack() as stack:
        folder = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candist-prefect-")))
        url = stack.enter_context(_started(folder.resolve(), is_temporary=home is None))
        stack.enter_context(_joined(url, folder.resolve()))
        yield url


def _require_answer(url: str) -> None:
    """Look for a configured server before anything is done: Prefect's own error is no sentence."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        step = (
            f"no answer ({type(error).__name__}); start it, or unset PREFECT_API_URL for a private one, and run again"
        )
        raise TransientError(f"Prefect server at {url}", step)


@contextmanager
def kept_server(home: Path, port: int = 0) -> Iterator[str]:
    """The URL of a Prefect API with its UI, events and automations on a port of loopback; any free one for 0.

    The process lives as long as the context, its database stays in `home`. Inside the context this process and those
    it starts talk to that server, whatever `PREFECT_API_URL` says.

    Raises:
        TransientError: the server did not start; its last words are in the sentence.
    """
    with _started(home.resolve(), is_temporary=False, port=port, has_ui=True) as url, _joined(url, home.resolve()):
        yield url


@contextmanager
def _joined(url: str, home: Path) -> Iterator[None]:
    """This process, and those it starts, talk to the server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    with ExitStack() as stack:
        # What Prefect stores of results it would otherwise leave in the user's home.
        ours = {PREFECT_API_URL: url, PREFECT_LOCAL_STORAGE_PATH: str(home / "storage")}
        stack.enter_context(_environment({setting.name: value for setting, value in ours.items()} | _past_proxies()))
        stack.enter_context(temporary_settings(ours))
        stack.callback(_send_what_waits)
        yield


def _send_what_waits() -> None:
    """Let Prefect's background threads deliver events and logs, which they would else report as lost."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_STOP_S, at_exit=False)


@contextmanager
def _started(home: Path, is_temporary: bool, port: int = 0, has_ui: bool = False) -> Iterator[str]:
    """Start the server in its own process, wait until it answers, end it."""
    home.mkdir(parents=True, exist_ok=True)
    database, template, log = home / "prefect.db", _template(), home / "server.log"
    is_new = not database.exists()
    is_copied = is_new and template.exists()
    if is_copied:
        shutil.copyfile(template, database)
    with log.open("wb") as words, _ended(_spawn(home, is_temporary, words, port, has_ui)) as process:
        bound = process.stdout.readline().decode().strip() if process.stdout else ""
        url = f"http://{_LOOPBACK}:{bound}/api"
        if not bound or not _answers(f"{url}/health"):
            if is_copied:
                template.unlink(missing_ok=True)
            raise TransientError(
                "the private Prefect server did not start",
                f"{_last_words(log)}; run again, or set PREFECT_API_URL to a server of yours",
            )
        if is_new and not is_copied:
            _keep_template(database, template)
        yield url


def _last_words(log: Path) -> str:
    """The last error in the server's log, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _spawn(home: Path, is_temporary: bool, words: IO[bytes], port: int, has_ui: bool) -> "subprocess.Popen[bytes]":
    arguments = ["--home", str(home), "--parent", str(os.getpid()), "--port", str(port)]
    arguments += [*(["--temporary"] if is_temporary else []), *(["--ui"] if has_ui else [])]
    # Prefect would copy its pages into its own package, which may not be writable.
    settings = _UI_SETTINGS | {"PREFECT_UI_STATIC_DIRECTORY": str(home / "ui")} if has_ui else _SERVER_SETTINGS
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    path = [str(Path(__file__).parents[1]), *filter(None, [inherited.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server", *arguments],
        env=inherited | _NO_TRACKING | settings | {"PREFECT_HOME": str(home), "PYTHONPATH": os.pathsep.join(path)},
        # Prefect also reads prefect.toml, pyproject.toml and .env of the folder that it starts in.
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=words,
        # Ctrl-C goes to the whole session; the flow still has to tell the server that it was interrupted.
        start_new_session=True,
    )


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """End the process on the way out, politely for a while."""
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    """Whether the server answers in time. It listens before it can answer, so one patient request is enough."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=START_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _past_proxies() -> dict[str, str]:
    """Where a proxy is set, Prefect's client would ask it for the server on loopback."""
    names = ("NO_PROXY", "no_proxy")
    excluded = ",".join([*filter(None, map(os.environ.get, names)), _LOOPBACK])
    return dict.fromkeys(names, excluded)


def _template() -> Path:
    """A migrated, empty database of this Prefect version: its 114 migrations take longer than all else together."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "candist" / f"prefect-{version('prefect')}.db"


def _keep_template(database: Path, template: Path) -> None:
    """Put a copy of a fresh database where the next server finds it; where that fails it just starts slower."""
    scratch = template.with_suffix(f".{os.getpid()}")
    with suppress(OSError, sqlite3.Error):
        template.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(scratch)) as target:
            source.backup(target)
        scratch.replace(template)


def main() -> None:
    """Serve the Prefect API on a port of loopback, write the port to stdout, end with the parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--temporary", action="store_true")
    parser.add_argument("--ui", action="store_true")
    given = parser.parse_args()
    threading.Thread(target=_watch, args=(given.parent, given.home, given.temporary), daemon=True).start()
    listening = socket.create_server((_LOOPBACK, given.port))
    print(listening.getsockname()[1], flush=True)
    # Nobody reads the pipe from here on.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=not given.ui)
    settings = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    uvicorn.Server(settings).run(sockets=[listening])


def _watch(parent: int, home: Path, is_temporary: bool) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    if is_temporary:
        shutil.rmtree(home, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
