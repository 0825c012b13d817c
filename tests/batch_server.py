"""A batch endpoint on loopback: files up and down, batches made, looked at, listed and cancelled."""

import asyncio
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import Body, ChatServer, Step, first_label, reply

Line = Mapping[str, Any]
_ENDED = ("completed", "failed", "expired", "cancelled")


def lost() -> Step:
    """The server does what it is asked; its answer never arrives."""
    return Step("lost")


def unfinished() -> Step:
    """The day was too short for this request: a line in the error file, without an answer."""
    return Step("unfinished")


def missing() -> Step:
    """No line about this request anywhere."""
    return Step("missing")


@dataclass(frozen=True)
class Plan:
    """What becomes of one batch: a state at its making and one more each time it is looked at; the last one stays.

    `line` says what comes of the i-th request: None for the server's own answer, a `Step` for anything else.
    """

    states: Sequence[str] = ("validating", "in_progress", "finalizing", "completed")
    line: Callable[[int, Body], Step | None] = lambda index, body: None
    errors: Sequence[tuple[str, str]] = ()


@dataclass
class _Batch:
    id: str
    input_file_id: str
    metadata: Mapping[str, str]
    plan: Plan
    n_looks: int = 0
    files: dict[str, str | None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return self.plan.states[min(self.n_looks, len(self.plan.states) - 1)]


class BatchServer(ChatServer):
    """A batch endpoint on 127.0.0.1, in a thread of its own; use it as a context manager.

    `plans` are those of the next batches; later ones run to their end undisturbed. `faults[route]` come in place of the
    next answers of a route: upload, content, create, retrieve, list, cancel. `hooks[route]` is called with "before" and
    "after". With `queue_limit` a batch fails its validation when more requests than that would be under way.

    To be read at any time: `calls` by route, `created` (how often each custom_id stood in a batch that was taken),
    `paid` (how often each was answered), `sizes` (requests of every batch, also if not taken), `bodies` by custom_id.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | Step] = first_label,
        *,
        plans: Iterable[Plan] = (),
        queue_limit: int | None = None,
        page: int = 100,
        cached_tokens: int = 0,
    ) -> None:
        super().__init__(answer, cached_tokens=cached_tokens)
        self.plans, self.queue_limit, self._page = deque(plans), queue_limit, page
        self.faults: defaultdict[str, deque[Step]] = defaultdict(deque)
        self.hooks: dict[str, Callable[[str], None]] = {}
        self.calls: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, _Batch] = {}

    async def _serve(self) -> web.AppRunner:
        app = web.Application(client_max_size=2**28)
        for method, path, route in (
            ("POST", "/v1/files", "upload"),
            ("GET", "/v1/files/{id}/content", "content"),
            ("POST", "/v1/batches", "create"),
            ("GET", "/v1/batches", "list"),
            ("GET", "/v1/batches/{id}", "retrieve"),
            ("POST", "/v1/batches/{id}/cancel", "cancel"),
        ):
            app.router.add_route(method, path, self._handler(route))
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    def _handler(self, route: str) -> Callable[[web.Request], Any]:
        act = getattr(self, f"_{route}")

        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls[route] += 1
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            hook = self.hooks.get(route, lambda when: None)
            # In a thread of its own: it may wait for a process to die.
            await asyncio.to_thread(hook, "before")
            fault = self.faults[route].popleft() if self.faults[route] else None
            if fault is not None and fault.kind != "lost":
                return await self._respond(request, {}, fault)
            response: web.StreamResponse = await act(request)
            await asyncio.to_thread(hook, "after")
            return await self._respond(request, {}, Step("cut")) if fault is not None else response

        return handle

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form["purpose"] != "batch":
            return _refused("purpose")
        with form["file"].file as file:  # type: ignore[union-attr]
            data = file.read()
        return web.json_response({"id": self._store(data), "object": "file", "bytes": len(data), "purpose": "batch"})

    async def _content(self, request: web.Request) -> web.Response:
        data = self.files.get(request.match_info["id"])
        return web.Response(body=data) if data is not None else _not_found()

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if (asked["endpoint"], asked["completion_window"]) != ("/v1/chat/completions", "24h"):
            return _refused("endpoint")
        lines = self._lines(asked["input_file_id"])
        ids = [line["custom_id"] for line in lines]
        if len(set(ids)) < len(ids) or len({line["body"]["model"] for line in lines}) > 1:
            return _refused("input_file_id")
        waiting = sum(len(self._lines(batch.input_file_id)) for batch in self.batches.values() if not _is_over(batch))
        plan = self.plans.popleft() if self.plans else Plan()
        if self.queue_limit is not None and waiting + len(lines) > self.queue_limit:
            plan = Plan(("validating", "failed"), errors=[("token_limit_exceeded", "Enqueued token limit reached")])
        if "failed" not in plan.states:
            self.created.update(ids)
        self.sizes.append(len(lines))
        self.bodies.update({line["custom_id"]: line["body"] for line in lines})
        batch = _Batch(f"batch_{len(self.batches)}", asked["input_file_id"], asked.get("metadata") or {}, plan)
        self.batches[batch.id] = batch
        return web.json_response(self._shown(batch))

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _not_found()
        batch.n_looks += 1
        return web.json_response(self._shown(batch))

    async def _list(self, request: web.Request) -> web.Response:
        newest_first = list(reversed(self.batches.values()))
        ids = [batch.id for batch in newest_first]
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        end = start + min(self._page, int(request.query.get("limit", "20")))
        data = [self._shown(batch) for batch in newest_first[start:end]]
        return web.json_response({"object": "list", "data": data, "has_more": end < len(ids)})

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        batch.plan, batch.n_looks = Plan(("cancelling", "cancelled"), batch.plan.line), 0
        return web.json_response(self._shown(batch))

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        if batch.status in ("completed", "expired", "cancelled") and not batch.files:
            self._run_lines(batch)
        errors = [{"code": code, "message": message, "line": None} for code, message in batch.plan.errors]
        return {
            "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "input_file_id": batch.input_file_id, "metadata": batch.metadata, "status": batch.status,
            "created_at": 1_700_000_000, "completed_at": 1_700_000_090 if batch.status == "completed" else None,
            "output_file_id": batch.files.get("output"), "error_file_id": batch.files.get("error", ""),
            "errors": {"object": "list", "data": errors} if batch.status == "failed" else None,
        }  # fmt: skip

    def _run_lines(self, batch: _Batch) -> None:
        """Answer the requests of a batch that has ended, and put results and errors into files."""
        output, error = [], []
        for index, line in enumerate(self._lines(batch.input_file_id)):
            key, body = line["custom_id"], line["body"]
            step = batch.plan.line(index, body) or self._answer(body)
            step = step if isinstance(step, Step) else reply(step)
            if step.kind == "unfinished":
                told = {"code": "batch_expired", "message": "This request could not be executed in time."}
                error.append({"custom_id": key, "response": None, "error": told})
            elif step.kind == "status":
                told = {"error": {"message": step.text, "type": step.code, "code": step.code, "param": None}}
                answer = {"status_code": step.status, "request_id": "r", "body": told}
                error.append({"custom_id": key, "response": answer, "error": None})
            elif step.kind == "raw":
                output.append(step.text)
            elif step.kind == "reply":
                self.paid[key] += 1
                answer = {"status_code": 200, "request_id": "r", "body": self._completion(body, step)}
                output.append({"id": f"r_{index}", "custom_id": key, "response": answer, "error": None})
        # Results come in any order.
        written = {name: _jsonl(reversed(rows)) for name, rows in (("output", output), ("error", error))}
        batch.files = {name: self._store(data) if data else None for name, data in written.items()}

    def _lines(self, file_id: str) -> list[Line]:
        return [json.loads(line) for line in self.files[file_id].splitlines()]

    def _store(self, data: bytes) -> str:
        self.files[f"file-{len(self.files)}"] = data
        return f"file-{len(self.files) - 1}"

    def wait_for(self, route: str, n: int = 1) -> None:
        """Return once a route was called n times."""
        until = time.monotonic() + 20
        while self.calls[route] < n:
            assert time.monotonic() < until, f"{route} was called {self.calls[route]} times"
            time.sleep(0.002)


def _is_over(batch: _Batch) -> bool:
    return batch.status in _ENDED


def _jsonl(rows: Iterable[Line | str]) -> bytes:
    return b"".join((row if isinstance(row, str) else json.dumps(row)).encode() + b"\n" for row in rows)


def _refused(param: str) -> web.Response:
    return web.json_response({"error": {"message": f"bad {param}", "code": "invalid", "param": param}}, status=400)


def _not_found() -> web.Response:
    return web.json_response({"error": {"message": "no such object", "code": None}}, status=404)
