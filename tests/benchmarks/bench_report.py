"""What a report costs: `python -m tests.benchmarks.bench_report --rows 1000000`; rows are made up, in memory."""

import argparse
import resource
import time

import numpy as np
import polars as pl

from candist_core.edges.report.page import Page
from tests.published_rows import manifest_of

_PART_ROWS = 50_000


def part(chance: np.random.Generator, names: tuple[str, ...], number: int) -> pl.DataFrame:
    """One file of a version: two candidates a row, gold right as often as the confidence says, a fifth doubtful."""
    k, words = len(names), np.array(names, dtype=object)
    confidence = 1 - 0.6 * chance.beta(1, 4, _PART_ROWS)
    label = chance.integers(0, k, _PART_ROWS)
    other = (label + chance.integers(1, k, _PART_ROWS)) % k
    rows = pl.DataFrame(
        {
            "doc_id": [f"{number}-{i}" for i in range(_PART_ROWS)],
            "label": words[label].tolist(),
            "other": words[other].tolist(),
            "confidence": pl.Series(confidence, dtype=pl.Float32),
            "is_right": chance.random(_PART_ROWS) < confidence,
        }
    )
    needs_review = pl.col("confidence") < 0.8
    return rows.with_columns(
        text=pl.format("{} of {} about this and that, as people write it on an ordinary day", "doc_id", "label"),
        candidates=pl.concat_list("label", "other"),
        teacher_label="label",
        source=pl.lit("agreed"),
        needs_review=needs_review,
        reason=pl.when(needs_review).then(pl.lit("low confidence")),
        gold=pl.when("is_right").then("label").otherwise("other"),
    ).drop("other", "is_right")


def main() -> None:
    """Print CPU seconds, the page's size, and the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=77)
    given = parser.parse_args()
    names = tuple(f"label_{j:03d}" for j in range(given.labels))
    chance, manifest = np.random.default_rng(0), manifest_of(names)
    page, counting_s = Page(manifest.spec), 0.0
    for number in range(given.rows // _PART_ROWS):
        rows = part(chance, names, number)
        start = time.process_time()
        page.add(rows)
        counting_s += time.process_time() - start
    start = time.process_time()
    html = page.render(manifest)
    page_s = time.process_time() - start
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(
        f"{given.rows:,} rows, {given.labels} labels: counting {counting_s:.1f} s of CPU, the page {page_s:.1f} s, "
        f"{len(html) / 1000:.0f} kB; largest memory {memory_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
