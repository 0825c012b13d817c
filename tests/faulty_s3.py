"""A loopback proxy in front of an S3 server that answers wrongly, cuts, loses or holds back what it is told to."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An error in place of the server's answer; the request does not reach it."""

    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


CUT = "cut"
"""The connection ends without an answer, and the request does not reach the server."""
LOST = "lost"
"""The server does what it is asked to; its answer is lost."""
HELD = "held"
"""No answer ever comes."""

Fault = Answer | str | None
Choose = Callable[[int, str, str], Fault]


class FaultyS3:
    """The proxy. `choose` is asked for each request, by its number from 0, its method and its path and query."""

    def __init__(self, upstream: str) -> None:
        self.upstream, self.choose = upstream, _never
        self.requests: list[tuple[str, str]] = []
        self.lock, self.ended = threading.Lock(), threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def plan(self, choose: Choose) -> None:
        """Begin to count anew, and choose by this from now on."""
        with self.lock:
            self.requests, self.choose = [], choose


def _never(number: int, method: str, path: str) -> Fault:
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyS3

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.proxy.lock:
            number = len(self.proxy.requests)
            self.proxy.requests.append((self.command, self.path))
            fault = self.proxy.choose(number, self.command, self.path)
        if isinstance(fault, Answer):
            text = f"<Error><Code>{fault.code}</Code><Message>words of the store</Message></Error>".encode()
            self._answer(fault.status, fault.headers, text)
        elif fault == HELD:
            self.proxy.ended.wait(60)
            self.close_connection = True
        elif fault == CUT:
            self.close_connection = True
        else:
            status, headers, data = self._forward(body)
            if fault == LOST:
                self.close_connection = True
            else:
                self._answer(status, headers, data)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(self.proxy.upstream)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP and not (name.lower() == "content-length" and self.command != "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("content-length", str(len(data)))
        elif not any(name.lower() == "content-length" for name in headers):
            self.send_header("content-length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 (names given by http.server)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""
