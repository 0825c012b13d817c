"""A double of the Hugging Face Hub on loopback, as its client speaks to it."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

ID = "acme/mails"


class Hub:
    """A Hub with room for one data set; keeps its files, commits and tags. `status` refuses every request."""

    def __init__(self):
        self.files, self.messages, self.tags, self.private, self.status, self.tokens = {}, [], {}, None, None, set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.tokens.add(self.headers.get("Authorization"))
                status, said = (
                    (hub.status, {"error": "no"}) if hub.status else hub.serve(urlsplit(self.path).path, body)
                )
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_HEAD = answer  # noqa: N815 (names given by http.server)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, path, body):
        if path == "/api/repos/create":
            known = self.private is not None
            self.private = self.private if known else json.loads(body)["visibility"] == "private"
            return (409 if known else 200), {"url": f"{self.url}/datasets/{ID}", "name": ID}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            same = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": name, "oid": self.blob(name), **same} for name in names]}
        if "/tree/main" in path:
            return 200, [
                {"type": "file", "path": name, "size": len(data), "oid": self.blob(name)}
                for name, data in self.files.items()
            ]
        if path.endswith("/commit/main"):
            return 200, self.commit([json.loads(line) for line in body.splitlines()])
        if found := re.search(r"/tag/(.+)$", path):
            self.tags[json.loads(body)["tag"]] = found[1]
            return 200, {}
        siblings = [{"rfilename": name} for name in self.files]
        return 200, {"id": ID, "sha": self.head, "siblings": siblings, "private": self.private, "tags": []}

    def blob(self, name):
        data = self.files.get(name)
        return None if data is None else hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()

    @property
    def head(self):
        return hashlib.sha1(str(len(self.messages)).encode()).hexdigest()

    def commit(self, lines):
        for line in lines:
            if line["key"] == "header":
                self.messages.append(line["value"]["summary"])
            elif line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        return {"success": True, "commitOid": self.head, "commitUrl": f"{self.url}/datasets/{ID}/commit/{self.head}"}


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    # Read by the client when it is imported, perhaps by an earlier test.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
