"""What the annotation stage costs beside bare clients, against one loopback server in a process of its own.

`python -m tests.benchmarks.bench_annotate` prints a Markdown table: rows a second of wall time, CPU seconds of the
client for 1,000 rows, and requests sent, the median of `--runs` runs taken in turn.

- plain aiohttp: posts the same bodies over a pool and reads the answers, nothing else;
- openai client: `openai.AsyncOpenAI` with its default transport, one `create` a row, nothing else;
- candist stage: prompt, request, parse, reply log on disk, annotations table.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import polars as pl

from candist_core.annotate import annotate
from candist_core.config import Location, TeacherConfig
from candist_core.edges.openai_teacher import OpenAITeacher
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import open_store
from candist_core.prompt import compile_prompt
from candist_core.spec import TaskSpec
from tests.fakes import ChatServer

SPEC = TaskSpec(labels=[{"name": f"label_{i}", "description": "one of a dozen"} for i in range(12)])


def serve(latency_s: float, pipe: Connection) -> None:
    """Answer until told to stop; tells its URL first and its number of requests at each word received."""
    with ChatServer(latency_s=latency_s) as server:
        pipe.send(server.base_url)
        while pipe.recv():
            pipe.send(len(server.requests))
            server.requests.clear()


async def plain(url: str, texts: list[str], in_flight: int) -> None:
    """Post the same bodies as candist does, with aiohttp alone."""
    prompt, queue = compile_prompt(SPEC, TeacherConfig()), iter(texts)
    head = prompt.head
    shared = {"model": head.model, **head.sampling, "response_format": head.response_format}
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def slot() -> None:
            for text in queue:
                messages = [{"role": "system", "content": head.system}, {"role": "user", "content": text}]
                async with session.post(f"{url}/chat/completions", json=shared | {"messages": messages}) as response:
                    await response.read()

        await asyncio.gather(*(slot() for _ in range(in_flight)))


async def bare_openai(url: str, texts: list[str], in_flight: int) -> None:
    """One `create` a row with the client's defaults."""
    import openai

    prompt, queue = compile_prompt(SPEC, TeacherConfig()), iter(texts)
    head = prompt.head
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def slot() -> None:
            for text in queue:
                await client.chat.completions.create(
                    model=head.model,
                    messages=[{"role": "system", "content": head.system}, {"role": "user", "content": text}],
                    response_format=head.response_format,
                    **head.sampling,
                )

        await asyncio.gather(*(slot() for _ in range(in_flight)))


async def stage(url: str, texts: list[str], in_flight: int) -> None:
    """The whole of candist's annotation, its reply log in a temporary folder."""
    config = TeacherConfig(base_url=url, max_in_flight=in_flight)
    frame = pl.DataFrame({"doc_id": [str(i) for i in range(len(texts))], "text": texts})
    teacher, prompt = OpenAITeacher(config, "none", None), compile_prompt(SPEC, config)
    with tempfile.TemporaryDirectory() as folder:
        log = StoreReplyLog(open_store(Location(uri=folder)), prompt.head.fingerprint, "0", Path(folder) / "spool")
        result = await annotate(
            frame, SPEC, prompt, teacher, log, max_in_flight=in_flight, max_attempts=6, allowance=None
        )
        log.close()
    await teacher.close()
    assert result.annotations.height == len(texts)


Client = Callable[[str, list[str], int], Coroutine[object, object, None]]
CLIENTS: dict[str, Client] = {"plain aiohttp": plain, "openai client": bare_openai, "candist stage": stage}


def measure(client: Client, url: str, texts: list[str], in_flight: int) -> tuple[float, float]:
    """Wall and CPU seconds of one run, in a fresh process so that no client warms another."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_measured, args=(sending, client, url, texts, in_flight))
    process.start()
    seconds: tuple[float, float] = receiving.recv()
    process.join()
    return seconds


def _measured(sending: Connection, client: Client, url: str, texts: list[str], in_flight: int) -> None:
    # Imports and the first request's set-up are no part of the rate.
    asyncio.run(client(url, ["warm up"], 1))
    before, started_at = _cpu_s(), time.perf_counter()
    asyncio.run(client(url, texts, in_flight))
    sending.send((time.perf_counter() - started_at, _cpu_s() - before))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Parse the arguments, measure in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    texts = [f"message {i}: my connection has been slow since {i % 12} o'clock" for i in range(options.rows)]
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.latency_s, theirs), daemon=True)
    server.start()
    url = ours.recv()
    print("| in flight | client | rows/s | CPU s / 1,000 rows | requests |\n|---|---|---|---|---|")
    for in_flight in options.in_flight:
        results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in CLIENTS}
        for _ in range(options.runs):
            for name, client in CLIENTS.items():
                seconds = measure(client, url, texts, in_flight)
                ours.send(True)
                results[name].append((*seconds, ours.recv()))
        for name, runs in results.items():
            wall, cpu, requests = (statistics.median(column) for column in zip(*runs, strict=True))
            rate, cost = options.rows / wall, 1000 * cpu / options.rows
            print(f"| {in_flight} | {name} | {rate:.0f} | {cost:.2f} | {requests:.0f} |", flush=True)
    ours.send(False)
    print(json.dumps({"rows": options.rows, "latency_s": options.latency_s, "runs": options.runs}))


if __name__ == "__main__":
    main()
