"""Whether the annotation of a large corpus stays flat in memory and linear in time, in one process.

`python -m tests.benchmarks.bench_memory --texts 1000000` annotates so many distinct short texts, shard by shard and
made shard by shard, with a teacher that answers at once: texts table, reply log, annotations table and done-marker in
a store on disk. It prints two Markdown tables: one row for the whole, and one for each tenth, whose rate and memory
should not change from the first to the last.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import psutil  # type: ignore[import-untyped]

from candist_core.annotate import Annotations, annotate
from candist_core.config import Location
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import Store, open_store
from candist_core.ports import Quotas, Reply, ReplyLog, Request
from candist_core.prompt import compile_prompt
from candist_core.reports import AnnotateReport
from candist_core.spec import TaskSpec
from candist_core.tables import ANNOTATIONS, REJECTS, TEXTS, TableRef
from candist_core.teacher_config import TeacherConfig

SPEC = TaskSpec(labels=[{"name": f"label_{i}", "description": "one of a dozen"} for i in range(12)])
PROMPT = compile_prompt(SPEC, TeacherConfig())
IN_FLIGHT = 64
_MIB = 2**20


class InstantTeacher:
    """Answers at once and keeps nothing, so that what grows is candist's."""

    name = "instant:1"
    quotas = Quotas()

    async def ask(self, request: Request) -> Reply:
        await asyncio.sleep(0)
        text = f'{{"candidates": ["label_{len(request.text) % 12}"]}}'
        return Reply(request.key, request.doc_id, text, "stop", 100, 80, 8, 0.0001, 0.2)

    async def close(self, is_kept: bool = True) -> None:
        """Nothing is open."""


def annotated(texts: pl.DataFrame, log: ReplyLog, part: str) -> Annotations:
    """The one call of the core."""
    teacher = InstantTeacher()
    return asyncio.run(annotate(texts, SPEC, PROMPT, teacher, log, TeacherConfig(max_in_flight=IN_FLIGHT), part=part))


def annotate_one(store: Store, texts: TableRef, spool_dir: Path) -> None:
    """One shard as the stage does it, without the checks."""
    part = Path(texts.uri).stem
    with closing(StoreReplyLog(store, PROMPT.head.fingerprint, part, spool_dir)) as log:
        result = annotated(store.read_table(texts), log, part)
    assert result.annotations.height == texts.rows
    report = AnnotateReport(
        annotations=store.write_table(f"annotations/{part}.parquet", result.annotations, ANNOTATIONS),
        rejects=store.write_table(f"annotations/{part}-rejects.parquet", result.rejects, REJECTS),
        usage=result.usage,
        statuses=dict(Counter(result.annotations["status"])),
        set_sizes=dict(Counter(result.annotations["candidates"].list.len().to_list())),
    )
    store.mark_done("annotate", part, report)


def shards(n_texts: int, shard_rows: int) -> Iterator[pl.DataFrame]:
    """Distinct texts of some 60 characters."""
    for start in range(0, n_texts, shard_rows):
        numbers = range(start, min(start + shard_rows, n_texts))
        texts = [f"message {i}: my connection has been slow since {i % 12} o'clock" for i in numbers]
        yield pl.DataFrame({"doc_id": [str(i) for i in numbers], "text": texts}, schema=TEXTS.columns)


def peak_mib() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def measure(n_texts: int, shard_rows: int, folder: Path) -> Iterator[tuple[int, float, float]]:
    """After each tenth: texts done, seconds since the start, memory held (MiB)."""
    store, process = open_store(Location(uri=str(folder))), psutil.Process()
    started_at, n_done, n_told = time.perf_counter(), 0, 0
    for i, frame in enumerate(shards(n_texts, shard_rows)):
        annotate_one(store, store.write_table(f"texts/{i:05d}.parquet", frame, TEXTS), folder / "spool")
        n_done += frame.height
        if n_done * 10 // n_texts > n_told:
            n_told = n_done * 10 // n_texts
            yield n_done, time.perf_counter() - started_at, process.memory_info().rss / _MIB


def main() -> None:
    """Parse the arguments, run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--shard-rows", type=int, default=5_000)
    options = parser.parse_args()
    print("| texts | s | rows/s in this tenth | RSS (MiB) |\n|---|---|---|---|")
    n_before, before_s, at_s = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for n_done, at_s, rss_mib in measure(options.texts, options.shard_rows, Path(folder)):
            rate = (n_done - n_before) / (at_s - before_s)
            print(f"| {n_done:,} | {at_s:.1f} | {rate:,.0f} | {rss_mib:.0f} |", flush=True)
            n_before, before_s = n_done, at_s
    print("\n| texts | rows/s | peak RSS (MiB) |\n|---|---|---|")
    print(f"| {options.texts:,} | {options.texts / at_s:,.0f} | {peak_mib():.0f} |")


if __name__ == "__main__":
    main()
