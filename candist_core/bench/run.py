"""Run experiments and keep their tables as Markdown and JSON, and a plot of each."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from candist_core.bench.plots import draw
from candist_core.bench.runs import Bench
from candist_core.bench.suites import SUITES
from candist_core.bench.tables import Figures, Spread


def run_suites(
    names: Sequence[str], data: Path, out: Path, seeds: Sequence[int], tell: Callable[[str], None] = lambda line: None
) -> list[Figures]:
    """Run some experiments; the tables of each are written as soon as it ends.

    Args:
        names: keys of `SUITES`.
        data: the folder of corpora.
        out: where `NAME.md`, `NAME.json` and, with matplotlib, `NAME.png` are written.
        seeds: of every run.
        tell: told what has been measured.

    Raises:
        ConfigError: a corpus is not there.
        StudentError: the extra for MiniLM is not installed.
    """
    from candist_core.student.device import choose_device
    from candist_core.student.encode import SentenceEmbedder

    bench = Bench(data, SentenceEmbedder("minilm", choose_device("cpu")), seeds, tell)
    every: list[Figures] = []
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        figures = list(SUITES[name](bench))
        write_figures(figures, out, name)
        every += figures
    return every


def write_figures(figures: Sequence[Figures], out: Path, name: str) -> None:
    """Keep tables as `NAME.md`, `NAME.json` and, where there is something to draw and matplotlib, `NAME.png`."""
    text = "\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in figures)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    kept = [{"title": table.title, "columns": table.columns, "rows": _plain(table)} for table in figures]
    (out / f"{name}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    draw(figures, out / f"{name}.png")


def _plain(table: Figures) -> list[list[object]]:
    return [[asdict(cell) if isinstance(cell, Spread) else cell for cell in row] for row in table.rows]
