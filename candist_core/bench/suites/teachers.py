"""Teachers: what mistakes of theirs cost, and what candidate sets are worth by how good they are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import CORPORA, Corpus
from candist_core.bench.planted import flipped, mended, mixed, shuffled
from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.tables import Figures, Plot, Shape, spread_of
from candist_core.label_model import posterior
from candist_core.metrics import coverage, mean_set_size

_RATES = (0.0, 0.2, 0.4, 0.6)
_COMPARED = ("sa_ce", "sa_gce", "ca_cc", "ca_ml_order", "ca_dr_order", "posterior")


def noise(bench: Bench) -> Iterator[Figures]:
    """First labels flipped at random, by class, and by likeness; half of the wrong ones have the truth second."""
    corpus = bench.corpus("llm", "banking77")
    for kind in ("uniform", "by class", "by likeness"):
        rows = []
        for rate in _RATES:
            noisy = replace(corpus, name=f"{kind} {rate}", R=flipped(corpus, kind, rate))
            found = [bench.test_accuracy(noisy, name, bench.seeds[0]) for name in _COMPARED]
            rows.append((f"{rate:.1f}", *found))
            bench.tell(f"{kind} {rows[-1]}")
        plot = Plot(Shape.LINES, "share of first labels flipped", "accuracy on test")
        yield Figures(f"Noise {kind}, banking77, accuracy on test", ("share flipped", *_COMPARED), tuple(rows), plot)


_STRENGTHS: Mapping[str, Callable[[Corpus, Corpus, int], NDArray[np.int16]]] = {
    "zeroshot, two fifths mixed up": lambda llm, zeroshot, seed: shuffled(zeroshot.R, 0.4, seed),
    "zeroshot": lambda llm, zeroshot, seed: zeroshot.R,
    "a third llm": lambda llm, zeroshot, seed: mixed(zeroshot.R, llm.R, 1 / 3, seed),
    "two thirds llm": lambda llm, zeroshot, seed: mixed(zeroshot.R, llm.R, 2 / 3, seed),
    "llm": lambda llm, zeroshot, seed: llm.R,
    "llm, half of the mistakes mended": lambda llm, zeroshot, seed: mended(llm.R, llm.y, 0.5, seed),
}
_PAIRS = {"sets (cc)": ("ca_cc", "sa_ce"), "sets (DR-C)": ("ca_dr_c", "sa_dr_c"), "posterior": ("posterior", "sa_ce")}


def strength(bench: Bench) -> Iterator[Figures]:
    """What sets add to first labels under teachers from weak to strong, built of the two that are there."""
    for name in CORPORA:
        llm, zeroshot = (bench.corpus(teacher, name).sample(FEWER_TEXTS) for teacher in ("llm", "zeroshot"))
        rows = []
        for teacher, plant in _STRENGTHS.items():
            runs = []
            for seed in bench.seeds:
                told = replace(llm, name=f"{teacher}, {name}, strength {seed}", R=plant(llm, zeroshot, seed))
                runs.append(_worth(bench, told, seed))
            spreads = [spread_of(values) for values in zip(*runs, strict=True)]
            rows.append((teacher, *(cell.mean for cell in spreads[:3]), *spreads[3:]))
            bench.tell(f"{name} {teacher} {[round(cell.mean, 3) for cell in spreads]}")
        yield from _strength_tables(name, rows)


def _worth(bench: Bench, corpus: Corpus, seed: int) -> list[float]:
    """Of the teacher: accuracy, coverage, labels a set; of sa_ce: accuracy; gains of sets, and of final labels."""
    names = dict.fromkeys(name for pair in _PAIRS.values() for name in pair)
    found = {name: bench.test_accuracy(corpus, name, seed) for name in names}
    gains = [100 * (found[with_sets] - found[alone]) for with_sets, alone in _PAIRS.values()]
    right = float((corpus.first == corpus.y).mean())
    P, model = bench.judged(corpus, seed)
    final = float((posterior(corpus.R, P, model).argmax(axis=1) == corpus.y).mean())
    sets = right, coverage(corpus.S, corpus.y), mean_set_size(corpus.S)
    return [*sets, found["sa_ce"], *gains, 100 * (final - right)]


def _strength_tables(name: str, rows: list[tuple[object, ...]]) -> Iterator[Figures]:
    columns = ("teacher", "accuracy of first labels", "coverage", "labels a set", "sa_ce, accuracy on test")
    gains = (*_PAIRS, "final labels")
    yield Figures(f"Teachers, {name}", columns, tuple(row[:5] for row in rows))
    plot = Plot(Shape.LINES, "accuracy of the teacher's first labels", "gain over first labels, points")
    cells = tuple((row[1], *row[5:]) for row in rows)
    yield Figures(f"Gain of sets by strength of the teacher, {name}, points", (columns[1], *gains), cells, plot)
