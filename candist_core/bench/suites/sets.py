"""Candidate sets: how many labels, and how diverse they are, against what students learn from them.

k labels. Diversity of a label is how many different others stand beside it in the sets that it leads
(`candist_core.bench.signals.companions`): from 1, always the same one, to k - 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import CORPORA, Corpus
from candist_core.bench.planted import distracted, ranked
from candist_core.bench.runs import FEWER_TEXTS, Bench
from candist_core.bench.signals import companions, mean_companions
from candist_core.bench.tables import Figures, Plot, Shape, rank_correlation, shown_correlation, spread_of
from candist_core.metrics import coverage, lift, mean_set_size

_WIDTHS = (1, 2, 3, 5, 8)
_UNORDERED = ("ca_uniform", "ca_cc", "ca_ml_flat", "ca_dr")


def sizes(bench: Bench) -> Iterator[Figures]:
    """Sets cut or filled up to a given number of labels by the zero-shot teacher's likeness."""
    for corpus in (corpus for corpus in bench.corpora if corpus.name.startswith("zeroshot")):
        order = _by_likeness(corpus)
        rows = []
        for width in (width for width in _WIDTHS if width < len(corpus.labels)):
            R = ranked(len(corpus.labels), *order[:, :width].T)
            cut = replace(corpus, name=f"{corpus.name} {width}", R=R)
            found = [bench.test_accuracy(cut, name, bench.seeds[0]) for name in _UNORDERED]
            rows.append((str(width), coverage(cut.S, corpus.y), *found))
            bench.tell(f"{corpus.name} {rows[-1]}")
        title = f"Number of candidates, {corpus.name}, accuracy on test"
        plot = Plot(Shape.LINES, "labels a set", "share of texts")
        yield Figures(title, ("labels a set", "coverage", *_UNORDERED), tuple(rows), plot)


def _by_likeness(corpus: Corpus) -> NDArray[np.int64]:
    """Labels of each text, (n, k): those of its set in their order, then the nearest."""
    k = len(corpus.labels)
    centres = np.zeros((k, corpus.X.shape[1]), dtype=np.float32)
    for j in np.unique(corpus.first[corpus.first >= 0]):
        centres[j] = corpus.X[corpus.first == j].mean(axis=0)
    likeness = corpus.X @ centres.T + np.where(corpus.S, 10.0 * k - corpus.R, 0.0)
    return np.argsort(-likeness, axis=1, kind="stable")


_DISTRACTORS = {"trec": (1, 2, 5), "banking77": (1, 3, 10, 76)}
_COVERED = 0.9
_LEARNED = ("ca_uniform", "ca_cc", "ca_dr")
_BESIDE = ("sa_ce", "ca_cc", "ca_dr")


def diversity(bench: Bench) -> Iterator[Figures]:
    """Diversity against accuracy: by setting and by label as teachers are, and with all else held alike."""
    settings, correlations, labels = [], [], []
    for corpus in (corpus.sample(FEWER_TEXTS) for corpus in bench.corpora):
        runs = {name: [bench.test_belief(corpus, name, seed) for seed in bench.seeds] for name in _BESIDE}
        predicted = {name: np.stack([P.argmax(axis=1) for P in every]) for name, every in runs.items()}
        settings.append(_setting(corpus, predicted))
        recall = {name: _recall(columns, corpus.y_test, len(corpus.labels)) for name, columns in predicted.items()}
        correlations += _correlations(corpus, recall)
        gain = 100 * (recall["ca_cc"] - recall["sa_ce"])
        each = zip(corpus.labels, companions(corpus.R), gain, strict=True)
        labels += [(corpus.name, label, *map(float, pair)) for label, *pair in each if np.isfinite(pair).all()]
        bench.tell(f"{settings[-1]}")
    columns = ("teacher, corpus", "labels a set", "coverage", "lift", "diversity", "ambiguity")
    yield Figures("Diversity by setting, accuracy on test", (*columns, *_BESIDE), tuple(settings))
    yield Figures("Rank correlation over labels", _CORRELATED, tuple(correlations))
    for name in CORPORA:
        yield _distracted(bench, name)
    plot = Plot(Shape.SCATTER, "diversity: companions of a label", "recall on test, sets - first labels, points")
    by_label = ("teacher, corpus", "label", "diversity", "ca_cc - sa_ce, points")
    yield Figures("Gain of sets by label", by_label, tuple(labels), plot)


def _setting(corpus: Corpus, predicted: Mapping[str, NDArray[np.int64]]) -> tuple[object, ...]:
    spreads = [spread_of((columns == corpus.y_test).mean(axis=1).tolist()) for columns in predicted.values()]
    sets = mean_set_size(corpus.S), coverage(corpus.S, corpus.y), lift(corpus.S, corpus.first, corpus.y)
    return (corpus.name, *sets, mean_companions(corpus.R), float(np.nanmax(_ambiguity(corpus))), *spreads)


def _ambiguity(corpus: Corpus) -> NDArray[np.float64]:
    """How often the wrong label most often beside or in place of the truth is in its sets, (k,).

    Source:
        Cour, Sapp and Taskar, Learning from Partial Labels, JMLR 2011: below 1 the truth can be learned.
    """
    k = len(corpus.labels)
    found = np.full(k, np.nan)
    for j in np.unique(corpus.y):
        found[j] = np.delete(corpus.S[corpus.y == j].mean(axis=0), j).max()
    return found


def _recall(predicted: NDArray[np.int64], y: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Share right of each gold label, (k,), mean of the runs; not a number where a label is not tested."""
    right = (predicted == y).mean(axis=0)
    return np.array([right[y == j].mean() if (y == j).any() else np.nan for j in range(k)])


_CORRELATED = (
    "teacher, corpus",
    "measure of a label's sets",
    "labels",
    "recall, ca_cc",
    "gain of ca_cc",
    "gain of ca_dr",
)


def _correlations(corpus: Corpus, recall: Mapping[str, NDArray[np.float64]]) -> list[tuple[object, ...]]:
    k = len(corpus.labels)
    sizes, first = corpus.S.sum(axis=1), corpus.first
    measures = {
        "diversity": companions(corpus.R),
        "labels a set": np.array([sizes[first == j].mean() if (first == j).any() else np.nan for j in range(k)]),
        "ambiguity (gold)": _ambiguity(corpus),
    }
    outcomes = [recall["ca_cc"], recall["ca_cc"] - recall["sa_ce"], recall["ca_dr"] - recall["sa_ce"]]
    rows: list[tuple[object, ...]] = []
    for name, values in measures.items():
        seen = np.isfinite(values) & np.isfinite(outcomes).all(axis=0)
        cells = [shown_correlation(rank_correlation(values[seen], outcome[seen])) for outcome in outcomes]
        rows.append((corpus.name, name, int(seen.sum()), *cells))
    return rows


def _distracted(bench: Bench, name: str) -> Figures:
    """Sets of two, the truth in nine of ten, the wrong label of each drawn from few or many."""
    corpus, rows = bench.corpus("llm", name).sample(FEWER_TEXTS), []
    for n in sorted({min(n, len(corpus.labels) - 1) for n in _DISTRACTORS[name]}):
        found = []
        for seed in bench.seeds:
            planted = replace(corpus, name=f"{n} of {name}", R=distracted(corpus, n, _COVERED, seed))
            found.append([bench.test_accuracy(planted, recipe, seed) for recipe in _LEARNED])
        rows.append((str(n), *map(spread_of, zip(*found, strict=True))))
        bench.tell(f"{name} {n} distractors {[str(cell) for cell in rows[-1]]}")
    plot = Plot(Shape.LINES, "wrong labels that a label is mistaken for", "accuracy on test")
    return Figures(f"Planted diversity, {name}, accuracy on test", ("wrong labels", *_LEARNED), tuple(rows), plot)
