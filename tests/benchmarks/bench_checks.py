"""What the checks cost: CPU a million rows, and memory, however many shards there are.

`python -m tests.benchmarks.bench_checks --rows 10000000` checks so many annotations in shards of the default size as
the stages do: each shard as it arrives, then the run over all of them out of a store on disk, one shard in memory at a
time. The tables of labels are checked the same way. Making the shards, and importing Great Expectations, is not
counted. It prints a Markdown table.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from candist_core.balance import Expected, first_labels, frequent_sets
from candist_core.config import RunConfig, SourceConfig, parse_config
from candist_core.edges.expectations import LabelCounts, check_annotations, check_labels, check_run, sum_up
from candist_core.edges.ids import IdCounter
from candist_core.edges.store import Store, open_store
from candist_core.reports import AnnotateReport, Usage
from candist_core.tables import ANNOTATIONS, LABELS, REJECTS, TableRef, empty

K = 20
NAMES = [f"label_{j}" for j in range(K)]
EXPECTED = Expected("the stated prior", dict.fromkeys(NAMES, 1 / K))
_MIB = 2**20


class Clock:
    """CPU seconds of this process and its threads, by what they went into."""

    def __init__(self) -> None:
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count what the block takes."""
        started = time.process_time()
        yield
        self.cpu_s[what] += time.process_time() - started


def config_at(folder: Path) -> RunConfig:
    """A run of twenty labels."""
    labels = [{"name": name} for name in NAMES]
    return parse_config(
        {"name": "bench", "task": {"labels": labels}, "source": {"uri": "x"}, "store": {"uri": str(folder)}}
    )


def shard(start: int, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """Annotations with one to three labels a set; one in a hundred abstains."""
    first, size = rng.integers(0, K, n), rng.choice([1, 1, 1, 2, 3], n)
    sets = [[NAMES[(j + i) % K] for i in range(m)] for j, m in zip(first.tolist(), size.tolist(), strict=True)]
    rows = pl.DataFrame({"doc_id": pl.int_range(start, start + n, eager=True).cast(pl.String), "candidates": sets})
    is_ok = pl.int_range(pl.len()) % 100 != 0
    return rows.select(
        "doc_id",
        candidates=pl.when(is_ok).then("candidates").otherwise(pl.lit([], pl.List(pl.String))),
        scores=pl.lit(None, pl.List(pl.Float32)),
        status=pl.when(is_ok).then(pl.lit("ok")).otherwise(pl.lit("abstained")),
        teacher=pl.lit("t"),
        request_key=pl.lit("k") + pl.col("doc_id"),
    )


def labels_of(annotations: pl.DataFrame) -> pl.DataFrame:
    """Final labels as the teacher has them."""
    first = pl.col("candidates").list.first()
    return annotations.select(
        "doc_id",
        label=first.fill_null(NAMES[0]),
        confidence=pl.lit(0.9, pl.Float32),
        candidates="candidates",
        teacher_label=first,
        source=pl.lit("agreed"),
        needs_review=pl.lit(False),
        reason=pl.lit(None, pl.String),
    )


def check_shard(store: Store, config: RunConfig, frame: pl.DataFrame, name: str, clock: Clock) -> AnnotateReport:
    """One shard as it arrives."""
    table = store.write_table(f"annotations/{name}.parquet", frame, ANNOTATIONS)
    with clock.on("shards"):
        checks = check_annotations(frame, frame.height, config, ["t"])
        first, sets = first_labels(frame["candidates"]), frequent_sets(frame["candidates"])
    return AnnotateReport(
        annotations=table,
        rejects=store.write_table("none.parquet", empty(REJECTS), REJECTS),
        usage=Usage(),
        statuses=dict(Counter(frame["status"])),
        set_sizes=dict(Counter(frame["candidates"].list.len().to_list())),
        checks=checks,
        first_labels=first,
        frequent_sets=sets,
    )


def check_whole(
    store: Store, config: RunConfig, reports: list[AnnotateReport], labels: list[TableRef], clock: Clock
) -> None:
    """The run, and its labels."""
    with clock.on("run"):
        ids = IdCounter()
        for report in reports:
            ids.add(store.read_table(report.annotations, columns=["doc_id"])["doc_id"])
        results = [*sum_up(reports), *check_run(reports, config, EXPECTED, ids)]
    with clock.on("labels"):
        counts = LabelCounts(config)
        for table in labels:
            counts.add(store.read_table(table))
        results += check_labels(counts, sum(table.rows for table in labels), EXPECTED)
    assert all(result.passed for result in results), [str(one) for one in results if not one.passed]


def peak_mib() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def main() -> None:
    """Parse the arguments, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard-rows", type=int, default=SourceConfig.model_fields["shard_rows"].default)
    options = parser.parse_args()
    rng, clock, reports, labels = np.random.default_rng(0), Clock(), [], []
    with tempfile.TemporaryDirectory() as folder:
        config = config_at(Path(folder))
        store = open_store(config.store)
        check_annotations(shard(0, 100, rng), 100, config, ["t"])
        before = peak_mib()
        for start in range(0, options.rows, options.shard_rows):
            frame = shard(start, min(options.shard_rows, options.rows - start), rng)
            reports.append(check_shard(store, config, frame, f"{start:010d}", clock))
            labels.append(store.write_table(f"labels/{start:010d}.parquet", labels_of(frame), LABELS))
        check_whole(store, config, reports, labels, clock)
    print("| rows | shards | part | CPU s | CPU s / 1 M rows |\n|---|---|---|---|---|")
    for part in ("shards", "run", "labels"):
        cost = clock.cpu_s[part]
        print(f"| {options.rows:,} | {len(reports):,} | {part} | {cost:.1f} | {1e6 * cost / options.rows:.2f} |")
    print(f"\npeak RSS {peak_mib():.0f} MiB, of which {before:.0f} MiB with Great Expectations imported")


if __name__ == "__main__":
    main()
