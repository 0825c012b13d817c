"""A corpus of any length, made of the words of the sample corpus: short messages, each with its label.

`python -m tests.benchmarks.scale_corpus --rows 1000000 --out corpus.jsonl` writes JSON lines (id, text, gold). A text
is eight to sixteen words drawn from those of one label's messages, a number among them; two rows in a hundred repeat an
earlier text. Equal rows and seed give equal bytes.
"""

import argparse
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

DEMO = files("candist_core").joinpath("demo")
REPEATED = 0.02
_AT_ONCE = 10_000


def label_words() -> tuple[list[str], list[list[str]]]:
    """Labels of the sample corpus, and the words of each one's messages."""
    words: dict[str, list[str]] = {}
    for line in DEMO.joinpath("corpus.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        words.setdefault(row["gold"], []).extend(row["text"].split())
    labels = sorted(words)
    return labels, [words[label] for label in labels]


def rows(n_rows: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """id, text and gold of each row."""
    labels, words = label_words()
    rng = np.random.default_rng(seed)
    earlier: list[tuple[str, str]] = []
    for start in range(0, n_rows, _AT_ONCE):
        n = min(_AT_ONCE, n_rows - start)
        kinds, sizes = rng.integers(0, len(labels), n), rng.integers(8, 17, n)
        numbers, is_again = rng.integers(0, 10**6, n), rng.random(n) < REPEATED
        for i in range(n):
            if is_again[i] and earlier:
                text, gold = earlier[int(numbers[i]) % len(earlier)]
            else:
                own = words[kinds[i]]
                picked = rng.integers(0, len(own), sizes[i]).tolist()
                text, gold = " ".join([*(own[j] for j in picked), str(numbers[i])]), labels[kinds[i]]
                if len(earlier) < _AT_ONCE:
                    earlier.append((text, gold))
            yield f"r{start + i:09d}", text, gold


def write(n_rows: int, path: Path, seed: int = 0) -> None:
    """Write so many rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for doc_id, text, gold in rows(n_rows, seed):
            file.write(json.dumps({"id": doc_id, "text": text, "gold": gold}, ensure_ascii=False) + "\n")


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.rows, options.out, options.seed)


if __name__ == "__main__":
    main()
