"""How stages survive: what is retried, how often, after how long.

Prefect's own result cache stays off: a task that Prefect calls completed may have stored nothing, so each stage
writes, verifies and leaves its own done-marker, and a retry finds what is done.
"""

from typing import Any, Generic, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from candist_core.errors import TransientError
from tasks.groups import ShardsError

T = TypeVar("T")


def as_is(value: T) -> T:
    """An argument of a task that Prefect hands on unsearched: it would visit every field of it for futures.

    Only for tasks in the flow's own process: Dask takes the mark for a tuple.
    """
    return cast(T, quote(value))


class Sealed(Generic[T]):
    """An argument that neither Prefect nor Dask looks into, for tasks on Dask: both would visit every field of it."""

    def __init__(self, content: T) -> None:
        self.content = content


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Only a `TransientError` is worth another try, and shards have had theirs; any other error would come again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError) and not isinstance(error, ShardsError)


STAGE: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
"""The policy of every stage, for `@task(**STAGE)`."""
