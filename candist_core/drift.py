"""Drift: how far new texts are from those that the student learned from, told without gold.

n new and m old texts. Shares are compared by their difference, labels by the population stability index, embeddings
by a classifier that is to tell the two sides apart. Invariant: no threshold is below what chance makes of so few
texts, one time in a thousand.
"""

from collections import Counter
from math import sqrt

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from candist_core.balance import expected_of_counts, shift_of
from candist_core.incremental_config import IncrementalConfig, OnDrift
from candist_core.labels import MIN_CONFIDENCE
from candist_core.reports import CheckResult, Report

_Z = 3.090232306167813
"""Quantile 0.999 of the normal distribution."""
_FOLDS = 5


class TextCounts(Report):
    """What is counted of some texts. The teacher answered `n_answered` of them; labels of people are left out."""

    n: int = 0
    n_answered: int = 0
    n_out_of_set: int = 0
    n_unsure: int = 0
    n_disagreeing: int = 0
    labels: dict[str, int] = Field({}, description="texts by their label")

    def __add__(self, other: "TextCounts") -> "TextCounts":
        """Field-wise sum."""
        numbers = {
            name: getattr(self, name) + getattr(other, name) for name in TextCounts.model_fields if name != "labels"
        }
        return TextCounts(labels=dict(Counter(self.labels) + Counter(other.labels)), **numbers)


class DriftReport(Report):
    """New texts beside old ones; `auc` is None where nothing was embedded."""

    new: TextCounts
    old: TextCounts
    auc: float | None = None
    n_embedded: int = 0
    m_embedded: int = 0


def count_texts(rows: pl.LazyFrame) -> TextCounts:
    """Count labelled texts.

    Args:
        rows: label, confidence, candidates, teacher_label and source as in labels/1; where there is a column hash, of
            rows with equal ones one is counted.

    Example:
        >>> rows = {"label": ["a", "b"], "confidence": [0.9, 0.5], "candidates": [["a"], ["a"]],
        ...         "teacher_label": ["a", "a"], "source": ["agreed", "student"]}
        >>> found = count_texts(pl.LazyFrame(rows))
        >>> found.n_out_of_set, found.n_unsure, found.n_disagreeing, found.labels
        (1, 1, 1, {'a': 1, 'b': 1})
    """
    is_answered = pl.col("teacher_label").is_not_null()
    counted = rows.filter(pl.col("source") != "reviewed")
    hashes = [name for name in rows.collect_schema() if name == "hash"]
    flags = counted.select(
        *hashes,
        "label",
        answered=is_answered,
        out_of_set=is_answered & ~pl.col("label").is_in(pl.col("candidates")),
        unsure=pl.col("confidence") < MIN_CONFIDENCE,
        disagreeing=is_answered & (pl.col("source") != "agreed"),
    )
    # Small columns alone are held while the same text is looked for.
    distinct = flags.unique("hash").drop("hash") if hashes else flags
    sums = distinct.group_by("label").agg(pl.len(), pl.exclude("label").sum()).sort("label").collect()
    total = {f"n_{name}": int(sums[name].sum()) for name in sums.columns[2:]}
    return TextCounts(n=int(sums["len"].sum()), labels=dict(sums.select("label", "len").iter_rows()), **total)


def two_sample_auc(X: NDArray[np.floating], Y: NDArray[np.floating], seed: int) -> float:
    """How well new embeddings can be told from old ones: 0.5 where they are alike, 1.0 where they lie apart.

    The mean area under the ROC curve of logistic regressions, each on the fifth of the rows that it did not see.

    Args:
        X: (n, d), new texts; at least five.
        Y: (m, d), old texts; at least five.
        seed: fixes the folds.

    Source:
        Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017; Rabanser et al., Failing Loudly: An
        Empirical Study of Methods for Detecting Dataset Shift, NeurIPS 2019.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, Y = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
        >>> two_sample_auc(X, Y, 0) < 0.7, round(two_sample_auc(X + 9, Y, 0), 2)
        (True, 1.0)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    rows, is_new = np.concatenate((X, Y)), np.repeat([1, 0], [len(X), len(Y)])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    return float(cross_val_score(model, rows, is_new, cv=folds, scoring="roc_auc").mean())


def auc_by_chance(n: int, m: int) -> float:
    """What the area of two samples of one and the same population exceeds once in a thousand times.

    It is Mann and Whitney's statistic over nm, whose variance is then (n + m + 1) / 12nm.

    Source:
        Mann and Whitney, On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other,
        1947.

    Example:
        >>> round(auc_by_chance(100, 1000), 3)
        0.594
    """
    return 0.5 + _Z * sqrt((n + m + 1) / (12 * n * m))


def drift_checks(found: DriftReport, config: IncrementalConfig, labels: tuple[str, ...]) -> tuple[CheckResult, ...]:
    """Compare with the thresholds: a check each, `drift.NAME`.

    Args:
        found: of the new texts, of which there are some.
        config: thresholds, and what it means to be beyond one.
        labels: the task's.

    Example:
        >>> old, new = TextCounts(n=900, n_unsure=90), TextCounts(n=100, n_unsure=50)
        >>> checks = drift_checks(DriftReport(new=new, old=old), IncrementalConfig(), ("a", "b"))
        >>> [str(check) for check in checks if not check.passed]
        ['drift.low_confidence_rate: observed 50 % (50 of 100), 10 % before, wanted a rise of at most 15 points']
    """
    new, old, effect = found.new, found.old, "fail" if config.on_drift is OnDrift.FAIL else "warn"
    answered = (new.n_answered, old.n_answered)
    checks = [
        _rise("out_of_set_rate", new.n_out_of_set, old.n_out_of_set, *answered, config.max_out_of_set_rise),
        _rise("low_confidence_rate", new.n_unsure, old.n_unsure, new.n, old.n, config.max_low_confidence_rise),
        _rise("disagreement", new.n_disagreeing, old.n_disagreeing, *answered, config.max_disagreement_rise),
        _balance(new, old, config.max_psi, labels),
        _embedding(found, config.max_embedding_auc),
    ]
    return tuple(check.model_copy(update={"on_fail": effect}) for check in checks if check is not None)


def _rise(name: str, hits: int, old_hits: int, n: int, m: int, threshold: float) -> CheckResult | None:
    if not n or not m:
        return None
    share, before, pooled = hits / n, old_hits / m, (hits + old_hits) / (n + m)
    bound = max(threshold, _Z * sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))
    return CheckResult(
        name=f"drift.{name}",
        passed=share - before <= bound,
        observed=f"{100 * share:.3g} % ({hits:,} of {n:,}), {100 * before:.3g} % before",
        wanted=f"a rise of at most {100 * bound:.3g} points",
        n_unexpected=hits,
        n=n,
        value=share - before,
        at_most=bound,
    )


def _balance(new: TextCounts, old: TextCounts, threshold: float, labels: tuple[str, ...]) -> CheckResult | None:
    n = sum(new.labels.get(name, 0) for name in labels)
    if not n or not sum(old.labels.get(name, 0) for name in labels):
        return None
    shift = shift_of(new.labels, expected_of_counts("the student's texts", old.labels), labels)
    bound = max(threshold, shift.by_chance)
    return CheckResult(
        name="drift.balance",
        passed=shift.psi <= bound,
        observed=f"an index of {shift.psi:.3g}; {shift.label} moved most, from {100 * shift.expected:.3g} % to "
        f"{100 * shift.observed:.3g} %",
        wanted=f"at most {bound:.3g}",
        n=n,
        value=shift.psi,
        at_most=bound,
    )


def _embedding(found: DriftReport, threshold: float) -> CheckResult | None:
    if found.auc is None:
        return None
    bound = max(threshold, auc_by_chance(found.n_embedded, found.m_embedded))
    return CheckResult(
        name="drift.embedding",
        passed=found.auc <= bound,
        observed=f"new texts told from old ones with an AUC of {found.auc:.3f} ({found.n_embedded:,} and "
        f"{found.m_embedded:,} texts)",
        wanted=f"at most {bound:.3f}",
        n=found.n_embedded,
        value=found.auc,
        at_most=bound,
    )
