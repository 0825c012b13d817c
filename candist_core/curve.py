"""A learning curve: how often a student agrees with what it is measured on, by the number of texts it learned from.

Error falls with the number n of texts as a + b·n^(-c): a is what stays, c how fast it falls. Invariant: a forecast is
never below zero, and there is none of fewer than three points.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from candist_core.sampling import CurvePoint, Forecast

MIN_POINTS = 3
_EXPONENTS = np.geomspace(0.1, 1.5, 40)
"""Of curves on text data c is 0.1 to 1 in Hestness et al. (2017); a little more is let through."""


def forecast(points: Sequence[CurvePoint], n_more: int, usd_a_text: float | None = None) -> Forecast | None:
    """What so many more texts would bring, by the curve through the points; None of fewer than three.

    Args:
        points: by rising number of texts.
        n_more: texts beyond the last point.
        usd_a_text: what the teacher costs for one of them, in US dollars; None where that is not known.

    Source:
        Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017, for the power law; Figueroa et al.,
        Predicting sample size required for classification performance, 2012, for its use to decide how much to label.

    Example:
        >>> from candist_core.metrics import wilson
        >>> points = [CurvePoint(n_rows=n, agreement=wilson(right, 400)) for n, right in
        ...     ((100, 200), (400, 300), (1600, 350))]
        >>> round(forecast(points, 4800).gain, 2)
        0.06
    """
    if len(points) < MIN_POINTS or n_more < 1:
        return None
    n = np.array([point.n_rows for point in points], dtype=np.float64)
    error = np.array([1 - point.agreement.value for point in points])
    a, b, c = _fit(n, error)
    gain = float(b * (n[-1] ** -c - (n[-1] + n_more) ** -c))
    cost = None if usd_a_text is None else n_more * usd_a_text
    return Forecast(n_rows=n_more, gain=gain, ceiling=1 - a, cost_usd=cost)


def _fit(n: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[float, float, float]:
    """The a, b and c of least squares, a and b not below zero."""
    from scipy.optimize import nnls

    fits = []
    for c in _EXPONENTS:
        (a, b), residual = nnls(np.stack([np.ones_like(n), n**-c], axis=1), error)
        fits.append((residual, float(a), float(b), float(c)))
    return min(fits)[1:]
