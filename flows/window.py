"""Shards on their way through a cluster: in groups, and never more groups at once than there are slots.

A task costs Prefect about 75 ms, 40 of them one after the other in the flow (measured), and 24 kB of its database. So
a stage takes at most `MAX_TASKS` of them whatever the corpus, a task takes minutes where there is enough to do, and
groups grow smaller towards the end, that no slot is left waiting for another.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import distributed
from distributed.client import ClosedClientError
from prefect_dask.task_runners import PrefectDaskFuture

from candist_core.errors import TransientError
from candist_core.tables import TableRef
from flows.progress import Watch
from tasks.groups import GroupResult, ShardsError, name_of_group

MAX_TASKS = 800
"""Groups in one stage: two stages have groups, and a run is to stay under 2,000 tasks."""

_TARGET_S = 120.0
# A task that takes less is mostly overhead.
_LEAST_S = 5.0
_POLL_S = 0.02

Shards = tuple[int, ...]


class Grouping:
    """How many shards the next group takes, learnt from how long the groups before took.

    Example:
        >>> grouping = Grouping()
        >>> grouping.size(n_waiting=5000, n_slots=4)
        7
        >>> grouping.learn(n_shards=7, seconds=14.0)
        >>> grouping.size(n_waiting=4993, n_slots=4), grouping.size(n_waiting=40, n_slots=4)
        (60, 5)
    """

    def __init__(self, max_tasks: int = MAX_TASKS) -> None:
        self._n_tasks_left, self._shard_s = max_tasks, 0.0

    def size(self, n_waiting: int, n_slots: int) -> int:
        """Shards in the next group, which counts as begun."""
        least = math.ceil(n_waiting / max(1, self._n_tasks_left))
        self._n_tasks_left -= 1
        if not self._shard_s:
            return max(1, least)
        even = math.ceil(n_waiting / (2 * n_slots))
        worth_a_task = min(math.ceil(_LEAST_S / self._shard_s), math.ceil(n_waiting / n_slots))
        return max(1, least, min(int(_TARGET_S / self._shard_s), max(even, worth_a_task)))

    def learn(self, n_shards: int, seconds: float) -> None:
        """Note how long a group took."""
        if n_shards:
            new_s = max(seconds / n_shards, 1e-3)
            self._shard_s = (self._shard_s + new_s) / 2 if self._shard_s else new_s


def run_window(
    submit: Callable[[Shards], PrefectDaskFuture[Any] | None],
    todo: Sequence[int],
    n_slots: Callable[[], int],
    on_result: Callable[[Shards, GroupResult[Any]], Iterable[int]],
    tick: Callable[[], None] = lambda: None,
    on_failure: Callable[[Shards], None] = lambda shards: None,
    on_end: Callable[[Shards, GroupResult[Any]], None] = lambda shards, result: None,
) -> None:
    """Run numbered shards in groups, at most as many groups at once as there are slots.

    On any way out but the last group's end, what still runs is cancelled: nobody waits for it. That interrupts no
    thread, so a task that costs money has to look (`tasks.shares`).

    Args:
        submit: starts a group of shards and returns its future; None where nothing may start before something ended.
        todo: the shards.
        n_slots: Dask and Prefect see no more groups than this at a time.
        on_result: takes what came of a group; returns shards to run (again). Shards that it did not come to are run
            again anyway.
        tick: called while waiting.
        on_failure: told of a group of which nothing came back. Its shards are run once more, each alone.
        on_end: told of every group that came back.

    Raises:
        CandistError: the first error that concerns the whole run, at once.
        TransientError: shards that failed after their retries, once all the others have ended.
    """
    window = _Window(submit, todo, n_slots, on_result, on_failure, on_end)
    try:
        while window.fill() or window.running:
            tick()
            if not window.take():
                time.sleep(_POLL_S)
    except BaseException:
        _cancel(window.running.values())
        raise
    if failed := window.failed:
        raise TransientError(
            f"{len(failed)} of {len(todo)} shards failed",
            f"shard {min(failed)}: {failed[min(failed)]}; run again, the rest is kept",
        )


def told(watch: Watch, shards: Sequence[TableRef]) -> Callable[[Shards, GroupResult[Any]], None]:
    """How `run_window` tells those who watch of each group that came back."""

    def on_end(group: Shards, result: GroupResult[Any]) -> None:
        n_failed = sum(isinstance(outcome, TransientError) for outcome in result.outcomes)
        watch.group_ended(name_of_group([shards[i] for i in group]), len(group), n_failed, result.seconds)

    return on_end


def run_alone(future: PrefectDaskFuture[Any], tick: Callable[[], None]) -> Any:
    """Wait for one task's result; on any other way out it is cancelled.

    Raises:
        CandistError: what it failed of.
    """
    try:
        while not future.wrapped_future.done():
            tick()
            time.sleep(_POLL_S)
        outcome = _outcome(future)
    except BaseException:
        _cancel([future])
        raise
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class _Window:
    """The shards that wait, the groups that run, and what failed for good."""

    def __init__(
        self, submit: Any, todo: Sequence[int], n_slots: Any, on_result: Any, on_failure: Any, on_end: Any
    ) -> None:
        self._submit, self._n_slots, self._on_result = submit, n_slots, on_result
        self._on_failure, self._on_end = on_failure, on_end
        self._waiting, self._suspects, self._grouping = deque(todo), deque[int](), Grouping()
        self._tried_alone: set[int] = set()
        self.running: dict[Shards, PrefectDaskFuture[Any]] = {}
        self.failed: dict[int, TransientError] = {}

    def fill(self) -> bool:
        """Start what may start now; whether anything did."""
        n_before = len(self.running)
        while (self._waiting or self._suspects) and len(self.running) < (n_slots := self._n_slots()):
            group = self._next(n_slots)
            if (future := self._submit(group)) is None:
                self._put_back(group)
                break
            self.running[group] = future
        return len(self.running) > n_before

    def take(self) -> bool:
        """Take what has ended; whether anything has."""
        ended = [group for group, future in self.running.items() if future.wrapped_future.done()]
        for group in ended:
            outcome = _outcome(self.running.pop(group))
            if isinstance(outcome, GroupResult):
                self._keep(group, outcome)
            elif isinstance(outcome, ShardsError):
                self._keep(group, outcome.result)
            elif isinstance(outcome, TransientError):
                self._suspect(group, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        return bool(ended)

    def _next(self, n_slots: int) -> Shards:
        if self._suspects:
            return (self._suspects.popleft(),)
        size = self._grouping.size(len(self._waiting), n_slots)
        return tuple(self._waiting.popleft() for _ in range(min(size, len(self._waiting))))

    def _put_back(self, group: Shards) -> None:
        where = self._suspects if self._tried_alone.issuperset(group) else self._waiting
        where.extendleft(reversed(group))

    def _keep(self, group: Shards, result: GroupResult[Any]) -> None:
        self._grouping.learn(len(result.outcomes), result.seconds)
        self._on_end(group, result)
        for i, outcome in zip(group, result.outcomes, strict=False):
            if isinstance(outcome, TransientError):
                self.failed[i] = outcome
        self._waiting.extend(self._on_result(group, result))
        self._waiting.extend(group[len(result.outcomes) :])

    def _suspect(self, group: Shards, error: TransientError) -> None:
        """Nothing came back of a group. One of its shards may be at fault, and is to take no other with it."""
        self._on_failure(group)
        if self._tried_alone.issuperset(group) or len(group) == 1:
            self.failed.update(dict.fromkeys(group, error))
            return
        self._tried_alone.update(group)
        self._suspects.extend(group)


def _cancel(futures: Iterable[PrefectDaskFuture[Any]]) -> None:
    # A cluster that is gone has stopped its work, and must not hide what went wrong.
    with suppress(OSError, RuntimeError, ClosedClientError):
        for future in futures:
            future.wrapped_future.cancel()


def _outcome(future: PrefectDaskFuture[Any]) -> Any:
    """What came of a group: its result or its error.

    Raises:
        TransientError: the cluster has lost the work, and with it the connection or all of its workers.
    """
    if future.wrapped_future.status in ("cancelled", "lost"):
        raise TransientError("Dask cluster", "lost the work of this run; run again, what is done is kept")
    try:
        return future.result(raise_on_failure=False)
    except distributed.KilledWorker as error:
        n_workers = error.allowed_failures + 1
        return TransientError("Dask worker", f"{n_workers} of them died over this work, perhaps for want of memory")
