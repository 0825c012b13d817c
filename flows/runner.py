"""Where the work runs: from `ComputeConfig` to the Dask cluster behind a flow's task runner.

The cluster starts with the first task that is submitted, so a run that finds everything done starts none.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed.versions import get_versions
from prefect.context import FlowRunContext
from prefect_dask import DaskTaskRunner

from candist_core.compute_config import ComputeConfig, DistillOn
from candist_core.errors import ConfigError
from flows.clusters import local_size, make_any_cluster, make_cluster
from tasks.progress import TOPIC, from_event
from tasks.shares import end_run
from tasks.warm import SETTLED_S, warm_up

GPU = "GPU"
"""The Dask resource of workers that train and predict."""

# Workers come and go in minutes; asking a scheduler for them takes a millisecond.
_LOOK_EVERY_S = 2.0
# What a stopped shard may take to bring its replies into the store; after that a person waits for nothing.
_PATIENCE_S = 10.0
# Queues of SLURM and nodes of Kubernetes take their time.
_GPU_PATIENCE_S = 600.0
# What a client and its workers exchange pickled objects of.
_SAME = ("candist", "prefect", "dask", "distributed", "cloudpickle", "pydantic", "polars")


class Cluster:
    """The cluster of the running flow, connected when first asked for."""

    def __init__(self, compute: ComputeConfig, on_progress: Callable[[Any], None]) -> None:
        context = FlowRunContext.get()
        if context is None or not isinstance(context.task_runner, DaskTaskRunner):
            raise TypeError("a Cluster belongs to a running flow whose task runner is a DaskTaskRunner")
        self._runner, self._compute, self._on_progress = context.task_runner, compute, on_progress
        self.run_id = str(context.flow_run.id) if context.flow_run else ""
        self._is_connected, self._looked_at = False, -math.inf
        self._workers: Mapping[str, Any] = {}
        self._same: set[str] = set()

    @property
    def n_slots(self) -> int:
        """Tasks that can run at once, as of two seconds ago; on a cluster that follows the work, once it has grown.

        Raises:
            ConfigError: a worker has other versions than this process.
        """
        compute = self._compute
        if compute.address is None and compute.cluster_class is None:
            n_workers, n_threads = local_size(compute)
            return (compute.max_workers or n_workers) * n_threads
        self._look()
        threads = [worker["nthreads"] for worker in self._workers.values()]
        return int(max(1, sum(threads), (compute.max_workers or 0) * max(threads, default=1)))

    @property
    def n_gpus(self) -> int:
        """Units of the resource GPU on all workers, as of two seconds ago."""
        self._look()
        return int(sum(worker["resources"].get(GPU, 0) for worker in self._workers.values()))

    @contextmanager
    def on_gpus(self) -> Iterator[None]:
        """What is submitted inside runs on workers that hold the resource GPU, one task a unit."""
        with dask.annotate(resources={GPU: 1}):
            yield

    def await_gpu(self, tick: Callable[[], None]) -> None:
        """Come back once a worker holds the resource GPU; a cluster that grows is given ten minutes for it.

        Raises:
            ConfigError: none does.
        """
        grows = self._compute.cluster_class is not None
        deadline = time.monotonic() + (_GPU_PATIENCE_S if grows else 0.0)
        while not self.n_gpus:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    "compute.distill dask",
                    f"no worker with the resource {GPU} among {len(self._workers)}",
                    "one to train on",
                    f'start one with `dask worker ADDRESS --resources "{GPU}=1"`, or set compute.distill to local',
                )
            tick()
            time.sleep(_LOOK_EVERY_S)

    @contextmanager
    def counted_run(self) -> Iterator[None]:
        """When the block is left, none of the shards that share the run's limits asks any more."""
        try:
            yield
        finally:
            if self._is_connected and self._runner.client.status == "running":
                end_run(self._runner.client, self.run_id, _PATIENCE_S)

    def connect(self) -> None:
        """Start the run's cluster, or reach the one at the address.

        Raises:
            ConfigError: nothing answers at the address, the cluster class is not usable, a worker has other versions,
                or none has the GPU that training wants.
        """
        if self._is_connected:
            return
        self._choose()
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
        self._look()
        if self._compute.processes or self._compute.address or self._compute.cluster_class:
            client.run(warm_up, SETTLED_S)
            # This process only waits; what it checks at the end needs the same.
            warm_up(2 * SETTLED_S)
        if self._compute.distill is DistillOn.DASK and self._compute.cluster_class is None:
            # Told now, before anything is paid for.
            self.await_gpu(lambda: None)

    def _choose(self) -> None:
        compute = self._compute
        scale = (compute.min_workers, compute.max_workers) if compute.max_workers else None
        if compute.address is not None:
            self._runner.address = compute.address
        elif compute.cluster_class is not None:
            self._runner.cluster_class = make_any_cluster
            self._runner.cluster_kwargs = {
                "cluster_class": compute.cluster_class,
                "arguments": {argument.name: argument.parsed for argument in compute.cluster_args},
                "workers": compute.workers,
                "scale": scale,
            }
        else:
            n_workers, n_threads = local_size(compute)
            self._runner.cluster_class = make_cluster
            self._runner.cluster_kwargs = {
                "workers": n_workers,
                "processes": compute.processes,
                "threads": n_threads,
                "scale": scale,
            }

    def _look(self) -> None:
        """See which workers there are, at most every two seconds."""
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        self.connect()
        self._looked_at = time.monotonic()
        # Where the scheduler is gone the futures tell.
        with suppress(OSError):
            self._workers = self._runner.client.scheduler_info(n_workers=-1)["workers"]
            self._compare_versions()

    def _compare_versions(self) -> None:
        """Compare the versions of workers that are new with those of this process."""
        if self._compute.address is None and self._compute.cluster_class is None:
            return
        if not (new := set(self._workers) - self._same):
            return
        ours = _versions(get_versions(packages=_SAME))
        for worker, said in self._runner.client.get_versions(packages=_SAME)["workers"].items():
            theirs = _versions(said)
            if differing := [name for name in ours if theirs[name] != ours[name]]:
                pairs = [f"{name} {theirs[name] or 'not installed'}" for name in differing]
                raise ConfigError(
                    f"Dask worker {worker}",
                    " and ".join(pairs),
                    " and ".join(f"{name} {ours[name]}" for name in differing),
                    "install the same requirements.lock there as here",
                )
        self._same |= new


def _versions(said: Mapping[str, Any]) -> dict[str, str | None]:
    """Versions by package; of Python what pickles and bytecode depend on."""
    return {"python": ".".join(said["host"]["python"].split(".")[:2])} | {
        name: said["packages"][name] for name in _SAME
    }
