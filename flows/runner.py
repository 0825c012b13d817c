"""Where the work runs: from `ComputeConfig` to the Dask cluster behind a flow's task runner.

The cluster starts with the first task that is submitted, so a run that finds everything done starts none.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
import distributed
from prefect.context import FlowRunContext
from prefect_dask import DaskTaskRunner
from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.config import ComputeConfig
from candist_core.errors import ConfigError, TransientError
from tasks.progress import TOPIC, from_event

_POLL_S = 0.1


def make_cluster(workers: int, processes: bool) -> distributed.LocalCluster:
    """A local cluster of one-threaded workers on loopback.

    A worker process is started anew by its nanny when it dies. The dashboard takes any free port: `None` would
    still open 8787.
    """
    environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
    # Dask has glibc hand back memory at every turn, which made training twice as slow (measured: 36 s against 20 s).
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}), _deaf_children():
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=processes,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C: the terminal sends it to all, the flow answers for all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Cluster:
    """The cluster of the running flow, connected when first asked for."""

    def __init__(self, compute: ComputeConfig, on_progress: Callable[[Any], None]) -> None:
        context = FlowRunContext.get()
        if context is None or not isinstance(context.task_runner, DaskTaskRunner):
            raise TypeError("a Cluster belongs to a running flow whose task runner is a DaskTaskRunner")
        self._runner, self._compute, self._on_progress = context.task_runner, compute, on_progress
        self._is_connected = False

    @property
    def n_slots(self) -> int:
        """Tasks that can run at once."""
        if self._compute.address is None:
            return self._compute.workers or os.cpu_count() or 1
        self.connect()
        threads: dict[str, int] = self._runner.client.nthreads()
        return max(1, sum(threads.values()))

    def connect(self) -> None:
        """Start the local cluster, or reach the one at the address.

        Raises:
            ConfigError: nothing answers at the address.
        """
        if self._is_connected:
            return
        if self._compute.address is None:
            self._runner.cluster_class = make_cluster
            self._runner.cluster_kwargs = {"workers": self.n_slots, "processes": self._compute.processes}
        else:
            self._runner.address = self._compute.address
        try:
            client = self._runner.client
        except OSError as error:
            raise ConfigError(
                "compute.address",
                f"no Dask scheduler at {self._compute.address}",
                "a running one",
                "start it with `dask scheduler`, or leave compute.address empty for a local cluster",
            ) from error
        client.subscribe_topic(TOPIC, lambda event: self._on_progress(from_event(event)))
        self._is_connected = True


def run_window(
    submit: Callable[[int], PrefectDaskFuture[Any]],
    todo: Sequence[int],
    window: int,
    on_result: Callable[[int, Any], Sequence[int]],
    tick: Callable[[], None],
) -> None:
    """Run numbered pieces of work, at most `window` submitted at once.

    Args:
        submit: starts piece i and returns its future.
        todo: the pieces.
        window: Dask and Prefect see no more than this many at a time.
        on_result: takes the result of piece i; returns pieces to run (again).
        tick: called while waiting.

    Raises:
        CandistError: the first error that concerns the whole run; nothing new is started after it.
        TransientError: pieces that failed after their retries, once all the others have ended.
    """
    waiting, running, failed = list(todo), dict[int, PrefectDaskFuture[Any]](), dict[int, Exception]()
    fatal: Exception | None = None
    while (waiting and fatal is None) or running:
        while waiting and fatal is None and len(running) < window:
            i = waiting.pop(0)
            running[i] = submit(i)
        tick()
        ended = [i for i, future in running.items() if future.wrapped_future.done()]
        if not ended:
            time.sleep(_POLL_S)
        for i in ended:
            outcome = running.pop(i).result(raise_on_failure=False)
            if isinstance(outcome, TransientError):
                failed[i] = outcome
            elif isinstance(outcome, Exception):
                fatal = fatal or outcome
            else:
                waiting.extend(on_result(i, outcome))
    if fatal is not None:
        raise fatal
    if failed:
        first = min(failed)
        raise TransientError(
            f"{len(failed)} of {len(todo)} shards failed",
            f"shard {first}: {failed[first]}; run again, the rest is kept",
        )
