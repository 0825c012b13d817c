"""Where the work runs: from `ComputeConfig` to the Dask cluster behind a flow's task runner.

The cluster starts with the first task that is submitted, so a run that finds everything done starts none.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask
import distributed
from prefect.context import FlowRunContext
from prefect_dask import DaskTaskRunner

from candist_core.config import ComputeConfig
from candist_core.errors import ConfigError
from tasks.progress import TOPIC, from_event
from tasks.shares import end_run

# Workers come and go in minutes; asking a scheduler for them takes a millisecond.
_SLOTS_EVERY_S = 2.0
# What a stopped shard may take to bring its replies into the store; after that a person waits for nothing.
_PATIENCE_S = 10.0


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
        self.run_id = str(context.flow_run.id) if context.flow_run else ""
        self._is_connected = False
        self._n_slots, self._counted_at = 1, -math.inf

    @property
    def n_slots(self) -> int:
        """Tasks that can run at once, as of two seconds ago."""
        if self._compute.address is None:
            return self._compute.workers or os.cpu_count() or 1
        if time.monotonic() - self._counted_at >= _SLOTS_EVERY_S:
            self.connect()
            self._counted_at = time.monotonic()
            # Where the scheduler is gone the futures tell.
            with suppress(OSError):
                self._n_slots = max(1, sum(self._runner.client.nthreads().values()))
        return self._n_slots

    @contextmanager
    def counted_run(self) -> Iterator[None]:
        """When the block is left, none of the shards that share the run's limits asks any more."""
        try:
            yield
        finally:
            if self._is_connected and self._runner.client.status == "running":
                end_run(self._runner.client, self.run_id, _PATIENCE_S)

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
