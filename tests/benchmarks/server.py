"""A chat-completions endpoint that costs next to nothing, so that what a client costs can be seen beside it.

It counts latency from the arrival of a request and does no more than an answer needs; `tests.fakes.ChatServer` keeps
every body and hashes it, for which a wave of 64 requests waits 20 ms.
"""

import asyncio
import json
import selectors
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Self, cast

from tests.fakes import Step

Body = Mapping[str, Any]
_END = b"\r\n\r\n"


class BenchServer:
    """Answers every request, on 127.0.0.1 in a thread of its own. Use it as a context manager.

    Args:
        answer: turns a body into the reply's text.
        latency_of: seconds from the arrival of a request to its answer.
        gate: may refuse a request at once, or turn it down after its latency, by a `Step` of kind status.
        headers_of: gives the headers of good answers.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | Step],
        latency_of: Callable[[Body], float],
        gate: Callable[[Body], Step | None] = lambda body: None,
        headers_of: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.answer, self.latency_of, self.gate, self.headers_of = answer, latency_of, gate, headers_of
        self.n_requests, self.base_url = 0, ""
        # epoll waits in whole milliseconds, which would lengthen every latency.
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = self.loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(timeout=30)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def respond(self, body: Body, arrived_at: float, send: Callable[[bytes], None]) -> None:
        """Answer one request, now or later."""
        if not body["messages"]:
            # Some clients probe so for limits.
            send(_error(Step("status", 400, "no messages")))
            return
        self.n_requests += 1
        if (refusal := self.gate(body)) is not None:
            send(_error(refusal))
            return
        self.loop.call_at(arrived_at + self.latency_of(body), lambda: send(self._answered(body)))

    def _answered(self, body: Body) -> bytes:
        answer = self.answer(body)
        if isinstance(answer, Step):
            return _error(answer)
        n_prompt = sum(len(message["content"]) for message in body["messages"])
        message = {"role": "assistant", "content": answer, "refusal": None}
        usage = {
            "prompt_tokens": n_prompt,
            "completion_tokens": len(answer),
            "total_tokens": n_prompt + len(answer),
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _response(200, {"choices": [choice], "usage": usage}, self.headers_of())


class _Connection(asyncio.Protocol):
    """One connection, kept alive; requests on it come one after the other."""

    def __init__(self, server: BenchServer) -> None:
        self._server, self._received = server, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        arrived_at = self._server.loop.time()
        self._received += data
        head, end, rest = self._received.partition(_END)
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._received = b""
            self._server.respond(json.loads(rest[:length]), arrived_at, self._transport.write)


def _error(step: Step) -> bytes:
    error = {"message": step.text, "type": step.code, "code": step.code, "param": None}
    return _response(step.status, {"error": error}, step.headers)


def _response(status: int, body: Body, headers: Mapping[str, str]) -> bytes:
    payload = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(payload)), **headers}
    head = "".join(f"\r\n{name}: {value}" for name, value in lines.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}{head}".encode() + _END + payload
