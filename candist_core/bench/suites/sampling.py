"""A teacher that reads a part of the texts: which ones it should read, and students that need no encoder.

n texts to learn from, d numbers an embedding, k labels. Accuracy is on test texts, of heads on frozen embeddings that
learned from the teacher's first labels; doubt comes from the head that learned from the rounds before.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from candist_core.active import Rows, draw_by_gradient, draw_diverse, draw_doubtful, draw_random, draw_stratified
from candist_core.bench.corpora import CORPORA, Corpus
from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.tables import Figures, Plot, Shape, spread_of
from candist_core.config import StudentConfig
from candist_core.recipe import find_recipe

SIZES: Mapping[str, tuple[int, ...]] = {
    "trec": (100, 200, 400, 800, 1600, 3200),
    "banking77": (300, 600, 1200, 2400, 4800),
}
"""Texts that the teacher has read after each round; each round doubles them."""

Matrix = NDArray[np.float32]

_ONCE: Mapping[str, Callable[[Corpus, int, int], Rows]] = {
    "random": lambda corpus, n, seed: draw_random(len(corpus.y), n, seed),
    "stratified": lambda corpus, n, seed: draw_stratified(corpus.X, n, seed),
    "diverse": lambda corpus, n, seed: draw_diverse(corpus.X, n, seed),
}
_BY_ROUNDS: Mapping[str, Callable[[Matrix, Matrix, int, int], Rows]] = {
    "least margin": lambda P, X, n, seed: draw_doubtful(P, X, n, seed, times=1),
    "doubtful, apart": draw_doubtful,
    "gradients (BADGE)": draw_by_gradient,
}


def active(bench: Bench) -> Iterator[Figures]:
    """Accuracy on test by the number of texts that the teacher read, and how these were chosen."""
    for name in CORPORA:
        corpus = bench.corpus("llm", name)
        sizes = tuple(n for n in SIZES[name] if n < len(corpus.y))
        found: dict[str, list[list[float]]] = {}
        for seed in bench.seeds:
            for how, draw in _ONCE.items():
                each = [_accuracy(corpus, draw(corpus, n, seed), seed)[0] for n in sizes]
                found.setdefault(how, []).append(each)
                bench.tell(f"{name} {how} seed {seed} {each}")
            for how, choose in _BY_ROUNDS.items():
                each = _rounds(corpus, sizes, seed, choose)
                found.setdefault(how, []).append(each)
                bench.tell(f"{name} {how} seed {seed} {each}")
        everything = [_accuracy(corpus, np.arange(len(corpus.y)), seed)[0] for seed in bench.seeds]
        rows = [(str(n), *(spread_of([runs[i] for runs in found[how]]) for how in found)) for i, n in enumerate(sizes)]
        rows.append((str(len(corpus.y)), *[spread_of(everything)] * len(found)))
        plot = Plot(Shape.LINES, "texts that the teacher read", "accuracy on test")
        yield Figures(f"Texts that the teacher reads, {name}, accuracy on test", ("texts", *found), tuple(rows), plot)


def _rounds(
    corpus: Corpus, sizes: tuple[int, ...], seed: int, choose: Callable[[Matrix, Matrix, int, int], Rows]
) -> list[float]:
    """Accuracy after each round; the first is drawn at random, each later one where the head doubts."""
    read, found = draw_random(len(corpus.y), sizes[0], seed), []
    for i, _ in enumerate(sizes):
        accuracy, P = _accuracy(corpus, read, seed)
        found.append(accuracy)
        if i + 1 < len(sizes):
            rest = np.setdiff1d(np.arange(len(corpus.y)), read)
            chosen = choose(P[rest], corpus.X[rest], sizes[i + 1] - len(read), seed)
            read = np.union1d(read, rest[chosen])
    return found


def _accuracy(corpus: Corpus, rows: Rows, seed: int) -> tuple[float, Matrix]:
    """Accuracy on test of a head that learned from some texts, and what it believes of all of them, (n, k)."""
    from candist_core.student.head import train_head

    head = train_head(corpus.X[rows], corpus.S[rows], corpus.R[rows], find_recipe("sa_ce"), seed)
    right = head.predict(corpus.X_test).argmax(axis=1) == corpus.y_test
    return float(right.mean()), head.predict(corpus.X)


def kinds(bench: Bench) -> Iterator[Figures]:
    """Heads on static vectors beside heads on an encoder's, by accuracy on test, and static vectors a CPU second."""
    from candist_core.student.static import static_embedder

    config, rows = StudentConfig(), []
    for name in CORPORA:
        for whole in (bench.corpus("llm", name).sample(FEWER_TEXTS), bench.corpus("llm", name)):
            embed = static_embedder(config.model, config.max_tokens)
            started = time.process_time()
            X, X_test = embed(whole.texts), embed(whole.texts_test)
            rate = (len(X) + len(X_test)) / (time.process_time() - started)
            static = replace(whole, name=f"static, {whole.name}", X=X, X_test=X_test)
            cells = [
                spread_of([bench.test_accuracy(corpus, "sa_ce", seed) for seed in bench.seeds])
                for corpus in (static, whole)
            ]
            rows.append((name, f"{len(X):,}", *cells, f"{rate:,.0f}"))
            bench.tell(f"{rows[-1]}")
    title = "Students by kind, accuracy on test"
    yield Figures(title, ("corpus", "texts", "static", "frozen", "static vectors a CPU second"), tuple(rows))
