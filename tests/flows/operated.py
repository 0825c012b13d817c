"""A Prefect with a worker, as operators have it: runs of deployments, started, watched and cancelled by its API."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from candist_core.config import RunConfig

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def wait_for(look: Callable[[], Any], within_s: float, what: str) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what} within {within_s} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True, slots=True)
class Api:
    """The API at `url`, without Prefect's own client."""

    url: str

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for patience in range(20):
            request = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})
            try:
                with opener.open(request, timeout=60) as answer:
                    said = answer.read()
                return json.loads(said) if said else None
            except urllib.error.HTTPError as error:
                # SQLite is busy; Prefect's own clients try again too.
                if error.code != 503 or patience == 19:
                    raise
                time.sleep(0.25)

    def deployment(self, name: str) -> dict[str, Any]:
        return next(found for found in self.call("/deployments/filter", {}) if found["name"] == name)

    def start(self, deployment: str, config: RunConfig) -> str:
        """Start a run as the form does; its id."""
        parameters = {"config": config.model_dump(mode="json", exclude_unset=True)}
        path = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return self.call(path, {"parameters": parameters})["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.call(f"/flow_runs/{run_id}")

    def state(self, run_id: str) -> str:
        return self.run(run_id)["state"]["name"]

    def cancel(self, run_id: str) -> None:
        """What the button Cancel does."""
        self.call(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def answer(self, run_id: str, **run_input: Any) -> None:
        """What the button Resume and its form do."""
        key = self.run(run_id)["state"]["state_details"]["run_input_keyset"]["schema"]

        def is_asked() -> bool:
            found = self.call(f"/flow_runs/{run_id}/input/filter", {"prefix": key, "limit": 1})
            return bool(found)

        wait_for(is_asked, 30, "question")
        self.call(f"/flow_runs/{run_id}/resume", {"run_input": run_input})

    def wait_for_state(self, run_id: str, *names: str, within_s: float = 120) -> dict[str, Any]:
        """The run, once it is in one of these states; any other final one fails the test."""

        def look() -> dict[str, Any] | None:
            run = self.run(run_id)
            if run["state"]["name"] in names:
                return run
            assert run["state"]["type"] not in FINAL, (run["state"], self.logs(run_id))
            return None

        return wait_for(look, within_s, " or ".join(names))

    def logs(self, run_id: str) -> list[str]:
        wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.call("/logs/filter", wanted)]

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.call("/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {artifact["key"]: artifact for artifact in found}
