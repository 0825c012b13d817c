"""Small real stand-ins: a chat-completions server on loopback, a scripted teacher, a log in memory."""

import asyncio
import hashlib
import json
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from candist_core.ports import Quotas, Reply, Request

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One answer of `ChatServer`, when it is to be other than a plain reply. Make it with the functions below."""

    kind: str
    status: int = 200
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None


def reply(text: str, *, finish_reason: str = "stop") -> Step:
    """A good answer; `finish_reason` "refusal" puts the text into the refusal field."""
    return Step("reply", text=text, code=finish_reason)


def status(number: int, *, code: str | None = None, message: str = "no", **headers: str) -> Step:
    """An error in OpenAI's form. Headers by keyword: `retry_after="1"`."""
    dashed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Step("status", status=number, text=message, code=code, headers=dashed)


def cut() -> Step:
    """The connection ends in the middle of the body."""
    return Step("cut")


def page(number: int = 200) -> Step:
    """An HTML page, as from a proxy."""
    return Step("raw", status=number, text="<html>hello</html>", headers={"content-type": "text/html"})


def raw(text: str, number: int = 200) -> Step:
    """Any body, as JSON by its header."""
    return Step("raw", status=number, text=text, headers={"content-type": "application/json"})


def hang() -> Step:
    """No answer for an hour."""
    return Step("hang")


def drip() -> Step:
    """A blank every hundredth of a second, for an hour: never silent, never done."""
    return Step("drip")


def user_text(body: Body) -> str:
    """The bare text in a request of `candist_core.prompt`: the user message without its marker lines."""
    return "\n".join(str(body["messages"][-1]["content"]).split("\n")[1:-1])


def first_label(body: Body) -> str:
    """Answer with the first label of the request's schema."""
    item = body["response_format"]["json_schema"]["schema"]["properties"]["candidates"]["items"]
    return json.dumps({"candidates": item["enum"][:1]})


class ChatServer:
    """A chat-completions endpoint on 127.0.0.1, in a thread of its own.

    Use it as a context manager. `answer` turns a request's body into the reply's text, or into a `Step`. Steps given to
    `script` come first, one a request in the order of arrival. What was asked can be read at any time: `requests`
    (bodies), `headers`, `counts` (requests by a hash of their messages), `max_in_flight`.

    `latency_s` may be a function of the body. `gate` may answer with a `Step` before any latency passes.
    `headers_of` gives the headers of good answers.

    Tokens reported: one a character of prompt and reply, `cached_tokens` of the prompt as cached.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | Step] = first_label,
        *,
        latency_s: float | Callable[[Body], float] = 0.0,
        cached_tokens: int = 0,
        gate: Callable[[Body], Step | None] = lambda body: None,
        headers_of: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._headers_of = headers_of
        self._answer, self._latency_s, self._cached_tokens, self._gate = answer, latency_s, cached_tokens, gate
        self._steps: deque[Step] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.in_flight = self.max_in_flight = 0
        self.base_url = ""

    def script(self, steps: Iterable[Step]) -> None:
        """Answer the next requests so, one step each."""
        self._steps.extend(steps)

    def __enter__(self) -> Self:
        self._thread.start()
        self._runner: web.AppRunner = self._run(self._serve())
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _serve(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        # Requests that hang are cancelled with their connection.
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body["messages"]:
            # Some clients probe so for limits.
            return web.json_response({"error": {"message": "no messages", "code": None}}, status=400)
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.counts[hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            if (refusal := self._gate(body)) is not None:
                return await self._respond(request, body, refusal)
            latency_s = self._latency_s(body) if callable(self._latency_s) else self._latency_s
            if latency_s:
                await asyncio.sleep(latency_s)
            step = self._steps.popleft() if self._steps else self._answer(body)
            if isinstance(step, Step):
                return await self._respond(request, body, step)
        finally:
            self.in_flight -= 1
        # After the count, since a client that has its answer may ask again before this function goes on.
        return await self._respond(request, body, reply(step))

    async def _respond(self, request: web.Request, body: Body, step: Step) -> web.StreamResponse:
        if step.kind == "hang":
            await asyncio.sleep(3600)
        if step.kind == "drip":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(360_000):
                await response.write(b" ")
                await asyncio.sleep(0.01)
        if step.kind == "cut":
            response = web.StreamResponse(headers={"content-length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            assert request.transport is not None
            request.transport.abort()
            return response
        if step.kind == "raw":
            return web.Response(status=step.status, text=step.text, headers=step.headers)
        if step.kind == "status":
            error = {"error": {"message": step.text, "type": step.code, "code": step.code, "param": None}}
            return web.json_response(error, status=step.status, headers=step.headers)
        return web.json_response(self._completion(body, step), headers=self._headers_of())

    def _completion(self, body: Body, step: Step) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": step.text, "refusal": None}
        if step.code == "refusal":
            message.update(content=None, refusal=step.text)
        prompt_tokens = sum(len(message["content"]) for message in body["messages"])
        usage = {
            "prompt_tokens": prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": min(self._cached_tokens, prompt_tokens)},
            "completion_tokens": len(step.text),
            "total_tokens": prompt_tokens + len(step.text),
        }
        finish_reason = "stop" if step.code == "refusal" else step.code
        return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}


class ScriptedTeacher:
    """A `Teacher` without a network. `script` holds, by doc_id, what the first attempts bring: an error or a text.

    After that `answer` gives the reply. `asked` lists the doc_ids of all attempts in order.
    """

    name = "scripted:1"
    quotas = Quotas()

    def __init__(
        self,
        answer: Callable[[Request], str] = lambda request: '{"candidates": ["spam"]}',
        script: Mapping[str, Sequence[Exception | str]] | None = None,
        *,
        latency_s: float = 0.0,
        cost_usd: float | None = 0.0,
    ) -> None:
        self._answer, self._latency_s, self._cost_usd = answer, latency_s, cost_usd
        self._script = defaultdict(deque, {doc_id: deque(steps) for doc_id, steps in (script or {}).items()})
        self.asked: list[str] = []
        self.in_flight = self.max_in_flight = 0
        self.is_closed = False

    async def ask(self, request: Request) -> Reply:
        self.asked.append(request.doc_id)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._latency_s)
            steps = self._script[request.doc_id]
            step = steps.popleft() if steps else self._answer(request)
            if isinstance(step, Exception):
                raise step
            return Reply(
                request.key, request.doc_id, step, "stop",
                prompt_tokens=10, cached_tokens=4, completion_tokens=2, cost_usd=self._cost_usd,
            )  # fmt: skip
        finally:
            self.in_flight -= 1

    async def close(self, is_kept: bool = True) -> None:
        self.is_closed = True


class MemoryLog:
    """A `ReplyLog` that keeps everything in dictionaries; what is not flushed is in `pending` alone."""

    def __init__(self, kept: Iterable[Reply] = ()) -> None:
        self.kept = {reply.request_key: reply for reply in kept}
        self.pending: dict[str, Reply] = {}
        self.flushed: list[int] = []
        self.flush_threads: set[int] = set()

    def lookup(self, keys: Iterable[str]) -> Mapping[str, Reply]:
        return {key: self.kept[key] for key in keys if key in self.kept}

    @property
    def has_any(self) -> bool:
        return bool(self.kept)

    def append(self, reply: Reply) -> None:
        self.pending[reply.request_key] = reply

    def flush(self) -> None:
        self.flush_threads.add(threading.get_ident())
        batch = dict(self.pending)
        self.kept.update(batch)
        self.flushed.append(len(batch))
        for key in batch:
            del self.pending[key]

    def close(self) -> None:
        self.flush()
