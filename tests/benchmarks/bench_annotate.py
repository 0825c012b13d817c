"""What the annotation stage costs beside bare clients, against one loopback server in a process of its own.

`python -m tests.benchmarks.bench_annotate` prints Markdown tables: rows a second of wall time, CPU seconds of the
client for 1,000 rows, and requests sent, the median of `--runs` runs taken in turn; `--cases` adds endpoints that
misbehave (`tests.benchmarks.cases`).

- plain aiohttp: posts the same bodies over a pool and reads the answers, nothing else;
- openai client: `openai.AsyncOpenAI` with its default transport, one `create` a row, nothing else; where the endpoint
  misbehaves, with ten retries;
- openai over aiohttp: the same client on its aiohttp transport, raw responses, read as JSON;
- candist stage: prompt, request, parse, reply log on disk, annotations table.
"""

import argparse
import asyncio
import gc
import heapq
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import polars as pl

from candist_core.annotate import annotate
from candist_core.config import Location
from candist_core.edges.openai_teacher import OpenAITeacher
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import open_store
from candist_core.prompt import compile_prompt
from candist_core.spec import TaskSpec
from candist_core.teacher_config import TeacherConfig
from tests.benchmarks.cases import CASES, latency_of, make_server

SPEC = TaskSpec(labels=[{"name": f"label_{i}", "description": "one of a dozen"} for i in range(12)])


def texts_of(rows: int) -> list[str]:
    """The texts that every client labels."""
    return [f"message {i}: my connection has been slow since {i % 12} o'clock" for i in range(rows)]


def serve(latency_s: float, pipe: Connection, case: str | None = None) -> None:
    """Answer until told to stop; tells its URL first and its number of requests at each word received."""
    with make_server(latency_s, case) as server:
        pipe.send(server.base_url)
        while pipe.recv():
            pipe.send(server.n_requests)
            server.n_requests = 0


async def plain(url: str, texts: Sequence[str], in_flight: int) -> int:
    """Post the same bodies as candist does, with aiohttp alone; the rows answered."""
    prompt, queue = compile_prompt(SPEC, TeacherConfig()), iter(texts)
    head = prompt.head
    shared = {"model": head.model, **head.sampling, "response_format": head.response_format}
    connector = aiohttp.TCPConnector(limit=in_flight)
    n_ok = 0
    async with aiohttp.ClientSession(connector=connector) as session:

        async def slot() -> None:
            nonlocal n_ok
            for text in queue:
                messages = [{"role": "system", "content": head.system}, {"role": "user", "content": text}]
                async with session.post(f"{url}/chat/completions", json=shared | {"messages": messages}) as response:
                    await response.read()
                    n_ok += response.status == 200

        await asyncio.gather(*(slot() for _ in range(in_flight)))
    return n_ok


async def bare_openai(url: str, texts: Sequence[str], in_flight: int) -> int:
    """One `create` a row with the client's own retries; the rows answered."""
    import openai

    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=10) as client:
        return await _create_all(client.chat.completions.create, texts, in_flight)


async def openai_over_aiohttp(url: str, texts: Sequence[str], in_flight: int) -> int:
    """The fastest way that the openai client has: its aiohttp transport, raw responses; the rows answered."""
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    transport = openai.DefaultAioHttpClient(limits=limits)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, http_client=transport) as client:

        async def create(**body: Any) -> None:
            json.loads((await client.chat.completions.with_raw_response.create(**body)).content)

        return await _create_all(create, texts, in_flight)


async def _create_all(create: Callable[..., Any], texts: Sequence[str], in_flight: int) -> int:
    import openai

    prompt, queue = compile_prompt(SPEC, TeacherConfig()), iter(texts)
    head = prompt.head
    n_ok = 0

    async def slot() -> None:
        nonlocal n_ok
        for text in queue:
            try:
                await create(
                    model=head.model,
                    messages=[{"role": "system", "content": head.system}, {"role": "user", "content": text}],
                    response_format=head.response_format,
                    **head.sampling,
                )
            except openai.APIStatusError:
                # A lost row; the count shows it.
                continue
            n_ok += 1

    await asyncio.gather(*(slot() for _ in range(in_flight)))
    return n_ok


async def stage(url: str, texts: Sequence[str], in_flight: int) -> int:
    """The whole of candist's annotation, its reply log in a temporary folder; the rows labelled."""
    config = TeacherConfig(base_url=url, max_in_flight=in_flight)
    frame = pl.DataFrame({"doc_id": [str(i) for i in range(len(texts))], "text": texts})
    teacher, prompt = OpenAITeacher(config, "none", None), compile_prompt(SPEC, config)
    folder = tempfile.mkdtemp()
    log = StoreReplyLog(open_store(Location(uri=folder)), prompt.head.fingerprint, "0", Path(folder) / "spool")
    result = await annotate(frame, SPEC, prompt, teacher, log, config)
    log.close()
    await teacher.close()
    assert result.annotations.height == len(texts)
    return len(texts) - result.rejects.height


Client = Callable[[str, Sequence[str], int], Coroutine[object, object, int]]
CLIENTS: dict[str, Client] = {
    "plain aiohttp": plain,
    "openai client": bare_openai,
    "openai over aiohttp": openai_over_aiohttp,
    "candist stage": stage,
}


def measure(client: Client, url: str, texts: Sequence[str], in_flight: int) -> tuple[float, float, int]:
    """Wall and CPU seconds of one run and its rows, in a fresh process so that no client warms another."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.Process(target=_measured, args=(sending, client, url, texts, in_flight, folder))
        process.start()
        # With its own end closed here, a client that dies ends the wait.
        sending.close()
        found: tuple[float, float, int] = receiving.recv()
        process.join()
    return found


def _measured(sending: Connection, client: Client, url: str, texts: Sequence[str], in_flight: int, folder: str) -> None:
    # Removed by the parent: taking the folder away again is no part of asking.
    tempfile.tempdir = folder
    # Imports and the first request's set-up are no part of the rate.
    asyncio.run(client(url, ["warm up"], 1))
    gc.collect()
    before, started_at = _cpu_s(), time.perf_counter()
    n_ok = asyncio.run(client(url, texts, in_flight))
    sending.send((time.perf_counter() - started_at, _cpu_s() - before, n_ok))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ideal_s(texts: Sequence[str], in_flight: int, latency_s: float) -> float:
    """How long the texts take in so many slots when each free slot takes the next one and nothing else costs time."""
    slots = [0.0] * in_flight
    for text in texts:
        heapq.heapreplace(slots, slots[0] + latency_of(text, latency_s))
    return max(slots)


def compare(case: str | None, texts: Sequence[str], in_flight: int, options: argparse.Namespace) -> None:
    """Print the rows of one table: every client in turn against one server."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.latency_s, theirs, case), daemon=True)
    server.start()
    url = ours.recv()
    # Bare loops without retries lose rows where the endpoint refuses; they would be no measure there.
    bare = (plain, openai_over_aiohttp) if case and case != "slow_tail" else ()
    clients = {name: client for name, client in CLIENTS.items() if client not in bare}
    results: dict[str, list[tuple[float, float, int, int]]] = {name: [] for name in clients}
    for _ in range(options.runs):
        for name, client in clients.items():
            found = measure(client, url, texts, in_flight)
            ours.send(True)
            results[name].append((*found, ours.recv()))
    for name, runs in results.items():
        wall, cpu, n_ok, requests = (statistics.median(column) for column in zip(*runs, strict=True))
        rate, cost = len(texts) / wall, 1000 * cpu / len(texts)
        label = f"{case}, {name}" if case else name
        print(
            f"| {in_flight} | {label} | {rate:.{1 if case else 0}f} | {cost:.2f} | {requests:.0f} | {n_ok:.0f} |",
            flush=True,
        )
    ours.send(False)
    server.join()


def main() -> None:
    """Parse the arguments, measure in turn, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=[], help="endpoints that misbehave, 64 in flight")
    options = parser.parse_args()
    print("| in flight | client | rows/s | CPU s / 1,000 rows | requests | rows labelled |\n|---|---|---|---|---|---|")
    for in_flight in options.in_flight if not options.cases else ():
        compare(None, texts_of(options.rows), in_flight, options)
    for case in options.cases:
        compare(case, texts_of(options.rows), 64, options)
    if "slow_tail" in options.cases:
        seconds = ideal_s(texts_of(options.rows), 64, options.latency_s)
        print(f"\nideal schedule of slow_tail: {options.rows / seconds:.1f} rows/s")
    print(json.dumps({"rows": options.rows, "latency_s": options.latency_s, "runs": options.runs}))


if __name__ == "__main__":
    main()
