"""Final labels of the texts that the teacher read: are they right, and is it known which are not? n texts, k labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from candist_core.bench.corpora import Corpus
from candist_core.bench.runs import Bench
from candist_core.bench.tables import (
    Figures,
    area_under_risk,
    bootstrap_difference,
    kept_accuracy,
    mean_of,
    shown_difference,
)
from candist_core.label_model import Audited, confidence, fit_label_model, posterior
from candist_core.metrics import expected_calibration_error
from candist_core.reports import LabelModel

Beliefs = dict[bool, NDArray[np.float32]]
_AUDITS, _AUDIT_DRAWS = (50, 100, 200), 20


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
    names = [name for n in _AUDITS for name in (f"audit of {n}", "its share of right ones alone")]
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
    cells: list[object] = []
    for n in _AUDITS:
        errors, plain = [], []
        for draw in range(_AUDIT_DRAWS):
            rows = np.random.default_rng(draw).choice(len(corpus.y), n, replace=False)
            model = fit_label_model(corpus.R, both, Audited(rows, corpus.y[rows]))
            belief = posterior(corpus.R, both[model.trusts_order], model)
            others = np.setdiff1d(np.arange(len(corpus.y)), rows)
            sure = confidence(belief.max(axis=1), model)[others]
            is_right = belief.argmax(axis=1) == corpus.y
            errors.append(expected_calibration_error(sure, is_right[others]))
            plain.append(expected_calibration_error(np.full(len(others), is_right[rows].mean()), is_right[others]))
        cells += [f"{np.mean(errors):.3f} (worst {np.max(errors):.3f})", mean_of(plain)]
    return (corpus.name, mean_of(blind), *cells)
