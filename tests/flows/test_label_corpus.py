"""The main flow, whole, on a real Prefect server and a real Dask cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)

from candist_core.checks_config import OnFail
from candist_core.config import Location, RunConfig
from candist_core.edges.store import open_store
from candist_core.errors import BudgetError, GateError, TeacherError
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.versions import Version, scan_version
from candist_core.versions import list_versions, read_manifest
from flows.clusters import make_cluster
from flows.label_corpus import label_corpus
from flows.summary import manifest_rows
from tests.fakes import ChatServer, status, user_text
from tests.flows.corpora import demo_config, demo_labels, demo_replies, demo_rows, write_config, write_jsonl

pytestmark = pytest.mark.flow


def candist(*arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def labels_of(config: RunConfig) -> pl.DataFrame:
    store = open_store(Location(**config.publish.model_dump(include={"uri", "endpoint_url", "region", "profile"})))
    return scan_version(Version(read_manifest(store, config.dataset), store)).sort("doc_id").collect()


def seen_in_prefect(flow_run_id: str) -> tuple[list[str], dict[str, Any]]:
    """Names of a run's task runs, and its artifacts' data by key, as the server has them once it has caught up."""
    by_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 30
        while True:
            tasks = [run.name for run in client.read_task_runs(flow_run_filter=by_run)]
            if any(name.startswith("publish") for name in tasks) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run_id)]))
        artifacts = client.read_artifacts(artifact_filter=wanted)
    return tasks, {artifact.key: artifact.data for artifact in artifacts if artifact.key}


def answers_by_text(n: int) -> dict[str, str]:
    """What the recorded teacher said, by text."""
    replies = {row["id"]: row["reply"] for row in demo_replies(n)}
    return {row["text"]: replies[row["id"]] for row in demo_rows(n)}


def test_the_command_labels_a_corpus_over_processes_and_reuses_everything_the_second_time(tmp_path):
    config = demo_config(tmp_path, student={"kind": "encoder"}, compute={"workers": 2, "processes": True})
    path = write_config(tmp_path, config)
    first = candist("run", path, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for noise in ("Traceback", "Warning", "WARNING", "distributed", "prefect."):
        assert noise not in first.stderr + first.stdout
    assert "200 texts" in first.stdout
    second = candist("run", path, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("reused") >= 3
    assert list_versions(open_store(Location(uri=config.publish.uri)), "slice") == [1]
    labels = labels_of(config)
    assert labels.height == 200
    assert labels.select((pl.col("label") == pl.col("gold")).mean()).item() > 0.9

    shown = candist("show", f"{config.publish.uri}/slice", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "200 texts" in shown.stdout
    exported = candist("labels", f"{config.publish.uri}/slice@1", "--out", tmp_path / "out.csv", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert pl.read_csv(tmp_path / "out.csv").height == 200
    state = candist("status", path, cwd=tmp_path)
    assert state.returncode == 0, state.stderr
    assert "2 of 2 shards" in state.stdout


@pytest.mark.s3
def test_an_endpoint_and_a_bucket_give_the_labels_of_the_replay_on_disk(tmp_path, prefect_server, bucket, monkeypatch):
    config = demo_config(tmp_path, n=120)
    label_corpus(config)
    (tmp_path / "live").mkdir()
    said = answers_by_text(120)
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        server.script([status(500), status(429, retry_after="0")])
        live = demo_config(
            tmp_path / "live",
            n=120,
            teacher={"kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY"},
            publish={"uri": f"s3://{bucket.name}/sets", "endpoint_url": bucket.endpoint_url},
            store={"uri": f"s3://{bucket.name}/work", "endpoint_url": bucket.endpoint_url},
        )
        label_corpus(live)
        columns = ["doc_id", "label", "candidates", "teacher_label", "source", "needs_review"]
        assert labels_of(live).select(columns).equals(labels_of(config).select(columns))
        asked = len(server.requests)
        label_corpus(live.model_copy(update={"seed": 1}))
        assert len(server.requests) == asked, "a changed seed asks nothing anew"
    assert asked == len(set(said)) + 2


def test_a_failed_gate_publishes_nothing(tmp_path, prefect_server):
    config = demo_config(tmp_path, n=60)
    rows = [row | {"reply": "no idea"} if i % 2 else row for i, row in enumerate(demo_replies(60))]
    write_jsonl(tmp_path / "replies.jsonl", rows)
    with pytest.raises(GateError, match="unparsed_rate"):
        label_corpus(config)
    assert not (tmp_path / "published").exists()


def test_a_finding_that_stops_publishes_nothing_and_one_that_may_only_warn_goes_into_the_version(
    tmp_path, prefect_server
):
    config = demo_config(tmp_path, n=220)
    same = json.dumps({"candidates": ["outage", "slow_speed"]})
    rows = [row | {"reply": same} if i % 4 else row for i, row in enumerate(demo_replies(220))]
    write_jsonl(tmp_path / "replies.jsonl", rows)
    with pytest.raises(GateError, match=r"quality\.identical-sets: observed 75 % of 220 sets"):
        label_corpus(config)
    assert not (tmp_path / "published").exists()
    checks = config.checks.model_copy(update={"on_fail": OnFail.WARN})
    manifest = label_corpus(config.model_copy(update={"checks": checks})).manifest
    assert "identical-sets" in [found.name for found in manifest.quality.findings]
    assert "quality.identical-sets" in [check.name for check in manifest.checks if not check.passed]
    assert any("identical-sets: 75 % of 220 sets" in value for _, value in manifest_rows(manifest))


def test_a_warning_check_lets_the_run_go_on(tmp_path, prefect_server):
    config = demo_config(tmp_path, n=60, epochs=1, checks={"on_fail": "warn"})
    rows = [row | {"reply": "no idea"} if i % 2 else row for i, row in enumerate(demo_replies(60))]
    write_jsonl(tmp_path / "replies.jsonl", rows)
    label_corpus(config)
    labels = labels_of(config)
    assert labels.height == 60
    assert labels.filter(pl.col("teacher_label").is_null())["needs_review"].all()


def test_missing_recorded_replies_stop_the_run_with_their_number(tmp_path, prefect_server):
    config = demo_config(tmp_path, n=60)
    write_jsonl(tmp_path / "replies.jsonl", demo_replies(50))
    with pytest.raises(TeacherError, match="none for 10 of 60 texts"):
        label_corpus(config)


def test_a_cap_stops_the_run_keeps_what_is_paid_and_the_next_run_goes_on(tmp_path, prefect_server, monkeypatch):
    said = answers_by_text(60)
    monkeypatch.setenv("TEST_KEY", "k")
    price = {"model": "m", "input_usd": 1.0, "output_usd": 1.0}
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        config = demo_config(
            tmp_path,
            n=60,
            epochs=1,
            teacher={
                "kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None,
                "api_key_env": "TEST_KEY", "max_tokens": 64,
            },
            budget={"max_usd": 0.05, "prices": [price]},
        )  # fmt: skip
        with pytest.raises(BudgetError, match=r"raise budget\.max_usd"):
            label_corpus(config)
        paid = len(server.requests)
        assert 0 < paid < len(set(said))
        label_corpus(config.model_copy(update={"budget": config.budget.model_copy(update={"max_usd": 5.0})}))
        assert len(server.requests) == len(set(said)), "nothing is paid twice"


def same_numbers_everywhere(artifacts: dict[str, Any], folder: Path) -> None:
    """Tables in Prefect, metrics.json and the report tell the same; each number of the file stands on the page."""
    numbers = json.loads((folder / "metrics.json").read_bytes())
    page = " ".join(unescape(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())).split())
    for name in ("measures", "labels", "findings", "cost"):
        assert json.loads(artifacts[name]) == numbers[name], name
    assert {"Coverage", "Final labels that are right", "Macro F1"} <= {fact["term"] for fact in numbers["measures"]}
    for fact in (*numbers["measures"], *numbers["cost"]):
        assert f"{fact['term']} {fact['value']}" in page
    assert [row["label"] for row in numbers["labels"]] == [label["name"] for label in demo_labels()]
    assert all(f"{finding['evidence']}" in page for finding in numbers["findings"])
    assert numbers["answer"] in page
    for stage in ("corpus", "annotations", "labels"):
        shown = {check["name"]: check["observed"] for check in json.loads(artifacts[f"checks-{stage}"])}
        assert shown.items() <= {check["name"]: check["observed"] for check in numbers["checks"]}.items()


def test_the_manifest_tells_where_everything_came_from_and_no_secret(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    said = answers_by_text(40)
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        config = demo_config(
            tmp_path,
            n=40,
            epochs=1,
            teacher={"kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY"},
        )
        published = label_corpus(config)
    tasks, artifacts = seen_in_prefect(published.manifest.run_id)
    assert {name.split()[0] for name in tasks} == {
        "ingest",
        "annotate",
        "check",
        "distill",
        "predict",
        "evaluate",
        "assess",
        "publish",
    }
    assert {"summary", "checks-annotations", "checks-labels", "progress-annotate", "progress-distill"} <= set(artifacts)
    assert "version" in artifacts["summary"]
    assert artifacts["progress-annotate"] == 100.0
    same_numbers_everywhere(artifacts, Path(config.publish.uri) / published.manifest.folder)
    store = open_store(Location(uri=config.publish.uri))
    manifest = read_manifest(store, "slice", published.number)
    assert manifest.spec_fingerprint == config.task.fingerprint
    assert manifest.metrics.gold is not None
    assert manifest.usage.n_requests == 40
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left
    assert [path for path in left if b"sk-not-to-be-seen" in path.read_bytes()] == []
    assert json.loads((tmp_path / "published/slice/latest.json").read_text())["number"] == 1


def test_someones_own_csv_without_key_or_recording_ends_in_a_published_version(tmp_path):
    rows = pl.DataFrame(demo_rows(40)).select(number="id", body="text", channel=pl.lit("mail"))
    rows.write_csv(tmp_path / "mine.csv")
    names = [word for label in demo_labels() for word in ("--label", f"{label['name']}: {label['description']}")]
    written = candist("init", "mine.csv", "--id", "number", *names, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    sets = ("--set", "student.epochs=1", "--set", "checks.max_review_rate=1")
    done = candist("run", "candist.yaml", *sets, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = candist("labels", "published/mine", "--out", "labels.parquet", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels["doc_id"].to_list() == rows["number"].to_list()
    assert set(labels["channel"]) == {"mail"}
    assert set(labels["label"]) <= {label["name"] for label in demo_labels()}


def test_a_wrong_endpoint_is_one_sentence_with_no_key_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    config = demo_config(
        tmp_path,
        n=20,
        teacher={
            "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "replies_uri": None,
            "api_key_env": "TEST_KEY", "max_attempts": 2,
        },
    )  # fmt: skip
    failed = candist("run", write_config(tmp_path, config), cwd=tmp_path)
    assert failed.returncode == 5
    assert "Traceback" not in failed.stderr
    assert "sk-not" not in failed.stderr + failed.stdout
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("candist: teacher")
    assert "teacher.base_url" in last
    assert not (tmp_path / "published").exists()


def live_config(folder: Path, server: ChatServer, **changes: dict[str, Any]) -> RunConfig:
    """400 texts in 20 shards, slowly answered by a live endpoint, on two worker processes."""
    teacher = {
        "kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None,
        "api_key_env": "TEST_KEY", "max_in_flight": 4,
    }  # fmt: skip
    groups = {"source": {"shard_rows": 20}, "compute": {"workers": 2, "processes": True}, "teacher": teacher}
    merged = {group: {**groups.get(group, {}), **changes.get(group, {})} for group in groups | changes}
    return demo_config(folder, n=400, epochs=1, **merged)


def start_candist(config_path: Path, *options: str) -> subprocess.Popen[str]:
    """`candist run` as a terminal would start it: in a session of its own, and with Ctrl-C heard.

    A shell lets what it starts in the background ignore SIGINT, and children inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(config_path), *options],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_a_refused_key_in_one_shard_stops_all_of_them_at_once_with_one_sentence(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    said = answers_by_text(400)
    refused = demo_rows(400)[30]["text"]

    def answer(body: dict[str, Any]) -> Any:
        return status(401, code="invalid_api_key") if user_text(body) == refused else said[user_text(body)]

    with ChatServer(answer=answer, latency_s=0.2) as server:
        with pytest.raises(TeacherError) as caught:
            label_corpus(live_config(tmp_path, server, source={"shard_rows": 200}))
        asked = len(server.requests)
        assert 20 < asked < 120, "the other shard alone has 200"
        assert server.max_in_flight <= 4, "over both workers"
        time.sleep(2)
        assert len(server.requests) == asked, "nothing is paid for after the end"
    assert "sk-not" not in str(caught.value)
    assert not (tmp_path / "published").exists()


def test_a_run_that_fails_leaves_nothing_on_a_cluster_of_someone_else(tmp_path, prefect_server):
    with make_cluster(workers=2, processes=False) as cluster:
        config = demo_config(tmp_path, n=60, compute={"address": cluster.scheduler_address})
        write_jsonl(tmp_path / "replies.jsonl", demo_replies(50))
        with pytest.raises(TeacherError, match="none for 10 of 60 texts"):
            label_corpus(config)
        leases = cluster.scheduler.extensions["semaphores"]
        assert (leases.max_leases, dict(leases.leases)) == ({}, {})
        assert len(cluster.scheduler.workers) == 2


def test_after_a_cap_the_texts_left_are_counted_right_and_their_shards_never_start(
    tmp_path, prefect_server, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", "k")
    said = answers_by_text(400)
    price = {"model": "m", "input_usd": 1.0, "output_usd": 1.0}
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        config = live_config(tmp_path, server, budget={"max_usd": 0.05, "prices": [price]}, teacher={"max_tokens": 64})
        with pytest.raises(BudgetError) as caught:
            label_corpus(config)
        assert 0 < len(server.requests) < 100
        assert caught.value.n_left == len(set(said)) - len(server.requests)
        assert caught.value.spent_usd <= 0.05
    started = {path.name for path in (tmp_path / "work" / "annotations").glob("*.parquet")}
    assert len(started) / 2 < 10, "a table and its rejects for each shard that was started"


@pytest.mark.parametrize("processes", [True, False])
def test_ctrl_c_while_annotating_sends_nothing_more_and_loses_no_reply(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("TEST_KEY", "k")
    said = answers_by_text(400)
    with ChatServer(answer=lambda body: said[user_text(body)], latency_s=0.2) as server:
        config = live_config(tmp_path, server, compute={"processes": processes})
        process = start_candist(write_config(tmp_path, config), "--yes")
        deadline = time.monotonic() + 90
        while len(server.requests) < 60 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(3)
        asked = len(server.requests)
        said_last = process.communicate(timeout=60)[0].strip().splitlines()[-1]
        assert process.returncode == 130
        assert said_last == "candist: interrupted; what is done is kept, run again to go on"
        time.sleep(1)
        assert len(server.requests) == asked < 150
        assert processes_of(process.pid) == []
        patient = config.teacher.model_copy(update={"max_in_flight": 64})
        plan = plan_annotation(config.model_copy(update={"teacher": patient}))
        for shard in find_ingested(config).texts:
            annotate_shard(plan, shard)
        assert len(server.counts) == 400
        assert len(server.requests) <= 400 + 4, "only what was under way at the stop is asked again"


def processes_of(session: int) -> list[str]:
    """Names of what still runs in a session."""
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["name"])
    return found


def test_ctrl_c_is_one_line_and_leaves_no_process(tmp_path):
    config = demo_config(
        tmp_path, n=60, epochs=200, student={"kind": "encoder"}, compute={"workers": 2, "processes": True}
    )
    process = start_candist(write_config(tmp_path, config))
    assert process.stdout is not None
    said = ""
    while "check:" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert rest.strip() == "candist: interrupted; what is done is kept, run again to go on"
    deadline = time.monotonic() + 10
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
