"""What is known of candidate sets and final labels, with gold and without.

n texts, k labels. S is the candidate mask, (n, k) bool; y the gold label's column, (n,) int in [0, k).
Shares are in [0, 1]. Functions over arrays take rows that all carry gold; `evaluate` picks those rows.
"""

from math import sqrt

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.candidates import candidate_mask
from candist_core.reports import EvaluateReport, GoldReport, Interval
from candist_core.spec import TaskSpec

_Z = 1.959963984540054
"""Quantile 0.975 of the normal distribution: two-sided 95 %."""

_MAX_UNKNOWN = 20


def wilson(successes: int, n: int) -> Interval:
    """A share with its 95 % Wilson interval.

    (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n), p = successes / n. Of no rows nothing is known:
    the value is 0 and the interval [0, 1].

    Source:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.

    Example:
        >>> print(wilson(45, 50))
        90.0 % (78.6 to 95.7)
    """
    if n == 0:
        return Interval(value=0.0, low=0.0, high=1.0, n=0)
    p, z2 = successes / n, _Z * _Z
    centre = p + z2 / (2 * n)
    half = _Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    # At p = 0 and p = 1 rounding may leave the bound just outside [0, 1].
    return Interval(value=p, low=max(0.0, (centre - half) / scale), high=min(1.0, (centre + half) / scale), n=n)


def coverage(S: NDArray[np.bool_], y: NDArray[np.integer]) -> float:
    """Share of texts whose gold label is in the set, 1 - alpha; an empty set covers nothing.

    Source:
        S. He et al., Candidate Label Set Pruning, ICLR 2024.

    Example:
        >>> coverage(np.array([[True, True], [True, False]]), np.array([1, 1]))
        0.5
    """
    return float(S[np.arange(len(y)), y].mean())


def mean_set_size(S: NDArray[np.bool_]) -> float:
    """Mean number of labels in the sets that have any; 0 when none has.

    Example:
        >>> mean_set_size(np.array([[True, True], [True, False], [False, False]]))
        1.5
    """
    sizes = S.sum(axis=1)
    return float(sizes[sizes > 0].mean()) if sizes.any() else 0.0


def set_sizes(S: NDArray[np.bool_]) -> dict[int, int]:
    """How many sets there are of each size, the empty ones at 0.

    Example:
        >>> set_sizes(np.array([[True, True], [True, False], [False, True]]))
        {1: 2, 2: 1}
    """
    sizes, counts = np.unique(S.sum(axis=1), return_counts=True)
    return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def lift(S: NDArray[np.bool_], first: NDArray[np.integer], y: NDArray[np.integer]) -> float | None:
    """Coverage gained per extra label, over what a random extra label would gain.

    ((coverage - a) / (mean set size - 1)) / ((1 - a) / (k - 1)), with a the accuracy of the first labels.
    Near 1 the extra labels carry no knowledge.

    Args:
        S: candidate mask, (n, k), each set with its first label.
        first: the teacher's first label, (n,) in [0, k).
        y: gold, (n,) in [0, k).

    Returns:
        None where it is undefined: no row, no extra label, or no first label that is wrong.

    Example:
        >>> S = np.array([[True, True, False], [False, False, True]])
        >>> lift(S, np.array([0, 2]), np.array([1, 2]))
        4.0
    """
    if not len(y):
        return None
    n_right, n_extra = int((first == y).sum()), int(S.sum()) - len(y)
    if n_extra <= 0 or n_right == len(y):
        return None
    gained = (coverage(S, y) * len(y) - n_right) / n_extra
    return float(gained * (S.shape[1] - 1) * len(y) / (len(y) - n_right))


def accuracy(predicted: NDArray[np.integer], y: NDArray[np.integer]) -> float:
    """Share of texts with the right label.

    Example:
        >>> accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
        0.75
    """
    return float((predicted == y).mean())


def macro_f1(predicted: NDArray[np.integer], y: NDArray[np.integer]) -> float:
    """Mean over labels of F1 = 2 · right / (predicted + gold), labels that occur in neither left out.

    Example:
        >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]))
        0.6666666666666666
    """
    k = int(max(predicted.max(), y.max())) + 1
    right = np.bincount(y[predicted == y], minlength=k)
    occurring = np.bincount(predicted, minlength=k) + np.bincount(y, minlength=k)
    seen = occurring > 0
    return float((2 * right[seen] / occurring[seen]).mean())


def expected_calibration_error(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_], n_bins: int = 10
) -> float:
    """Σ over bins of (share of texts) · |mean confidence - accuracy|, bins of equal width on (0, 1].

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.

    Example:
        >>> round(expected_calibration_error(np.array([0.9, 0.9, 0.6]), np.array([True, True, False])), 4)
        0.2667
    """
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, np.asarray(confidence, dtype=np.float64) - is_right, minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))


def risk_coverage(confidence: NDArray[np.floating], is_right: NDArray[np.bool_]) -> pl.DataFrame:
    """Share of wrong labels among those kept, as ever less sure ones are kept.

    Texts of equal confidence are kept together.

    Returns:
        confidence (the bound, falling), kept (share of texts at or above it), risk (share of wrong ones there).

    Source:
        Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017.

    Example:
        >>> risk_coverage(np.array([0.9, 0.5]), np.array([True, False])).rows()
        [(0.9, 0.5, 0.0), (0.5, 1.0, 0.5)]
    """
    bounds, place = np.unique(-np.asarray(confidence, dtype=np.float64), return_inverse=True)
    n_kept = np.bincount(place).cumsum()
    n_wrong = np.bincount(place, ~is_right).cumsum()
    return pl.DataFrame({"confidence": -bounds, "kept": n_kept / len(confidence), "risk": n_wrong / n_kept})


def unknown_gold(gold: pl.DataFrame, spec: TaskSpec) -> dict[str, int]:
    """Gold values that are no label of the spec and their number of rows, the 20 most frequent.

    Example:
        >>> from candist_core.spec import LabelSpec
        >>> spec = TaskSpec(labels=[LabelSpec(name="spam"), LabelSpec(name="ham")])
        >>> unknown_gold(pl.DataFrame({"doc_id": ["a", "b"], "gold": ["ham", "eggs"]}), spec)
        {'eggs': 1}
    """
    strange = gold.filter(pl.col("gold").is_not_null() & ~pl.col("gold").is_in(list(spec.label_names)))
    counts = strange.group_by("gold").len().sort(["len", "gold"], descending=[True, False])
    return dict(counts.head(_MAX_UNKNOWN).iter_rows())


def evaluate(
    labels: pl.DataFrame, annotations: pl.DataFrame, gold: pl.DataFrame | None, spec: TaskSpec
) -> EvaluateReport:
    """Sum up the final labels, and measure them on the rows whose gold is a label of the spec.

    With gold, shares of the labels are over the labelled rows, shares of the teacher over the annotated rows;
    a teacher that gave no label is wrong there and covers nothing. Lift is over the sets that are not empty.

    Args:
        labels: labels/1.
        annotations: annotations/1.
        gold: doc_id and gold, null where there is none; None when the corpus has no gold.
        spec: the labels.

    Returns:
        The report; its `gold` is None where no row has usable gold.
    """
    sets, has_set = annotations["candidates"].list.len(), pl.col("candidates").list.len() > 0
    answered = labels.filter(has_set)
    n_agreed = answered.select(pl.col("label").is_in(pl.col("candidates")).sum()).item()
    counts = dict(labels["label"].value_counts().iter_rows())
    first = dict(annotations["candidates"].list.first().alias("label").value_counts().iter_rows())
    filled = sets.filter(sets > 0)
    return EvaluateReport(
        n_rows=pl.concat([labels["doc_id"], annotations["doc_id"]]).n_unique(),
        n_labelled=labels.height,
        n_review=int(labels["needs_review"].sum()),
        mean_set_size=float(filled.sum() / max(filled.len(), 1)),
        set_sizes=dict(sets.value_counts().sort("candidates").iter_rows()),
        statuses=dict(annotations["status"].value_counts().sort("status").iter_rows()),
        class_counts={name: counts.get(name, 0) for name in spec.label_names},
        teacher_counts={name: first.get(name, 0) for name in spec.label_names},
        agreement=n_agreed / max(answered.height, 1),
        mean_confidence=float(labels["confidence"].cast(pl.Float64).sum() / max(labels.height, 1)),
        gold=_evaluate_gold(labels, annotations, gold, spec) if gold is not None else None,
        unknown_gold=unknown_gold(gold, spec) if gold is not None else {},
    )


def _evaluate_gold(
    labels: pl.DataFrame, annotations: pl.DataFrame, gold: pl.DataFrame, spec: TaskSpec
) -> GoldReport | None:
    usable = gold.filter(pl.col("gold").is_in(list(spec.label_names))).select("doc_id", "gold")
    labelled = labels.join(usable, on="doc_id", how="inner")
    if labelled.is_empty():
        return None
    is_right = labelled["label"] == labelled["gold"]
    kept = is_right.filter(~labelled["needs_review"])
    annotated = annotations.join(usable, on="doc_id", how="inner")
    first = annotated["candidates"].list.first()
    is_covered = annotated.select(pl.col("gold").is_in(pl.col("candidates"))).to_series()
    return GoldReport(
        teacher_accuracy=wilson(int((first == annotated["gold"]).sum()), annotated.height),
        final_accuracy=wilson(int(is_right.sum()), labelled.height),
        macro_f1=macro_f1(_columns(labelled["label"], spec), _columns(labelled["gold"], spec)),
        coverage=wilson(int(is_covered.sum()), annotated.height),
        kept_accuracy=wilson(int(kept.sum()), kept.len()),
        lift=_lift_of(annotated.filter(first.is_not_null()), spec),
    )


def _lift_of(answered: pl.DataFrame, spec: TaskSpec) -> float | None:
    if answered.is_empty():
        return None
    S = candidate_mask(answered["candidates"], spec.label_names)
    first = _columns(answered["candidates"].list.first(), spec)
    return lift(S, first, _columns(answered["gold"], spec))


def _columns(names: pl.Series, spec: TaskSpec) -> NDArray[np.int64]:
    """Column of each name, k for a name that is no label."""
    column = {name: j for j, name in enumerate(spec.label_names)}
    return np.array([column.get(name, len(column)) for name in names], dtype=np.int64)
