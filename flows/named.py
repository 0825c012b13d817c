"""What a flow run is called and tagged: after its data set at first, after the version once there is one."""

from collections.abc import Iterable
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client

from candist_core.config import RunConfig
from candist_core.publish import Published


def first_name() -> str:
    """Data set and the start of the run's id, for `flow_run_name`."""
    config: Any = runtime.flow_run.parameters["config"]
    if isinstance(config, RunConfig):
        name = config.dataset
    else:
        name = (config.get("publish") or {}).get("dataset") or config["name"]
    return f"{name}-{runtime.flow_run.id[:8]}"


def mark_start(config: RunConfig) -> None:
    """Tag the running flow with its data set and its teachers."""
    _update([f"dataset:{config.dataset}", *sorted({f"teacher:{one.model_name}" for one in config.teachers})])


def mark_version(published: Published) -> None:
    """Name the running flow after the version that it made or found."""
    name = f"{published.manifest.dataset}@{published.number}"
    _update([f"version:{published.number}"], name=name)


def _update(tags: Iterable[str], name: str | None = None) -> None:
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.id)
        client.update_flow_run(run.id, name=name or run.name, tags=[*dict.fromkeys([*run.tags, *tags])])
