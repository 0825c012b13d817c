"""Progress on its way from a task to whoever watches the run.

On a Dask worker it travels as an event of the cluster, which costs no Prefect call; in the flow's own process it is
handed over directly.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from distributed import get_worker

from candist_core.ports import OnProgress, Progress

TOPIC = "candist-progress"
_listeners: list[OnProgress] = []


def progress_reporter() -> OnProgress:
    """The `OnProgress` of the task that calls this, wherever it runs."""
    try:
        worker = get_worker()
    except ValueError:  # not on a Dask worker
        return _tell_listeners
    return lambda progress: worker.log_event(TOPIC, asdict(progress))


def _tell_listeners(progress: Progress) -> None:
    for listener in list(_listeners):
        listener(progress)


def listen(listener: OnProgress) -> Callable[[], None]:
    """Hear the progress of tasks in this process; returns the way to stop."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def from_event(event: tuple[float, dict[str, Any]]) -> Progress:
    """The progress that a cluster event carries."""
    fields = {name: value for name, value in event[1].items() if name in Progress.__dataclass_fields__}
    return Progress(**fields)
