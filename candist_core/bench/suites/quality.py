"""What a run says of its sets without gold, beside what gold says: coverage, its estimate, and the lift of belief."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from candist_core.beliefs import BeliefCounts
from candist_core.bench.corpora import CORPORA, Corpus
from candist_core.bench.planted import guessed, mixed, shuffled, wrong_clusters
from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.suites.failures import FEW_TEXTS
from candist_core.bench.tables import Figures, spread_of

_CASES: Mapping[str, Callable[[Corpus, Corpus, int], Corpus]] = {
    "llm": lambda llm, zeroshot, seed: llm,
    "llm, few texts": lambda llm, zeroshot, seed: llm.sample(FEW_TEXTS),
    "half llm": lambda llm, zeroshot, seed: replace(llm, R=mixed(zeroshot.R, llm.R, 0.5, seed)),
    "zeroshot": lambda llm, zeroshot, seed: zeroshot,
    "answers mixed up, 30 %": lambda llm, zeroshot, seed: replace(llm, R=shuffled(llm.R, 0.3, seed)),
    "wrong clusters, 30 %": lambda llm, zeroshot, seed: replace(llm, R=wrong_clusters(llm, 0.3, seed)),
    "second labels by chance": lambda llm, zeroshot, seed: replace(llm, R=guessed(llm, 1.0, seed)),
    "second labels by chance, for a fifth": lambda llm, zeroshot, seed: replace(llm, R=guessed(llm, 0.2, seed)),
}
_COLUMNS = ("true coverage", "in-set rate", "estimated coverage", "lift by the students")


def quality(bench: Bench) -> Iterator[Figures]:
    """Measures without gold under teachers of several strengths and kinds of mistake, one table a corpus."""
    for name in CORPORA:
        llm, zeroshot = (bench.corpus(teacher, name).sample(FEWER_TEXTS) for teacher in ("llm", "zeroshot"))
        rows = []
        for case, plant in _CASES.items():
            planted = [
                replace(plant(llm, zeroshot, seed), name=f"{case}, {name}, quality {seed}") for seed in bench.seeds
            ]
            runs = [_measured(bench, corpus, seed) for corpus, seed in zip(planted, bench.seeds, strict=True)]
            rows.append((case, *map(spread_of, zip(*runs, strict=True))))
            bench.tell(f"{name} {case}")
        yield Figures(f"Coverage without gold and with it, {name}", ("teacher", *_COLUMNS), tuple(rows))


def _measured(bench: Bench, corpus: Corpus, seed: int) -> list[float]:
    """In the order of the columns; a lift of 0 where no set has several labels."""
    P, _ = bench.judged(corpus, seed)
    has_set = corpus.S.any(axis=1)
    S, R = corpus.S[has_set], corpus.R[has_set]
    counts = BeliefCounts(len(corpus.labels))
    counts.add(R, P[has_set])
    estimated = counts.coverage(np.bincount(S.sum(axis=1), minlength=S.shape[1] + 1))
    covered = S[np.arange(len(S)), corpus.y[has_set]].mean()
    return [
        float(covered),
        counts.n_inside / max(counts.n, 1),
        estimated.value if estimated else 0.0,
        counts.lift or 0.0,
    ]
