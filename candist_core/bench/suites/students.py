"""Students by recipe, whole encoders, and what each step of the refinery adds: accuracy on test texts."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.tables import Figures, Plot, Shape, bootstrap_difference, mean_of, shown_difference
from candist_core.config import StudentConfig
from candist_core.label_model import taught_posterior
from candist_core.recipe import RECIPES, Recipe, Rule, find_recipe


def students(bench: Bench) -> Iterator[Figures]:
    """Accuracy on test of heads by recipe, with the student that learns the label model's posterior."""
    names = [*RECIPES, "posterior"]
    found: dict[str, list[object]] = {name: [name] for name in names}
    gains: list[tuple[float, float, float]] = []
    for corpus in bench.corpora:
        right: dict[str, NDArray[np.bool_]] = {}
        for name in names:
            runs = [bench.test_belief(corpus, name, seed) for seed in bench.seeds]
            right[name] = np.array([P.argmax(axis=1) == corpus.y_test for P in runs])
            found[name].append(float(right[name].mean()))
            bench.tell(f"{corpus.name} {name} {right[name].mean():.4f}")
        gains.append(bootstrap_difference(right["posterior"], right["sa_ce"]))
    order = sorted(names, key=lambda name: -mean_of([cell for cell in found[name] if isinstance(cell, float)]))
    rows = [(*found[name], mean_of([cell for cell in found[name] if isinstance(cell, float)])) for name in order]
    corpora = tuple(corpus.name for corpus in bench.corpora)
    plot = Plot(Shape.DOTS, "accuracy on test", "recipe")
    yield Figures("Accuracy on test, heads on frozen embeddings", ("recipe", *corpora, "mean"), tuple(rows), plot)
    cells = [shown_difference(gain) for gain in gains]
    mean = f"{100 * mean_of([gain[0] for gain in gains]):+.1f}"
    yield Figures("posterior - sa_ce, points", (*corpora, "mean"), ((*cells, mean),))


def encoders(bench: Bench) -> Iterator[Figures]:
    """Accuracy on test of whole encoders, fine-tuned on first labels and on the posterior, from fewer texts."""
    from candist_core.student.distill import distill
    from candist_core.student.predict import Student

    rows = []
    for whole in bench.corpora:
        # Beliefs are kept by name, and those about all texts may be there already.
        corpus = replace(whole.sample(FEWER_TEXTS), name=f"{whole.name}, {FEWER_TEXTS:,} texts")
        cells: list[object] = [whole.name]
        for name in ("sa_ce", "posterior"):
            found = []
            for seed in bench.seeds:
                P, model = bench.judged(corpus, seed)
                config = StudentConfig()
                recipe = Recipe(Rule.POSTERIOR) if name == "posterior" else find_recipe(name)
                with tempfile.TemporaryDirectory() as folder:
                    taught = taught_posterior(corpus.R, P, model)
                    recipe = replace(recipe, epochs=config.epochs)
                    distill(
                        corpus.texts, corpus.S, corpus.R, corpus.labels, config, seed, Path(folder),
                        recipe=recipe, posterior=taught,
                    )  # fmt: skip
                    belief = Student.load(Path(folder)).predict(corpus.texts_test)
                found.append(float((belief.argmax(axis=1) == corpus.y_test).mean()))
                bench.tell(f"{corpus.name} {name} seed {seed} {found[-1]:.4f}")
            cells.append(mean_of(found))
        rows.append(tuple(cells))
    columns = ("teacher, corpus", "sa_ce", "posterior")
    yield Figures(f"Accuracy on test, whole encoders, {FEWER_TEXTS:,} texts to learn from", columns, tuple(rows))


_STEPS: Mapping[str, Recipe] = {
    "uniform targets": Recipe(Rule.UNIFORM),
    "renormalised": Recipe(Rule.PRODEN),
    "+ filter": Recipe(Rule.DR, reliable_share=0.0, rescue_above=1.0),
    "+ sharpening": Recipe(Rule.DR, rescue_above=1.0),
    "+ rescue": Recipe(Rule.DR),
    "+ cap": Recipe(Rule.DR, max_dropped=0.4),
    "+ order": Recipe(Rule.DR, max_dropped=0.4, by_order=True),
    "DR-C": RECIPES["ca_dr_c"],
    "DR-C on first labels": RECIPES["sa_dr_c"],
    "DR-C on a random second": RECIPES["rnd2_dr_c"],
}


def steps(bench: Bench) -> Iterator[Figures]:
    """Each part of the refinery, with and without the extras (two views, mixup); one seed."""
    for has_extras in (False, True):
        rows = []
        for name, recipe in _STEPS.items():
            extra = replace(recipe, consistency=has_extras, mixup=has_extras)
            rows.append((name, *(bench.test_accuracy(corpus, extra, bench.seeds[0]) for corpus in bench.corpora)))
            bench.tell(f"{name} {has_extras} {rows[-1]}")
        title = f"Steps of the refinery, {'with' if has_extras else 'without'} extras, accuracy on test"
        plot = Plot(Shape.DOTS, "accuracy on test", "step")
        yield Figures(title, ("step", *(corpus.name for corpus in bench.corpora)), tuple(rows), plot)
