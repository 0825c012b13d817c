"""A Prefect worker for processes of this machine, as a process that ends with the one that started it."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_WATCH_S = 0.5
# What a flow that is told to end may take to bring its replies into the store.
_PATIENCE_S = 12.0


@contextmanager
def started_worker(pool: str, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of a pool; its words are in `home/worker.log`.

    On the way out its flows are told to end, and within seconds nothing of it runs any more.
    """
    with (home / "worker.log").open("ab") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.worker", "--pool", pool, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            # Ctrl-C goes to the whole session; here one process answers for all.
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            end_family(process.pid)


def end_family(pid: int) -> None:
    """End a process and all that it started: its children politely, then, after a while, all that is left."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = parent.children(recursive=True)
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(family, timeout=_PATIENCE_S)
        # Prefect's worker was seen to live on for an hour after a SIGTERM; it has nothing left to lose.
        for member in (*family, *parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                member.kill()


def main() -> None:
    """Run the flows of a pool until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    threading.Thread(target=_watch, args=(given.parent,), daemon=True).start()

    from prefect.workers.process import ProcessWorker

    asyncio.run(ProcessWorker(work_pool_name=given.pool, create_pool_if_not_found=False).start())


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
