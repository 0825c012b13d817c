"""Failures planted one at a time, and what of them can be seen without gold.

Each case is a teacher, or a student, that is wrong in a known way. Beside clean teachers of several strengths and a
small clean corpus it is shown what the signals of `candist_core.bench.signals` read. Gold says how much is lost.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from candist_core.bench.corpora import CORPORA, Corpus
from candist_core.bench.planted import identical, mixed, partnered, projected, shuffled, split_labels, wrong_clusters
from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.signals import (
    in_set_entropy,
    in_set_rate,
    largest_set_share,
    mean_companions,
    noise_rate,
    pair_entropy,
    pair_lift,
    pair_overlap,
    worst_labels_rate,
)
from candist_core.bench.tables import Figures, Plot, Shape, Spread, mean_of, spread_of
from candist_core.label_model import posterior
from candist_core.metrics import mean_set_size

FEW_TEXTS = 400
"""Of the small corpus."""

_CASES: Mapping[str, Callable[[Corpus, Corpus, int], Corpus]] = {
    "clean, llm": lambda llm, zeroshot, seed: llm,
    "clean, llm, few texts": lambda llm, zeroshot, seed: llm.sample(FEW_TEXTS),
    "clean, half llm": lambda llm, zeroshot, seed: replace(llm, R=mixed(zeroshot.R, llm.R, 0.5, seed)),
    "clean, zeroshot": lambda llm, zeroshot, seed: zeroshot,
    "identical sets, 30 %": lambda llm, zeroshot, seed: replace(llm, R=identical(llm.R, 0.3, seed)),
    "identical sets, 90 %": lambda llm, zeroshot, seed: replace(llm, R=identical(llm.R, 0.9, seed)),
    "always the same partner": lambda llm, zeroshot, seed: replace(llm, R=partnered(llm.R)),
    "wrong clusters, 30 %": lambda llm, zeroshot, seed: replace(llm, R=wrong_clusters(llm, 0.3, seed)),
    "answers mixed up, 30 %": lambda llm, zeroshot, seed: replace(llm, R=shuffled(llm.R, 0.3, seed)),
    "student of 32 numbers": lambda llm, zeroshot, seed: projected(llm, 32, seed),
    "student of 8 numbers": lambda llm, zeroshot, seed: projected(llm, 8, seed),
    "student of 4 numbers": lambda llm, zeroshot, seed: projected(llm, 4, seed),
    "labels that no text tells apart": lambda llm, zeroshot, seed: split_labels(llm, seed),
}
_OF_SETS = ("labels a set", "largest equal set", "companions", "pair lift", "pair overlap")
_OF_STUDENT = (
    "training fit",
    "out-of-fold agreement",
    "at the worst labels",
    "mean belief",
    "in-set entropy",
    "entropy in the pair",
    "EM noise rate",
    "EM, belief as it is",
)
_LOST = ("teacher", "final labels", "posterior student on test")


def failures(bench: Bench) -> Iterator[Figures]:
    """Signals without gold under planted failures and clean teachers, and accuracies with gold."""
    for name in CORPORA:
        llm, zeroshot = (bench.corpus(teacher, name).sample(FEWER_TEXTS) for teacher in ("llm", "zeroshot"))
        rows = []
        for case, plant in _CASES.items():
            planted = [
                replace(plant(llm, zeroshot, seed), name=f"{case}, {name}, failure {seed}") for seed in bench.seeds
            ]
            runs = [_measured(bench, corpus, seed) for corpus, seed in zip(planted, bench.seeds, strict=True)]
            rows.append((case, *map(spread_of, zip(*runs, strict=True))))
            bench.tell(f"{name} {case} {[round(cell.mean, 3) for cell in rows[-1] if isinstance(cell, Spread)]}")
        yield from _tables(name, rows)


def _measured(bench: Bench, corpus: Corpus, seed: int) -> list[float]:
    """All signals of one case, then what is lost, in the order of the columns."""
    P, model = bench.judged(corpus, seed)
    belief, fit = bench.student(corpus, "posterior", seed)
    S, final = corpus.S, posterior(corpus.R, P, model).argmax(axis=1)
    return [
        mean_set_size(S),
        largest_set_share(S),
        mean_companions(corpus.R),
        pair_lift(S),
        pair_overlap(S),
        fit,
        in_set_rate(P, S),
        worst_labels_rate(P, corpus.R),
        mean_of(P.max(axis=1).tolist()),
        in_set_entropy(P, S),
        pair_entropy(P, S),
        *(noise_rate(corpus.R, P, temperature) for temperature in (2.0, 1.0)),
        float((corpus.first == corpus.y).mean()),
        float((final == corpus.y).mean()),
        float((belief.argmax(axis=1) == corpus.y_test).mean()),
    ]


def _tables(name: str, rows: list[tuple[object, ...]]) -> Iterator[Figures]:
    """Signals of the sets, signals of the student, accuracies."""
    n = len(_OF_SETS)
    plot = Plot(Shape.PANELS, name)
    parts = {
        f"Signals of the sets, {name}": (_OF_SETS, slice(1, 1 + n), plot),
        f"Signals of the student, {name}": (_OF_STUDENT, slice(1 + n, -len(_LOST)), plot),
        f"Accuracy under failures, {name}": (_LOST, slice(-len(_LOST), None), None),
    }
    for title, (columns, cells, shape) in parts.items():
        yield Figures(title, ("case", *columns), tuple((row[0], *row[cells]) for row in rows), shape)
