"""The Dask clusters that a run makes: workers on this machine, or those of any cluster class."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dask
import distributed
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from candist_core.compute_config import ComputeConfig
from candist_core.errors import ConfigError

# Great Expectations, polars and torch in one process took 0.9 GB on the sample corpus; texts come on top.
_WORKER_BYTES = 2 * 2**30


def local_size(compute: ComputeConfig, cores: int = CPU_COUNT, memory_bytes: int = MEMORY_LIMIT) -> tuple[int, int]:
    """Workers on this machine, and threads of each.

    Args:
        compute: what the user set.
        cores: that this process may use.
        memory_bytes: that this process may use.

    Example:
        >>> local_size(ComputeConfig(), cores=8, memory_bytes=64 * 2**30)
        (8, 1)
        >>> local_size(ComputeConfig(), cores=8, memory_bytes=5 * 2**30)
        (2, 4)
    """
    n_workers = compute.workers or max(1, min(cores, memory_bytes // _WORKER_BYTES))
    n_threads = compute.threads or (1 if compute.workers else max(1, cores // n_workers))
    return n_workers, n_threads


def make_cluster(
    workers: int, processes: bool, threads: int = 1, scale: tuple[int, int] | None = None
) -> distributed.LocalCluster:
    """A local cluster on loopback.

    A worker process is started anew by its nanny when it dies. The dashboard takes any free port: `None` would
    still open 8787.

    Args:
        workers: to start.
        processes: whether they are processes, or else threads of this one.
        threads: of each.
        scale: fewest and most workers, where their number follows the work.
    """
    environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
    # Dask has glibc hand back memory at every turn, which made training twice as slow (measured: 36 s against 20 s).
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}), _deaf_children():
        cluster = distributed.LocalCluster(
            n_workers=scale[0] if scale else workers,
            threads_per_worker=threads,
            processes=processes,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )
        if scale:
            cluster.adapt(minimum=scale[0], maximum=scale[1])
        return cluster


def make_any_cluster(
    cluster_class: str, arguments: Mapping[str, Any], workers: int | None, scale: tuple[int, int] | None
) -> Any:
    """A cluster of any class, scaled.

    Args:
        cluster_class: dotted path of the class.
        arguments: by name.
        workers: to ask for; the class's own number when None.
        scale: fewest and most workers, where their number follows the work.

    Raises:
        ConfigError: no such class, or it does not take the arguments.
    """
    make, wanted = _find(cluster_class), "arguments that it takes"
    try:
        cluster = make(**arguments)
        if scale:
            cluster.adapt(minimum=scale[0], maximum=scale[1])
        elif workers:
            cluster.scale(workers)
    except Exception as error:
        # What classes of others raise is not known; the sentence holds the kind and its words.
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        thing = f"compute.cluster_class {cluster_class}"
        raise ConfigError(thing, found, wanted, "change compute.cluster_args") from error
    return cluster


def _find(cluster_class: str) -> Any:
    module, _, name = cluster_class.rpartition(".")
    thing = f"compute.cluster_class {cluster_class}"
    try:
        found = getattr(import_module(module), name, None)
    except ImportError as error:
        step = f"install the package that holds {module}, on the machine of the flow"
        raise ConfigError(thing, f"no module {error.name!r}", "an installed class", step) from error
    if not callable(found):
        raise ConfigError(thing, f"no {name!r} in {module}", "a cluster class", "correct its path")
    return found


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
