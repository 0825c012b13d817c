"""What experiments yield: rows of figures, as Markdown, and how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2_000
_MIN_PAIRS = 10
"""Of fewer, draws repeat one order over and over and the interval means nothing."""


class Shape(StrEnum):
    """How a table is drawn.

    `LINES`: the first column across, the others up. `DOTS`: the rows down, the others across. `SCATTER`: a dot a row,
    by its first two numbers, in a colour by its first cell. `PANELS`: a picture a column, the rows down; tables of it
    share the pictures.
    """

    LINES = "lines"
    DOTS = "dots"
    SCATTER = "scatter"
    PANELS = "panels"


@dataclass(frozen=True, slots=True)
class Plot:
    """A shape, what its axes are called, units included, and the columns that are drawn: all numbers if none are."""

    shape: Shape
    across: str
    up: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several seeds: their mean, and from the lowest to the highest.

    Example:
        >>> str(spread_of([0.25, 0.5, 0.75]))
        '0.500 (0.250 to 0.750)'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and range; rounding may bring the mean of equal figures outside them, which is undone.

    Example:
        >>> spread_of([0.1, 0.1, 0.1])
        Spread(mean=0.1, low=0.1, high=0.1)
    """
    low, high = float(min(values)), float(max(values))
    return Spread(min(max(mean_of(values), low), high), low, high)


@dataclass(frozen=True, slots=True)
class Figures:
    """One table: `columns` name the cells of every row; numbers are shown to three places."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    plot: Plot | None = None

    def markdown(self) -> str:
        """The table as GitHub shows it.

        Example:
            >>> print(Figures("t", ("a", "b"), (("x", 0.5),)).markdown())
            | a | b |
            |---|---|
            | x | 0.500 |
        """
        shown = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in self.rows]
        lines = [list(self.columns), *shown]
        head, *rest = ("| " + " | ".join(line) + " |" for line in lines)
        return "\n".join([head, "|" + "---|" * len(self.columns), *rest])


def bootstrap_difference(
    right: NDArray[np.bool_], other: NDArray[np.bool_], seed: int = 0
) -> tuple[float, float, float]:
    """Difference of two accuracies on the same texts and its 95 % interval, by resampling texts.

    Args:
        right: (..., n), whether each text is right; leading axes are runs and are averaged over.
        other: the same of the other.
        seed: of the draws.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

    Example:
        >>> bootstrap_difference(np.ones((1, 9), bool), np.zeros((1, 9), bool))
        (1.0, 1.0, 1.0)
    """
    each = (np.asarray(right, float) - np.asarray(other, float)).reshape(-1, np.shape(right)[-1]).mean(axis=0)
    rng, n = np.random.default_rng(seed), len(each)
    means = np.sort([each[rng.integers(0, n, n)].mean() for _ in range(_DRAWS)])
    return float(each.mean()), float(means[int(0.025 * _DRAWS)]), float(means[int(0.975 * _DRAWS)])


def shown_difference(found: tuple[float, float, float]) -> str:
    """A difference in points with its interval.

    Example:
        >>> shown_difference((0.0123, -0.001, 0.02))
        '+1.2 (-0.1 to +2.0)'
    """
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in found))


def rank_correlation(
    values: NDArray[np.floating], others: NDArray[np.floating], seed: int = 0
) -> tuple[float, float, float] | None:
    """Spearman's rank correlation and its 95 % interval, by resampling pairs; None of fewer than ten, or of constants.

    Example:
        >>> rank_correlation(np.arange(12.0), np.arange(12.0) ** 2)[0].__round__(6)
        1.0
    """
    # Imported here: it takes a tenth of a second.
    from scipy.stats import rankdata

    if len(values) < _MIN_PAIRS or np.ptp(values) == 0 or np.ptp(others) == 0:
        return None
    rng, n, found = np.random.default_rng(seed), len(values), []
    for draw in range(_DRAWS + 1):
        rows = rng.integers(0, n, n) if draw else np.arange(n)
        ranks = rankdata(values[rows]), rankdata(others[rows])
        # A draw of equal values has no order.
        if np.ptp(ranks[0]) and np.ptp(ranks[1]):
            found.append(float(np.corrcoef(*ranks)[0, 1]))
    return found[0], float(np.quantile(found[1:], 0.025)), float(np.quantile(found[1:], 0.975))


def shown_correlation(found: tuple[float, float, float] | None) -> str:
    """A correlation with its interval.

    Example:
        >>> shown_correlation((0.5, -0.25, 0.75)), shown_correlation(None)
        ('+0.50 (-0.25 to +0.75)', 'too few')
    """
    return "too few" if found is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*found)


def kept_accuracy(confidence: NDArray[np.floating], is_right: NDArray[np.bool_], set_aside: float) -> float:
    """Accuracy of what stays when the least sure share is set aside; ties are broken by row.

    Example:
        >>> kept_accuracy(np.array([0.9, 0.1]), np.array([True, False]), set_aside=0.5)
        1.0
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    return float(is_right[order[: len(order) - round(len(order) * set_aside)]].mean())


def area_under_risk(confidence: NDArray[np.floating], is_right: NDArray[np.bool_]) -> float:
    """Mean share of wrong labels as ever less sure ones are kept (area under the risk-coverage curve).

    Source:
        Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019.

    Example:
        >>> area_under_risk(np.array([0.9, 0.1]), np.array([True, False]))
        0.25
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    return float((np.cumsum(~is_right[order]) / np.arange(1, len(order) + 1)).mean())


def mean_of(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return float(np.mean(values))
