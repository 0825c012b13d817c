"""A receiver of OpenLineage is told of each new version, and none is needed for a version to stand."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from candist_core.config import Location
from candist_core.edges.lineage import tell_lineage
from candist_core.edges.store import open_store
from candist_core.versions import read_manifest
from tests.published import publish_mails


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 201

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, self.headers.get("authorization"), json.loads(body)))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.got = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def manifest(tmp_path):
    publish_mails(Location(uri=str(tmp_path)))
    return read_manifest(open_store(Location(uri=str(tmp_path))), "mails")


@pytest.mark.slow
def test_a_new_version_is_told_with_what_it_was_made_of(receiver, manifest, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k")
    assert tell_lineage(receiver.url, manifest, "s3://bucket/sets/mails")
    ((path, key, event),) = receiver.got
    assert (path, key) == ("/api/v1/lineage", "Bearer k")
    assert event["eventType"] == "COMPLETE"
    assert (event["job"]["namespace"], event["job"]["name"]) == ("candist", "mails")
    (output,) = event["outputs"]
    assert (output["namespace"], output["name"]) == ("s3://bucket", "sets/mails")
    assert output["facets"]["version"]["datasetVersion"] == "1"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 5
    assert len(event["inputs"]) == len(manifest.source_files)


@pytest.mark.slow
def test_the_same_version_is_the_same_run_for_the_receiver(receiver, manifest):
    for _ in range(2):
        tell_lineage(receiver.url, manifest, "published/mails")
    first, second = (event["run"]["runId"] for _, _, event in receiver.got)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 500, "http://127.0.0.1:9", "http:///nowhere"])
def test_a_receiver_that_fails_is_no_failure_of_the_publication(receiver, manifest, monkeypatch, status, caplog):
    url = status if isinstance(status, str) else receiver.url
    monkeypatch.setattr(_Receiver, "status", status)
    assert tell_lineage(url, manifest, "published/mails") is False
    assert "OpenLineage was not told of published/mails version 1" in caplog.text
