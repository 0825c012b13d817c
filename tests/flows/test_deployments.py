"""What lies in `deployments/`, held against the tools that read it: Prefect, and the schemas of Compose and Kubernetes.

Docker and Kubernetes themselves are not to be had where tests run.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from candist_core.config import load_config
from flows.server import quiet_environment

FOLDER = Path(__file__).parents[2] / "deployments"
POOLS = {"candist": "process", "candist-docker": "docker", "candist-kubernetes": "kubernetes", "candist-gpu": "process"}


def entries():
    return yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]


def test_the_forms_show_the_sample_corpus_as_the_command_runs_it():
    demo = load_config(FOLDER / "configs" / "demo.yaml").model_dump(mode="json", exclude_unset=True)
    shown = [entry["parameters"]["config"] for entry in entries() if "config" in entry.get("parameters", {})]
    assert len(shown) >= 5
    night = {"incremental": {"reuse_student": True}}
    assert [config for config in shown if config != demo] == [demo | night]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["name"])
def test_the_parameters_of_each_deployment_are_those_of_its_flow(entry):
    flow = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
    if "parameters" in entry:
        flow.validate_parameters(entry["parameters"])
    assert entry["work_pool"]["name"] in POOLS


def test_every_schedule_waits_for_a_person_to_switch_it_on():
    schedules = [schedule for entry in entries() for schedule in entry.get("schedules", [])]
    assert len(schedules) >= 3
    assert not any(schedule["active"] for schedule in schedules)


def test_workers_give_the_signs_of_life_that_the_automation_waits_for():
    (dead,) = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
    beat_s = {
        int(entry["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) for entry in entries()
    }
    within_s = AutomationCore.model_validate(dead).trigger.within.total_seconds()
    assert all(2 * beat <= within_s <= 120 for beat in beat_s)


def test_the_automation_watches_every_flow_of_ours_and_no_other():
    (dead,) = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
    flows = {load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False).name for entry in entries()}
    watched = dead["trigger"]["match_related"]
    assert watched == {"prefect.resource.role": "flow", "prefect.resource.name": watched["prefect.resource.name"]}
    assert set(watched["prefect.resource.name"]) == flows
    assert quiet_environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_the_automation_of_the_docs_is_one_that_prefect_takes():
    words = (FOLDER.parent / "docs" / "deployments.md").read_text()
    (block,) = [part.partition("```")[0] for part in words.split("```yaml\n")[1:]]
    (entry,) = yaml.safe_load(block)["automations"]
    assert AutomationCore.model_validate(entry).actions[0].type == "send-notification"


@pytest.mark.flow
@pytest.mark.slow
def test_prefect_takes_every_deployment_and_its_pool_knows_every_job_variable(prefect_server):
    with get_client(sync_client=True) as client:
        for name, kind in POOLS.items():
            template = asyncio.run(get_default_base_job_template_for_infrastructure_type(kind))
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        command = ["--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"]
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command],
            cwd=FOLDER.parent, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        made = {found.name: found for found in client.read_deployments()}
        for entry in entries():
            found = made[entry["name"]]
            assert found.enforce_parameter_schema
            known = client.read_work_pool(entry["work_pool"]["name"]).base_job_template["variables"]["properties"]
            assert set(found.job_variables) <= set(known)
        assert made["nightly"].schedules[0].schedule.cron == "0 2 * * *"
        assert made["label-corpus-docker"].pull_steps == [
            {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/candist"}}
        ]


def test_the_compose_file_fits_the_compose_specification():
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        cwd=FOLDER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_port_of_the_compose_file_is_bound_to_loopback_and_no_secret_has_a_default():
    words = (FOLDER / "compose.yaml").read_text()
    services = yaml.safe_load(words)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) >= 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if name.endswith(("PASSWORD", "SECRET_ACCESS_KEY")):
                assert value.startswith("${")
                assert ":?" in value


@pytest.mark.parametrize("path", sorted((FOLDER / "k8s").glob("*.yaml")), ids=lambda path: path.name)
def test_every_kubernetes_manifest_fits_the_schema_of_its_kind(path):
    from kubernetes_validate import validate

    manifests = list(yaml.safe_load_all(path.read_text()))
    assert len(manifests) >= 5
    for manifest in manifests:
        validate(manifest, "1.34", strict=True)
