"""Deployments and automations, registered on the server of `PREFECT_API_URL` from the files in `deployments/`."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from candist_core.config import RunConfig
from candist_core.errors import ConfigError

POOL = "candist"
"""The work pool of processes on one machine, as `deployments/prefect.yaml` names it."""

PREFECT_YAML = Path("deployments/prefect.yaml")
AUTOMATIONS_YAML = Path("deployments/automations.yaml")


def deployments_of(pool: str) -> list[dict[str, Any]]:
    """The deployments of a work pool in `deployments/prefect.yaml`.

    Raises:
        ConfigError: no such file in this folder.
    """
    entries: list[dict[str, Any]] = _read(PREFECT_YAML)["deployments"]
    return [entry for entry in entries if entry["work_pool"]["name"] == pool]


def register(entries: Sequence[dict[str, Any]], config: RunConfig) -> None:
    """Make the pool, deployments and automations, or bring them up to date.

    Args:
        entries: of `deployments_of`.
        config: becomes the default of every parameter `config`.

    Raises:
        ConfigError: Prefect refuses a deployment; its last words are in the sentence.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
    from prefect.exceptions import ObjectAlreadyExists

    shown, given = config.model_dump(mode="json", exclude_unset=True), _own_settings(entries)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        _deploy([entry["name"] for entry in entries])
        wanted = DeploymentFilter(name=DeploymentFilterName(any_=list(given)))
        for made in client.read_deployments(deployment_filter=wanted):
            parameters = {"config": shown | given[made.name]}
            client.update_deployment(made.id, DeploymentUpdate(parameters=parameters))
    register_automations()


def _own_settings(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By deployment of a whole run, the settings in which it differs from the first of them."""
    configs = {
        entry["name"]: entry["parameters"]["config"] for entry in entries if "config" in entry.get("parameters", {})
    }
    first: dict[str, Any] = next(iter(configs.values()), {})
    return {
        name: {key: value for key, value in config.items() if first.get(key) != value}
        for name, config in configs.items()
    }


def register_automations(within_s: int | None = None) -> None:
    """Make the automations of `deployments/automations.yaml` that are not there yet.

    Args:
        within_s: seconds without a heartbeat, instead of the file's; a heartbeat comes every 30 s at most.
    """
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    with get_client(sync_client=True) as client:
        for entry in _read(AUTOMATIONS_YAML)["automations"]:
            if within_s is not None:
                entry["trigger"]["within"] = within_s
            if not client.read_automations_by_name(entry["name"]):
                client.create_automation(AutomationCore.model_validate(entry))


def _deploy(names: Sequence[str]) -> None:
    """Prefect's own command reads the file: schedules, triggers, limits."""
    chosen = [word for name in names for word in ("--name", name)]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(PREFECT_YAML), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        raise ConfigError(str(PREFECT_YAML), said, "deployments that Prefect takes", "correct the file")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"file {path}", "none in this folder", "the deployments of candist", "go to the root of a checkout"
        ) from error
    return content
