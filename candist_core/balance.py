"""The balance of labels: how far the shares of labels are from what was expected.

k labels. a and e are shares of the labels, (k,) in [0, 1], of what was observed and of what was expected, out of n
and m texts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Added to each label's count, so that one without a text has no infinite index (Jeffreys' prior).
_HALF = 0.5
# Between the names of a set; in none of them.
_BETWEEN = "\x1f"
# One false alarm in a thousand comparisons of like with like.
_CHANCE = 0.001


@dataclass(frozen=True, slots=True)
class Expected:
    """Shares of the labels that are expected, and where they come from. `n` texts are behind them; None: stated."""

    source: str
    shares: Mapping[str, float]
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """How far labels have moved: the index, what chance alone makes of it at most, and the label that moved most."""

    psi: float
    by_chance: float
    label: str
    observed: float
    expected: float


def expected_of_counts(source: str, counts: Mapping[str, int]) -> Expected:
    """Shares out of counts.

    Example:
        >>> expected_of_counts("audit", {"spam": 1, "ham": 3}).shares
        {'spam': 0.25, 'ham': 0.75}
    """
    total = sum(counts.values())
    return Expected(source, {name: n / total for name, n in counts.items()}, total)


def first_labels(candidates: pl.Series) -> dict[str, int]:
    """How often each label stands first in its set.

    Example:
        >>> first_labels(pl.Series([["ham", "spam"], ["ham"], []]))
        {'ham': 2}
    """
    counts = candidates.list.first().drop_nulls().value_counts(sort=True, name="n")
    return dict(counts.iter_rows())


def frequent_sets(candidates: pl.Series, n: int = 20) -> dict[str, int]:
    """How often the n most frequent sets occur, whatever their order; empty ones are passed over.

    Example:
        >>> frequent_sets(pl.Series([["ham", "spam"], ["spam", "ham"], ["ham"], []]))
        {'ham | spam': 2, 'ham': 1}
    """
    counts: Counter[str] = Counter()
    ordered = candidates.filter(candidates.list.len() > 0).list.join(_BETWEEN)
    # Put in order here, where each stands once: polars takes 70 ms to sort 5,000 short lists, on all cores.
    for names, n_texts in ordered.value_counts(name="n").iter_rows():
        counts[" | ".join(sorted(names.split(_BETWEEN)))] += n_texts
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n])


def spread_rest(shares: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    """Give the labels that are not named equal parts of the rest, and all of them a sum of one.

    Example:
        >>> spread_rest({"spam": 0.5}, ["spam", "ham", "eggs"])
        {'spam': 0.5, 'ham': 0.25, 'eggs': 0.25}
    """
    unnamed = [name for name in labels if name not in shares]
    part = max(0.0, 1 - sum(shares.values())) / max(1, len(unnamed))
    filled = {name: shares.get(name, part) for name in labels}
    total = sum(filled.values())
    return {name: share / total for name, share in filled.items()}


def population_stability_index(a: NDArray[np.floating], e: NDArray[np.floating]) -> float:
    """Σ (a - e) · ln(a / e): 0 for equal shares. Below 0.1 little has moved, above 0.25 much has.

    Args:
        a: (k,) in (0, 1], shares observed.
        e: (k,) in (0, 1], shares expected.

    Source:
        Siddiqi, Credit Risk Scorecards, Wiley 2006, for the index and the two bounds.

    Example:
        >>> round(population_stability_index(np.array([0.6, 0.4]), np.array([0.5, 0.5])), 4)
        0.0405
    """
    return float(((a - e) * np.log(a / e)).sum())


def psi_by_chance(k: int, n: int, m: int | None) -> float:
    """What the index of two samples of one and the same population exceeds once in a thousand times.

    Between such samples it is (1/n + 1/m) times a chi-squared variable of k - 1 degrees of freedom.

    Source:
        Yurdakul and Naranjo, Statistical Properties of the Population Stability Index, Journal of Risk Model
        Validation 14(4), 2020.

    Example:
        >>> round(psi_by_chance(77, 10_000, 100), 2), round(psi_by_chance(3, 1_000_000, None), 6)
        (1.21, 1.4e-05)
    """
    from scipy.special import chdtri

    return float(chdtri(k - 1, _CHANCE) * (1 / n + (1 / m if m else 0.0)))


def shift_of(counts: Mapping[str, int], expected: Expected, labels: Sequence[str]) -> Shift:
    """Compare the labels of n texts with what was expected.

    Args:
        counts: texts by label, at least one.
        expected: what they are compared with.
        labels: the k labels of the task; others are passed over.

    Example:
        >>> shift = shift_of({"spam": 60, "ham": 40}, Expected("prior", {"spam": 0.5, "ham": 0.5}), ["spam", "ham"])
        >>> round(shift.psi, 2), shift.label
        (0.04, 'spam')
    """
    k, n = len(labels), sum(counts.get(name, 0) for name in labels)
    m = expected.n or n
    a = np.array([counts.get(name, 0) + _HALF for name in labels]) / (n + _HALF * k)
    e = np.array([expected.shares.get(name, 0.0) * m + _HALF for name in labels]) / (m + _HALF * k)
    j = int(np.argmax(np.abs(a - e)))
    return Shift(
        psi=population_stability_index(a, e),
        by_chance=psi_by_chance(k, n, expected.n),
        label=labels[j],
        observed=counts.get(labels[j], 0) / n,
        expected=expected.shares.get(labels[j], 0.0),
    )
