"""What monitoring hears of a run: JSON lines, traces and metrics at a loopback collector, the Prometheus endpoint."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from candist_core.errors import ConfigError, GateError
from flows.label_corpus import label_corpus
from tests.flows.corpora import demo_config, demo_replies, write_config, write_jsonl

pytestmark = pytest.mark.flow
ROOT = Path(__file__).parents[2]


class Collector:
    """An OTLP/HTTP collector on loopback that keeps what it is sent, by path."""

    def __init__(self) -> None:
        received: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                received.append((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[object]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        bodies = [ExportTraceServiceRequest.FromString(body) for path, body in self.received if path == "/v1/traces"]
        return [
            span for body in bodies for one in body.resource_spans for scope in one.scope_spans for span in scope.spans
        ]

    def metrics(self) -> dict[tuple[str, str], float]:
        """The last value of each metric by its name and stage."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        found = {}
        for path, body in self.received:
            if path != "/v1/metrics":
                continue
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (metric for scope in one.scope_metrics for metric in scope.metrics):
                    for point in metric.gauge.data_points:
                        about = {pair.key: pair.value.string_value for pair in point.attributes}
                        value = point.as_double if point.HasField("as_double") else float(point.as_int)
                        found[metric.name, about["stage"]] = value
        return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def test_a_run_is_a_trace_of_stages_and_groups_and_its_numbers_are_metrics(tmp_path, prefect_server, collector):
    label_corpus(demo_config(tmp_path, n=60, source={"shard_rows": 30}))
    spans = {span.name: span for span in collector.spans()}
    assert {"run slice", "ingest", "annotate", "check", "distill", "predict", "evaluate", "publish"} <= set(spans)
    root = spans["run slice"]
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    assert spans["annotate"].parent_span_id == root.span_id
    groups = [span for span in collector.spans() if span.name.startswith("shards ")]
    assert {span.parent_span_id for span in groups} == {spans["annotate"].span_id, spans["predict"].span_id}
    assert sum(pair.value.int_value for span in groups for pair in span.attributes if pair.key == "candist.shards") == 4
    assert root.end_time_unix_nano >= spans["publish"].end_time_unix_nano
    metrics = collector.metrics()
    assert metrics["candist.stage.done", "annotate"] == 60.0
    assert metrics["candist.stage.total", "annotate"] == 60.0
    assert metrics["candist.stage.seconds", "distill"] > 0
    said = b"".join(body for _, body in collector.received)
    assert b"My internet" not in said


def test_a_failed_run_ends_its_trace_with_the_kind_of_error_and_no_more(tmp_path, prefect_server, collector):
    config = demo_config(tmp_path, n=60)
    rows = [row | {"reply": "no idea"} if i % 2 else row for i, row in enumerate(demo_replies(60))]
    write_jsonl(tmp_path / "replies.jsonl", rows)
    with pytest.raises(GateError):
        label_corpus(config)
    (root,) = [span for span in collector.spans() if span.name == "run slice"]
    assert root.status.message == "GateError"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_prometheus_endpoint_tells_how_far_each_stage_is_while_the_run_lasts(tmp_path, prefect_server):
    port, pages = free_port(), list[str]()
    config = demo_config(tmp_path, n=120, observe={"prometheus_port": port})
    has_ended = threading.Event()

    def scrape() -> None:
        while not has_ended.wait(0.05):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                    pages.append(page.read().decode())
            except OSError:
                time.sleep(0.05)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        label_corpus(config)
    finally:
        has_ended.set()
        thread.join()
    last = pages[-1]
    assert 'candist_stage_done{run="slice",stage="annotate",unit="texts"} 120.0' in last
    assert 'candist_stage_seconds{run="slice",stage="distill",unit="reads"}' in last
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2)


def test_a_port_that_is_taken_is_one_sentence_before_anything_is_done(tmp_path, prefect_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = demo_config(tmp_path, n=20, observe={"prometheus_port": port})
        with pytest.raises(ConfigError, match=rf"observe\.prometheus_port {port}: found .*use, wanted a free port"):
            label_corpus(config)
    assert not (tmp_path / "work").exists()


def test_json_lines_name_run_stage_and_shard_and_hold_nothing_else(tmp_path):
    config = demo_config(tmp_path, n=60, source={"shard_rows": 30}, compute={"workers": 1, "processes": True})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(write_config(tmp_path, config))],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT), "CANDIST_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    shards = [line for line in lines if "shard" in line]
    assert {(line["stage"], line["shard"]) for line in shards} >= {
        (stage, f"{i:05d}") for stage in ("annotate", "predict") for i in range(2)
    }
    assert len({line["run"] for line in shards}) == 1
    assert {"time", "level", "logger", "message", "run", "run_id", "task", "stage", "shard"} == set(shards[0])
    assert any(line["message"].startswith("annotate: 60 texts") and line["stage"] == "annotate" for line in lines)
    assert "My " not in done.stderr
