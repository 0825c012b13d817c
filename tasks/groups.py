"""A group of shards as one task, in which each shard still reports, is retried and is resumed by itself.

A task through Dask costs about 75 ms (measured), so many small shards go through it together. Every shard leaves its
own done-marker: whoever runs the group again finds what is done.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect.logging import get_run_logger

from candist_core.errors import TransientError
from candist_core.reports import Report
from candist_core.tables import TableRef
from tasks.logs import logged_about, set_up_logs

ReportT = TypeVar("ReportT", bound=Report)

_DELAYS_S = (2.0, 4.0, 8.0)
_JITTER = 0.5
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class GroupResult(Generic[ReportT]):
    """What came of a group's shards, in their order; of fewer shards where the group ended early.

    Attributes:
        outcomes: the report of a shard, or the error that was left after its retries.
        seconds: what the whole group took.
        was_stopped: its worker is closing, or nobody waits for it any more.
    """

    outcomes: tuple[ReportT | TransientError, ...]
    seconds: float
    was_stopped: bool = False


class ShardsError(TransientError):
    """Some shards of a group failed after their retries; `result` holds what came of all."""

    def __init__(self, what: str, detail: str, result: GroupResult[Any]) -> None:
        super().__init__(what, detail)
        # A TransientError knows no third argument of this kind, and the error has to cross Dask.
        self.args = (what, detail, result)
        self.result = result


def name_of_group(shards: Sequence[TableRef]) -> str:
    """How a person finds a group's task: its shards.

    Example:
        >>> name_of_group([TableRef(f"texts/00000{i}.parquet", "texts/1", 1, "", 1) for i in (3, 4, 7)])
        '000003 to 000007 (3 shards)'
    """
    first, last = Path(shards[0].uri).stem, Path(shards[-1].uri).stem
    return first if len(shards) == 1 else f"{first} to {last} ({len(shards):,} shards)"


def run_group(
    stage: str,
    shards: Sequence[TableRef],
    work: Callable[[int], ReportT],
    is_wanted: Callable[[], bool],
    describe: Callable[[ReportT], str],
    goes_on: Callable[[int, ReportT | TransientError], bool] = lambda i, outcome: True,
) -> GroupResult[ReportT]:
    """Run the shards of a group one after the other, each with its own retries; each leaves one line in the log.

    Args:
        stage: its name, for the log.
        shards: of texts.
        work: does shard i, or finds it done.
        is_wanted: asked between shards and while waiting; no more is begun once it says no.
        describe: a shard's report in a few numbers.
        goes_on: told what came of shard i; whether the next one may begin.

    Raises:
        ShardsError: shards failed after their retries.
        CandistError: any error of another kind, at once.
    """
    set_up_logs()
    outcomes: list[ReportT | TransientError] = []
    started = time.monotonic()
    for i in range(len(shards)):
        if not is_wanted():
            break
        name = Path(shards[i].uri).stem
        with logged_about(**_run_and_task(), stage=stage, shard=name):
            begun = time.monotonic()
            outcomes.append(_persistently(name, lambda i=i: work(i), is_wanted))  # type: ignore[misc]
            if not isinstance(outcomes[-1], TransientError):
                said = (stage, name, describe(outcomes[-1]), time.monotonic() - begun)
                get_run_logger().info("%s shard %s: %s, %.1f s", *said)
        if not goes_on(i, outcomes[-1]):
            break
    result = GroupResult(tuple(outcomes), time.monotonic() - started, not is_wanted())
    failed = [(i, outcome) for i, outcome in enumerate(outcomes) if isinstance(outcome, TransientError)]
    if failed:
        first, error = failed[0]
        what = f"{len(failed)} of {len(shards)} shards failed"
        raise ShardsError(what, f"shard {Path(shards[first].uri).stem}: {error}", result)
    return result


def _run_and_task() -> dict[str, str]:
    """Run and task for the log lines of the core, which knows neither."""
    known: Any = getattr(get_run_logger(), "extra", None) or {}
    names = {"run": "flow_run_name", "run_id": "flow_run_id", "task": "task_run_name"}
    return {key: str(known[name]) for key, name in names.items() if known.get(name)}


def _persistently(name: str, work: Callable[[], ReportT], is_wanted: Callable[[], bool]) -> ReportT | TransientError:
    """What work gives, tried again a few times, or its last `TransientError`."""
    for delay_s in _DELAYS_S:
        try:
            return work()
        except TransientError as error:
            delay_s *= 1 + random.uniform(-_JITTER, _JITTER)
            get_run_logger().warning("shard %s: %s; again in %.0f s", name, error, delay_s)
            if not _waited(delay_s, is_wanted):
                return error
    try:
        return work()
    except TransientError as error:
        return error


def _waited(seconds: float, is_wanted: Callable[[], bool]) -> bool:
    """Wait; False, and early, once nobody waits for the result."""
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        if not is_wanted():
            return False
        time.sleep(min(_LOOK_S, left_s))
    return True
