"""What experiments share: corpora read once, beliefs out of fold trained once, and a student's belief about test texts.

n texts to learn from, m to test on, k labels. All students here are heads on frozen embeddings, which train in
seconds, so that whole grids can be run. Nothing is chosen on test labels: settings are the defaults, seeds 0, 1, 2.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import CORPORA, TEACHERS, Corpus, load_corpus
from candist_core.label_model import fit_label_model, taught_posterior, trusts_order
from candist_core.ports import Embedder
from candist_core.recipe import Recipe, Rule, find_recipe
from candist_core.reports import LabelModel

FEWER_TEXTS = 1_500
"""Texts to learn from in the experiments with many cases; all of them would take an hour."""

_HEADS = {True: "sa_ce", False: "ca_ml_flat"}


class Bench:
    """The corpora of a folder, read once, and what is believed of their texts out of fold."""

    def __init__(self, data: Path, embed: Embedder, seeds: Sequence[int], tell: Callable[[str], None]) -> None:
        self.data, self._embed, self.seeds, self.tell = data, embed, tuple(seeds), tell
        self._vectors: dict[tuple[str, ...], NDArray[np.float32]] = {}
        self._beliefs: dict[tuple[str, int, bool], NDArray[np.float32]] = {}

    @cached_property
    def corpora(self) -> tuple[Corpus, ...]:
        """Every corpus under every teacher."""
        return tuple(load_corpus(self.data, name, teacher, self.embed) for teacher in TEACHERS for name in CORPORA)

    def corpus(self, teacher: str, name: str) -> Corpus:
        """One of them."""
        return self.corpora[TEACHERS.index(teacher) * len(CORPORA) + CORPORA.index(name)]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, (n, d); the same texts are embedded once."""
        key = tuple(texts)
        if key not in self._vectors:
            self._vectors[key] = self._embed(texts)
        return self._vectors[key]

    def belief(self, corpus: Corpus, seed: int, ordered: bool) -> NDArray[np.float32]:
        """P, (n, k), of heads that never saw a text's answer; kept by the corpus's name."""
        from candist_core.student.crossfit import cross_fit

        key = (corpus.name, seed, ordered)
        if key not in self._beliefs:
            fitted = cross_fit(corpus.X, corpus.S, corpus.R, find_recipe(_HEADS[ordered]), seed)
            self._beliefs[key] = fitted.believe(corpus.X, fitted.folds)
        return self._beliefs[key]

    def judged(self, corpus: Corpus, seed: int) -> tuple[NDArray[np.float32], LabelModel]:
        """Belief and label model as a run without an audit would have them."""
        order = trusts_order(corpus.R)
        P = self.belief(corpus, seed, order)
        return P, fit_label_model(corpus.R, {order: P})

    def test_belief(self, corpus: Corpus, recipe: str | Recipe, seed: int) -> NDArray[np.float32]:
        """P, (m, k), of a head that was trained on all texts.

        Args:
            corpus: the texts and the teacher's answers.
            recipe: one of `RECIPES` by its name, `posterior` for a run's own way, or any other as it is.
            seed: of the head, and of the beliefs behind a posterior.
        """
        return self.student(corpus, recipe, seed)[0]

    def student(self, corpus: Corpus, recipe: str | Recipe, seed: int) -> tuple[NDArray[np.float32], float]:
        """The same belief, and the share of training texts whose most probable label is in their set at the end."""
        from candist_core.student.head import train_head

        taught = None
        if recipe == "posterior":
            P, model = self.judged(corpus, seed)
            recipe, taught = Recipe(Rule.POSTERIOR), taught_posterior(corpus.R, P, model)
        chosen = find_recipe(recipe) if isinstance(recipe, str) else recipe
        head = train_head(corpus.X, corpus.S, corpus.R, chosen, seed, posterior=taught)
        return head.predict(corpus.X_test), head.trained.epochs[-1].in_set_rate

    def test_accuracy(self, corpus: Corpus, recipe: str | Recipe, seed: int) -> float:
        """Share of the test texts that such a head gets right."""
        return float((self.test_belief(corpus, recipe, seed).argmax(axis=1) == corpus.y_test).mean())
