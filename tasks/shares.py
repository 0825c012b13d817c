"""How a running shard learns its part of the run's limits, and that it is to stop.

Each running shard holds one lease of a Dask semaphore named after the flow run: the number of leases is the number of
shards that ask now, on whatever worker, and a shard's part is one over it. Nobody hands parts out, so none can go
stale. A shard that starts counts itself first and the others make room within half a second; they take the place of
one that ended in the half second after, if no other shard has. A part of zero means that nobody waits for this shard
any more: its future was cancelled, the flow is gone, or its worker is closing. Dask interrupts no thread, so a shard
must look.

The lease of a worker that was killed lives on for up to 40 s (Dask's lease timeout); till then the others use less.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Semaphore, Status, Worker, get_worker

from candist_core.errors import TransientError
from candist_core.ports import ShareOf

# Leases only count; nobody ever waits for one.
_MAX_LEASES = 1_000_000
_PERIOD_S = 0.3
# One question costs the scheduler 0.12 ms (measured), so that even ten thousand shards take a quarter of its time.
_MAX_QUESTIONS_PER_S = 2000
_POLL_S = 0.1


@contextmanager
def share_of_run(run_id: str, n_expected: int = 1) -> Iterator[ShareOf]:
    """The part of a run's limits that the task which calls this may use; all of it where no Dask worker runs it.

    The callable costs microseconds: it reads a number that a thread keeps fresh. While the scheduler does not answer,
    the last number holds.

    Args:
        run_id: the flow run.
        n_expected: shards that are about to run at once; counts at first, while they start.

    Raises:
        TransientError: the scheduler does not answer at the start.

    Example:
        >>> with share_of_run("no-dask-here") as share:
        ...     share()
        1.0
    """
    try:
        worker = get_worker()
    except ValueError:  # not on a Dask worker
        yield lambda: 1.0
        return
    with _Shard(worker, run_id, n_expected) as shard:
        yield shard.share


def wanted_here() -> Callable[[], bool]:
    """How the task that calls this asks whether anybody waits for it; always so where no Dask worker runs it.

    Example:
        >>> wanted_here()()
        True
    """
    try:
        worker = get_worker()
    except ValueError:  # not on a Dask worker
        return lambda: True
    key = worker.get_current_task()
    return lambda: _is_wanted(worker, key)


def _is_wanted(worker: Worker, key: str) -> bool:
    task = worker.state.tasks.get(key)
    is_open = worker.status not in (Status.closing, Status.closed, Status.failed)
    return is_open and task is not None and task.state != "cancelled"


def end_run(client: Client, run_id: str, patience_s: float) -> None:
    """Wait until none of a run's shards asks any more, at most `patience_s`, and clear the run from the scheduler."""
    # A scheduler that is gone holds nothing that could be cleared.
    with suppress(OSError):
        leases = Semaphore(_MAX_LEASES, _name(run_id), client.scheduler, client.loop)
        deadline = time.monotonic() + patience_s
        while (n_running := leases.get_value()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not n_running:
            _clear(leases)


def _name(run_id: str) -> str:
    return f"candist-shards-{run_id}"


def _clear(leases: Semaphore) -> None:
    """Leave nothing of an unused semaphore on the scheduler, where only a registered one can be closed."""
    fresh = Semaphore(_MAX_LEASES, leases.name, leases.scheduler, leases.loop)
    fresh.register()
    fresh.close()


class _Shard:
    """One running shard: its lease, and the thread that counts the leases of all."""

    def __init__(self, worker: Worker, run_id: str, n_expected: int) -> None:
        self._worker, self._key = worker, worker.get_current_task()
        self._name = _name(run_id)
        self._leases: Any = None
        self._n_counted = self._n_running = max(1, n_expected)
        self._has_left = threading.Event()

    def share(self) -> float:
        """One over the shards that run; 0.0 once nobody wants this one."""
        return 1 / self._n_running if self._is_wanted() else 0.0

    def __enter__(self) -> "_Shard":
        if not self._is_wanted():
            return self
        try:
            self._leases = Semaphore(_MAX_LEASES, self._name)
            self._leases.acquire()
            self._count()
        except OSError as error:
            raise TransientError("Dask scheduler", "does not answer") from error
        threading.Thread(target=self._follow, name=f"share of {self._key}", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._has_left.set()
        if self._leases is None:
            return
        self._leases.release()
        # The flow clears up after itself unless it was killed; then the last of its shards does.
        with suppress(OSError):
            if not self._is_wanted() and not self._leases.get_value():
                _clear(self._leases)

    def _is_wanted(self) -> bool:
        return _is_wanted(self._worker, self._key)

    def _count(self) -> None:
        n_before, self._n_counted = self._n_counted, max(1, self._leases.get_value())
        # Most shards that end are followed at once by the next.
        self._n_running = max(n_before, self._n_counted)

    def _follow(self) -> None:
        while not self._has_left.wait(max(_PERIOD_S, self._n_running / _MAX_QUESTIONS_PER_S)) and self._is_wanted():
            # Out of reach for a while: the last number holds.
            with suppress(OSError):
                self._count()
