"""Runs of deployments on a real server with a real worker: cancelled, asked about, killed, started by an event."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client

from candist_core.edges.store import open_store
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.versions import list_versions, read_manifest
from flows.look_for_data import EVENT
from flows.registered import POOL, deployments_of, register, register_automations
from flows.server import kept_server, quiet_environment
from flows.worker import started_worker
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_rows, write_jsonl
from tests.flows.operated import FINAL, Api, wait_for
from tests.flows.test_label_corpus import answers_by_text

pytestmark = [pytest.mark.flow, pytest.mark.slow]

N = 120
# Prefect sends a heartbeat every 30 s at best; the shipped automation waits 90 s, which is long for a test.
SILENT_S = 40


@pytest.fixture(scope="module")
def operated(tmp_path_factory):
    """The API, and the worker's process."""
    home = tmp_path_factory.mktemp("operated")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quiet_environment().items():
            patch.setenv(name, value)
        patch.setenv("TEST_KEY", "k")
        with kept_server(home) as url:
            config = demo_config(home, n=N, epochs=1)
            register(deployments_of(POOL), config)
            with started_worker(POOL, home) as worker:
                yield Api(url), worker


@pytest.fixture
def api(operated):
    return operated[0]


def paid(folder, server, n=N, **changes):
    """A run at a paid endpoint, in one shard after the first."""
    teacher = {
        "kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None,
        "api_key_env": "TEST_KEY", "max_in_flight": 4, "max_tokens": 64,
    }  # fmt: skip
    price = {"model": "m", "input_usd": 1.0, "output_usd": 1.0}
    groups = {"source": {"shard_rows": 60}, "teacher": teacher, "budget": {"prices": [price]}} | changes
    return demo_config(folder, n=n, epochs=1, **groups)


def test_a_cancelled_run_asks_nothing_after_five_seconds_and_another_goes_on_from_there(api, tmp_path):
    said = answers_by_text(N)
    latency_s = [0.4]
    with ChatServer(answer=lambda body: said[user_text(body)], latency_s=lambda body: latency_s[0]) as server:
        config = paid(tmp_path, server, compute={"processes": True})
        run_id = api.start("label-corpus", config)
        wait_for(lambda: len(server.requests) > 20, 90, "twenty requests")
        api.cancel(run_id)
        time.sleep(5)
        asked = len(server.requests)
        assert asked < N - 20, "it was still to ask when it was cancelled"
        run = wait_for(lambda: api.state(run_id) == "Cancelled" and api.run(run_id), 30, "cancelled run")
        time.sleep(3)
        assert len(server.requests) == asked
        assert "dataset:slice" in run["tags"]
        latency_s[0] = 0.0
        plan = plan_annotation(config)
        for shard in find_ingested(config).texts:
            annotate_shard(plan, shard)
        assert len(server.counts) == N
        assert len(server.requests) <= N + 4, "only what was under way is asked again"


def test_a_run_above_the_set_sum_pays_nothing_until_a_person_says_yes(api, tmp_path):
    said = answers_by_text(N)
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        config = paid(tmp_path, server, budget={"approve_above_usd": 0.01, "prices": [
            {"model": "m", "input_usd": 1.0, "output_usd": 1.0}]})  # fmt: skip
        refused, accepted = api.start("label-corpus", config), api.start("label-corpus", config)
        for run_id in (refused, accepted):
            run = api.wait_for_state(run_id, "Paused")
            assert run["state"]["state_details"]["run_input_keyset"], "the form to answer in"
        assert server.requests == []
        api.answer(refused, go_on=False, note="too dear")
        run = wait_for(lambda: api.state(refused) == "Failed" and api.run(refused), 60, "refusal")
        assert "refused by a person (too dear)" in run["state"]["message"]
        assert server.requests == []
        api.answer(accepted, go_on=True)
        run = api.wait_for_state(accepted, "Completed")
        assert len(server.requests) == N
    assert run["name"] == "slice@1"
    assert {"candist", "dataset:slice", "teacher:m", "version:1"} <= set(run["tags"])


def test_a_failed_gate_waits_for_a_person_who_lets_it_through_with_a_note(api, tmp_path):
    config = demo_config(tmp_path, n=N, epochs=1, checks={"min_single_rate": 1.0, "ask_on_failure": True})
    run_id = api.start("label-corpus", config)
    api.wait_for_state(run_id, "Paused")
    api.answer(run_id, go_on=True, note="as agreed")
    api.wait_for_state(run_id, "Completed")
    assert "let through by a person: as agreed" in str(api.artifacts(run_id))


def looked(**parameters):
    """What the sensor says in a process of its own, as a worker starts it: a process keeps its first server."""
    script = f"from flows.look_for_data import look_for_data; print('told', look_for_data(**{parameters!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.rstrip().endswith("told True")


def test_new_files_are_told_once_by_the_sensor_and_start_the_run_of_their_own_deployment(api, tmp_path):
    parameters = {"name": "support-intents", "source": {"uri": str(tmp_path / "drop")}, "settle_s": 0.2}
    assert not looked(**parameters), "no folder yet"
    (tmp_path / "drop").mkdir()
    write_jsonl(tmp_path / "drop" / "one.jsonl", demo_rows(5))
    deployment_id = api.deployment("on-new-data")["id"]
    filters = {"deployments": {"id": {"any_": [deployment_id]}}}
    assert api.call("/flow_runs/filter", filters) == []
    assert looked(**parameters)
    wait_for(lambda: len(api.call("/flow_runs/filter", filters)) == 1, 90, "run on new data")
    resource = {"prefect.resource.id": "candist.data.support-intents"}
    told = {"occurred": f"{datetime.now(UTC):%FT%TZ}", "id": str(uuid4()), "event": EVENT, "resource": resource}
    api.call("/events", [told])
    wait_for(lambda: len(api.call("/flow_runs/filter", filters)) == 2, 90, "run by somebody else's word")
    for started in api.call("/flow_runs/filter", filters):
        api.cancel(started["id"])
    assert not looked(**parameters), "told before"
    write_jsonl(tmp_path / "drop" / "two.jsonl", demo_rows(5))
    assert looked(**parameters)


def test_the_nightly_schedule_runs_twice_and_pays_the_second_time_for_what_is_new(api, tmp_path):
    said = answers_by_text(N + 40)
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        incremental = {"reuse_student": True, "min_texts": 20}
        config = paid(tmp_path, server, incremental=incremental, checks={"max_review_rate": 1.0, "balance": "none"})
        deployment_id = api.deployment("nightly")["id"]
        # A night of twenty seconds.
        night = {"schedule": {"interval": 20.0}, "active": True, "parameters": {
            "config": config.model_dump(mode="json", exclude_unset=True)}}  # fmt: skip
        api.call(f"/deployments/{deployment_id}/schedules", [night])
        store = open_store(config.publish)
        wait_for(lambda: list_versions(store, "slice"), 120, "first version")
        assert len(server.requests) == N
        paid(tmp_path, server, n=N + 40)
        wait_for(lambda: len(list_versions(store, "slice")) > 1, 120, "second version")
        api.call(f"/deployments/{deployment_id}/pause_deployment", {})
        assert len(server.requests) == N + 40
    second = read_manifest(store, "slice", 2)
    assert (second.changes.n_added, second.changes.n_kept, second.origin.is_reused) == (40, N, True)
    runs = api.call("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment_id]}}})
    assert sum(run["auto_scheduled"] and run["run_count"] > 0 for run in runs) >= 2
    for run in runs:
        if run["state"]["type"] not in FINAL:
            api.cancel(run["id"])


def test_a_run_whose_worker_and_process_are_killed_is_marked_crashed_by_the_automation(operated, tmp_path):
    api, worker = operated
    with get_client(sync_client=True) as client:
        for shipped in client.read_automations_by_name("candist-dead-runs"):
            assert shipped.trigger.within.total_seconds() == 90
            client.delete_automation(shipped.id)
    register_automations(SILENT_S)
    said = answers_by_text(N)
    with ChatServer(answer=lambda body: said[user_text(body)], latency_s=1.0) as server:
        run_id = api.start("label-corpus", paid(tmp_path, server))
        wait_for(lambda: server.requests, 90, "request")
        family = psutil.Process(worker.pid).children(recursive=True)
        os.kill(worker.pid, signal.SIGKILL)
        for process in family:
            process.kill()
        killed_at = time.monotonic()
        wait_for(lambda: api.state(run_id) == "Crashed", SILENT_S + 60, "mark")
        assert time.monotonic() - killed_at < 120
        assert "No heartbeat" in api.run(run_id)["state"]["message"]
