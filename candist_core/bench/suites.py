"""Experiments: final labels, students, steps of the refinery, noise, sizes of sets.

n texts, k labels. All students here are heads on frozen embeddings, which train in seconds, so that whole grids can
be run; `encoders` trains whole ones. Nothing is chosen on test labels: settings are the defaults, seeds 0, 1, 2.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import CORPORA, TEACHERS, Corpus, load_corpus
from candist_core.bench.tables import (
    Figures,
    area_under_risk,
    bootstrap_difference,
    kept_accuracy,
    mean_of,
    shown_difference,
)
from candist_core.config import StudentConfig
from candist_core.label_model import Audited, confidence, fit_label_model, posterior, taught_posterior, trusts_order
from candist_core.metrics import coverage, expected_calibration_error
from candist_core.ports import Embedder
from candist_core.recipe import RECIPES, Recipe, Rule, find_recipe
from candist_core.reports import LabelModel

Beliefs = dict[bool, NDArray[np.float32]]
_HEADS = {True: "sa_ce", False: "ca_ml_flat"}
_AUDITS, _AUDIT_DRAWS = (50, 100, 200), 20


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

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, (n, d); the same texts are embedded once."""
        key = tuple(texts)
        if key not in self._vectors:
            self._vectors[key] = self._embed(texts)
        return self._vectors[key]

    def belief(self, corpus: Corpus, seed: int, ordered: bool) -> NDArray[np.float32]:
        """P, (n, k), of heads that never saw a text's answer."""
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

    def test_belief(
        self, corpus: Corpus, recipe: Recipe, seed: int, posterior: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """P, (m, k), of a head that was trained on all texts."""
        from candist_core.student.head import train_head

        return train_head(corpus.X, corpus.S, corpus.R, recipe, seed, posterior=posterior).predict(corpus.X_test)


def labels(bench: Bench) -> Iterator[Figures]:
    """Final labels of the texts that the teacher read: are they right, and is it known which are not?"""
    columns = ("teacher, corpus", "teacher", "student out of fold", "final", "final - teacher, points", "order")
    rows, doubts, audits = [], [], []
    for corpus in bench.corpora:
        first_right = corpus.first == corpus.y
        runs = [bench.judged(corpus, seed) for seed in bench.seeds]
        beliefs = [posterior(corpus.R, P, model) for P, model in runs]
        right = np.array([belief.argmax(axis=1) == corpus.y for belief in beliefs])
        alone = mean_of([float((P.argmax(axis=1) == corpus.y).mean()) for P, _ in runs])
        gain = bootstrap_difference(right, np.broadcast_to(first_right, right.shape))
        order = "trusted" if runs[0][1].trusts_order else "ignored"
        rows.append((corpus.name, first_right.mean(), alone, right.mean(), shown_difference(gain), order))
        doubts += _doubts(corpus, runs, beliefs, right)
        audits.append(_audits(bench, corpus, beliefs, right))
        bench.tell(corpus.name)
    yield Figures("Accuracy of final labels", columns, tuple(rows))
    yield Figures(
        "Which to doubt: the same final labels ordered by different scores",
        ("teacher, corpus", "ordered by", "all", "10 % set aside", "20 % set aside", "area under risk-coverage"),
        tuple(doubts),
    )
    names = [f"audit of {n}" for n in _AUDITS]
    yield Figures("Calibration error of confidence", ("teacher, corpus", "no audit", *names), tuple(audits))


def _doubts(
    corpus: Corpus, runs: Sequence[tuple[NDArray[np.float32], LabelModel]], beliefs: Sequence[NDArray[np.float64]],
    right: NDArray[np.bool_],
) -> list[tuple[object, ...]]:  # fmt: skip
    sizes = corpus.S.sum(axis=1)
    orders: Mapping[str, Callable[[int], NDArray[np.floating]]] = {
        "confidence": lambda i: beliefs[i].max(axis=1),
        "size of the set": lambda i: -sizes.astype(float),
        "student's softmax": lambda i: runs[i][0].max(axis=1),
        "teacher's order": lambda i: np.where(
            beliefs[i].argmax(axis=1) == corpus.first, np.array(runs[i][1].places)[sizes, 0], 0.0
        ),
    }
    found = []
    for name, order in orders.items():
        pairs = [(order(i), right[i]) for i in range(len(right))]
        kept = [mean_of([kept_accuracy(*pair, share) for pair in pairs]) for share in (0.0, 0.1, 0.2)]
        found.append((corpus.name, name, *kept, mean_of([area_under_risk(*pair) for pair in pairs])))
    return found


def _audits(
    bench: Bench, corpus: Corpus, beliefs: Sequence[NDArray[np.float64]], right: NDArray[np.bool_]
) -> tuple[object, ...]:
    """Calibration error without an audit and with audits of several sizes, over 20 draws, audited texts left out."""
    blind = [
        expected_calibration_error(belief.max(axis=1), is_right)
        for belief, is_right in zip(beliefs, right, strict=True)
    ]
    both: Beliefs = {order: bench.belief(corpus, bench.seeds[0], order) for order in (True, False)}
    cells = []
    for n in _AUDITS:
        errors = []
        for draw in range(_AUDIT_DRAWS):
            rows = np.random.default_rng(draw).choice(len(corpus.y), n, replace=False)
            model = fit_label_model(corpus.R, both, Audited(rows, corpus.y[rows]))
            belief = posterior(corpus.R, both[model.trusts_order], model)
            others = np.setdiff1d(np.arange(len(corpus.y)), rows)
            sure = confidence(belief.max(axis=1), model)[others]
            errors.append(expected_calibration_error(sure, (belief.argmax(axis=1) == corpus.y)[others]))
        cells.append(f"{np.mean(errors):.3f} (worst {np.max(errors):.3f})")
    return (corpus.name, mean_of(blind), *cells)


def students(bench: Bench) -> Iterator[Figures]:
    """Accuracy on test of heads by recipe, with the student that learns the label model's posterior."""
    names = [*RECIPES, "posterior"]
    found: dict[str, list[object]] = {name: [name] for name in names}
    gains: list[tuple[float, float, float]] = []
    for corpus in bench.corpora:
        right: dict[str, NDArray[np.bool_]] = {}
        for name in names:
            runs = [_tested(bench, corpus, name, seed) for seed in bench.seeds]
            right[name] = np.array([P.argmax(axis=1) == corpus.y_test for P in runs])
            found[name].append(float(right[name].mean()))
            bench.tell(f"{corpus.name} {name} {right[name].mean():.4f}")
        gains.append(bootstrap_difference(right["posterior"], right["sa_ce"]))
    order = sorted(names, key=lambda name: -mean_of([cell for cell in found[name] if isinstance(cell, float)]))
    rows = [(*found[name], mean_of([cell for cell in found[name] if isinstance(cell, float)])) for name in order]
    corpora = tuple(corpus.name for corpus in bench.corpora)
    yield Figures("Accuracy on test, heads on frozen embeddings", ("recipe", *corpora, "mean"), tuple(rows))
    cells = [shown_difference(gain) for gain in gains]
    mean = f"{100 * mean_of([gain[0] for gain in gains]):+.1f}"
    yield Figures("posterior - sa_ce, points", (*corpora, "mean"), ((*cells, mean),))


def _tested(bench: Bench, corpus: Corpus, name: str, seed: int) -> NDArray[np.float32]:
    if name != "posterior":
        return bench.test_belief(corpus, find_recipe(name), seed)
    P, model = bench.judged(corpus, seed)
    taught = taught_posterior(corpus.R, P, model)
    return bench.test_belief(corpus, Recipe(Rule.POSTERIOR), seed, posterior=taught)


def encoders(bench: Bench) -> Iterator[Figures]:
    """Accuracy on test of whole encoders, fine-tuned on first labels and on the posterior."""
    from candist_core.student.distill import distill
    from candist_core.student.predict import Student

    rows = []
    for corpus in bench.corpora:
        cells: list[object] = [corpus.name]
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
    yield Figures("Accuracy on test, whole encoders", columns, tuple(rows))


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
            beliefs = [bench.test_belief(corpus, extra, bench.seeds[0]) for corpus in bench.corpora]
            pairs = zip(beliefs, bench.corpora, strict=True)
            rows.append((name, *(float((P.argmax(axis=1) == corpus.y_test).mean()) for P, corpus in pairs)))
            bench.tell(f"{name} {has_extras} {rows[-1]}")
        title = f"Steps of the refinery, {'with' if has_extras else 'without'} extras, accuracy on test"
        yield Figures(title, ("step", *(corpus.name for corpus in bench.corpora)), tuple(rows))


_RATES = (0.0, 0.2, 0.4, 0.6)
_COMPARED = ("sa_ce", "sa_gce", "ca_cc", "ca_ml_order", "ca_dr_order", "posterior")


def noise(bench: Bench) -> Iterator[Figures]:
    """First labels flipped at random, by class, and by likeness; half of the wrong ones have the truth second."""
    corpus = next(corpus for corpus in bench.corpora if corpus.name.endswith("banking77"))
    for kind in ("uniform", "by class", "by likeness"):
        rows = []
        for rate in _RATES:
            noisy = replace(corpus, name=f"{kind} {rate}", R=_flipped(corpus, kind, rate))
            runs = [_tested(bench, noisy, name, bench.seeds[0]) for name in _COMPARED]
            rows.append((f"{rate:.1f}", *(float((P.argmax(axis=1) == corpus.y_test).mean()) for P in runs)))
            bench.tell(f"{kind} {rows[-1]}")
        yield Figures(f"Noise {kind}, banking77, accuracy on test", ("share flipped", *_COMPARED), tuple(rows))


def _flipped(corpus: Corpus, kind: str, rate: float) -> NDArray[np.int16]:
    """Rank table of a planted teacher: unsure, with two labels, where it is wrong and on a fifth of the rest."""
    rng, n, k = np.random.default_rng(0), len(corpus.y), len(corpus.labels)
    centres = np.stack([corpus.X[corpus.y == j].mean(axis=0) for j in range(k)])
    likeness = corpus.X @ centres.T
    likeness[np.arange(n), corpus.y] = -np.inf
    nearest = likeness.argmax(axis=1)
    if kind == "uniform":
        wrong, is_wrong = (corpus.y + rng.integers(1, k, n)) % k, rng.random(n) < rate
    elif kind == "by class":
        wrong, is_wrong = (corpus.y + 1) % k, rng.random(n) < rate
    else:
        # Those most like another class are wrong, always towards that class.
        margin = (corpus.X * centres[corpus.y]).sum(axis=1) - likeness.max(axis=1)
        wrong, is_wrong = nearest, margin.argsort().argsort() < rate * n
    first = np.where(is_wrong, wrong, corpus.y)
    # Neither the first label nor the true one.
    third = (first + 1) % k
    third = np.where(third == corpus.y, (first + 2) % k, third)
    stranger = np.where(nearest == first, third, nearest)
    second = np.where(is_wrong, np.where(rng.random(n) < 0.5, corpus.y, stranger), nearest)
    has_second = (is_wrong | (rng.random(n) < 0.2)) & (second != first)
    R = np.full((n, k), -1, dtype=np.int16)
    R[np.arange(n)[has_second], second[has_second]] = 1
    R[np.arange(n), first] = 0
    return R


_WIDTHS = (1, 2, 3, 5, 8)


_UNORDERED = ("ca_uniform", "ca_cc", "ca_ml_flat", "ca_dr")


def sizes(bench: Bench) -> Iterator[Figures]:
    """Sets cut or filled up to a given number of labels by the zero-shot teacher's likeness."""
    for corpus in (corpus for corpus in bench.corpora if corpus.name.startswith("zeroshot")):
        order = _by_likeness(corpus)
        rows = []
        for width in (width for width in _WIDTHS if width < len(corpus.labels)):
            R = np.full(corpus.R.shape, -1, dtype=np.int16)
            np.put_along_axis(R, order[:, :width], np.arange(width, dtype=np.int16)[None], axis=1)
            cut = replace(corpus, name=f"{corpus.name} {width}", R=R)
            beliefs = [_tested(bench, cut, name, bench.seeds[0]) for name in _UNORDERED]
            found = [float((P.argmax(axis=1) == corpus.y_test).mean()) for P in beliefs]
            rows.append((str(width), coverage(cut.S, corpus.y), *found))
            bench.tell(f"{corpus.name} {rows[-1]}")
        title = f"Number of candidates, {corpus.name}, accuracy on test"
        yield Figures(title, ("labels a set", "coverage", *_UNORDERED), tuple(rows))


def _by_likeness(corpus: Corpus) -> NDArray[np.int64]:
    """Labels of each text, (n, k): those of its set in their order, then the nearest."""
    k = len(corpus.labels)
    centres = np.zeros((k, corpus.X.shape[1]), dtype=np.float32)
    for j in np.unique(corpus.first[corpus.first >= 0]):
        centres[j] = corpus.X[corpus.first == j].mean(axis=0)
    likeness = corpus.X @ centres.T + np.where(corpus.S, 10.0 * k - corpus.R, 0.0)
    return np.argsort(-likeness, axis=1, kind="stable")


SUITES: Mapping[str, Callable[[Bench], Iterator[Figures]]] = {
    "labels": labels,
    "students": students,
    "encoders": encoders,
    "steps": steps,
    "noise": noise,
    "sizes": sizes,
}
"""Every experiment by its name."""
