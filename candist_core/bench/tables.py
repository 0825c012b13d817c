"""What experiments yield: rows of figures, as Markdown, and how sure a difference is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Figures:
    """One table: `columns` name the cells of every row; numbers are shown to three places."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

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
