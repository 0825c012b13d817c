"""What Prefect, Dask, checks and files cost beside the bare annotate loop in one process, measured in one run.

`python -m tests.benchmarks.bench_overhead` prints a Markdown table. Both ask the same texts of the same loopback server
(in a process of its own, 200 ms an answer) with 64 in flight, each in a fresh process:

- bare loop: the texts in memory, the annotate loop, its replies kept on disk (`bench_annotate`'s candist stage);
- run: what `candist run` does up to the checks of the annotations: corpus file, ingest, a Dask cluster started, shards
  as Prefect tasks on it, tables, done-markers, Great Expectations. Prefect's server runs before, as one does where
  runs are scheduled; what starting one costs stands in a line of its own.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from prefect import flow
from prefect_dask import DaskTaskRunner

from candist_core.config import RunConfig, parse_config
from candist_core.stages.plan import plan_annotation
from candist_core.stages.preflight import preflight
from flows.annotation import annotate_shards
from flows.approval import approve_cost
from flows.distillation import check_place
from flows.gate import Gate
from flows.progress import Watch
from flows.runner import Cluster
from flows.server import private_server, quiet_environment
from tasks.check import check_annotations, check_corpus
from tasks.ingest import ingest_corpus
from tasks.policy import as_is
from tests.benchmarks.bench_annotate import SPEC, measure, serve, stage, texts_of


@flow(name="annotate-only", task_runner=DaskTaskRunner(), persist_result=False)
def annotate_only(config: RunConfig) -> dict[str, float]:
    """The main flow up to the checks of the annotations; seconds of each part."""
    since = time.perf_counter()
    with Watch() as watch:
        cluster = Cluster(config.compute, watch.hear)
        preflight(config)
        check_place(config)
        ingested = ingest_corpus(config)
        checks = [*check_corpus(config, ingested)]
        approve_cost(config)
        marks = [time.perf_counter()]
        cluster.connect()
        marks.append(time.perf_counter())
        annotated = annotate_shards(plan_annotation(config), ingested.texts, cluster, watch, Gate())
        marks.append(time.perf_counter())
        checks += check_annotations(config, as_is(annotated))
        marks.append(time.perf_counter())
    assert not any(check.stops for check in checks)
    assert sum(report.annotations.rows for report in annotated) == ingested.n_texts
    names = ("ingest", "cluster", "annotate", "check")
    return {name: now - before for name, before, now in zip(names, [since, *marks], marks, strict=False)}


def configured(folder: Path, url: str, n_texts: int, in_flight: int, shard_rows: int) -> RunConfig:
    """A run over texts in a file, with everything inside the folder."""
    rows = [{"id": f"m{i}", "text": text} for i, text in enumerate(texts_of(n_texts))]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return parse_config(
        {
            "name": "overhead",
            "task": SPEC.model_dump(mode="json"),
            "source": {"uri": str(folder / "corpus.jsonl"), "id": "id", "shard_rows": shard_rows},
            "store": {"uri": str(folder / "work")},
            "teacher": {"base_url": url, "max_in_flight": in_flight, "api_key_env": "BENCH_KEY"},
            # Every answer of the server is its first label.
            "checks": {"on_fail": "warn"},
            "publish": {"uri": str(folder / "published")},
        }
    )


def run_flow(sending: Connection, folder: str, url: str, options: argparse.Namespace) -> None:
    """The flow in a process of its own: seconds until its server answers, of the flow, and of its parts."""
    os.environ.update(quiet_environment() | {"BENCH_KEY": "none"})
    config = configured(Path(folder), url, options.texts, options.in_flight, options.shard_rows)
    since = time.perf_counter()
    with private_server():
        server_s = time.perf_counter() - since
        walls = annotate_only(config)
        # What follows in a whole run, the closing of the cluster too, is no part of it.
        sending.send((server_s, sum(walls.values()), walls))


def in_process(work: Callable[..., None], *arguments: object) -> tuple[float, float, dict[str, float]]:
    """What the work sends from a fresh process."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(sending, *arguments))
    process.start()
    sending.close()
    found: tuple[float, float, dict[str, float]] = receiving.recv()
    process.join()
    return found


def main() -> None:
    """Measure the bare loop, then the run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--shard-rows", type=int, default=5000)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.latency_s, theirs, None), daemon=True)
    server.start()
    url = ours.recv()
    bare_s, _, n_labelled = measure(stage, url, texts_of(options.texts), options.in_flight)
    assert n_labelled == options.texts
    with tempfile.TemporaryDirectory() as folder:
        server_s, run_s, walls = in_process(run_flow, folder, url, options)
    ours.send(False)
    server.join()
    print(
        "| texts | ideal | bare loop | run up to the checks | overhead "
        "| ingest | start of the cluster | annotate | check | Prefect's server |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    ideal_s = options.texts * options.latency_s / options.in_flight
    parts = " | ".join(f"{seconds:.1f} s" for seconds in walls.values())
    print(
        f"| {options.texts:,} | {ideal_s:.1f} s | {bare_s:.1f} s | {run_s:.1f} s | {100 * (run_s / bare_s - 1):.1f} % "
        f"| {parts} | {server_s:.1f} s |"
    )


if __name__ == "__main__":
    main()
