"""The label model: one posterior for each text, from the teacher's whole answer and a student's belief.

n texts, k labels. R is the rank table, (n, k): the place of a label in the teacher's set, -1 outside it. P is the
student's belief about texts that it was not trained on, (n, k). W is the place table of `candist_core.places`.
Bayes' rule, with the student as prior and the answer as evidence:

    posterior_ij ∝ P_ij^(1/T) · W[m_i, R_ij]            label j inside the set of text i
    posterior_ij ∝ P_ij^(1/T) · W[m_i, M] / (k - m_i)   label j outside it
    posterior_ij ∝ P_ij                                 the teacher gave no set

Whether the order of a set is evidence depends on the teacher. One that names a single label most of the time puts
the right one first; one that is often unsure orders its set by chance or by habit, and there the student, trained
without the order, knows better. Without an audit the mean size of the sets tells the two apart.

An audit, texts that a person has labelled, measures what no model can find out by itself: how often teacher and
student are wrong alike. Where there is one, it chooses between the two, and confidences are calibrated on it.
Invariant: without an audit nothing here reads gold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from candist_core.places import answer_likelihood, flat_places, learn_places, prior_places
from candist_core.reports import LabelModel

Floats = NDArray[np.floating]
Ranks = NDArray[np.integer]

TEMPERATURE, UNORDERED_TEMPERATURE = 12.0, 3.0
"""T where the order counts, and where it does not. Students trained on a teacher's answers agree with it for the wrong
reasons too; a small T would count that echo in full."""

TAUGHT_TEMPERATURE, TAUGHT_UNORDERED_TEMPERATURE = 2.0, 1.0
"""T of what a student is taught: over many texts a loud belief does more good than harm. All four were chosen once, on
the corpora of `docs/method.md`."""

UNSURE_ABOVE = 1.5
"""Mean labels in a set above which a teacher's order is not trusted. Of the eight teachers and data sets whose sets
under "name others when unsure" are published with CanDist (tables 8 and 9), the four above it are right on 62 to 69 %
with their first labels, the four below on 71 to 95 %."""

MIN_AUDIT = 30
"""Fewer audited texts tell too little: their accuracy is known to 18 points or worse."""

_COUNTING_TEMPERATURE = 2.0
_MIN_SETS = 50
# Of the slope, in standard deviations of the audited posteriors, which may all be alike.
_SLOPE_PRIOR, _MIN_SLOPE, _MIN_SPREAD = 0.1, 0.05, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Audited:
    """Rows that a person has labelled: `rows` (a,) into the n texts, `columns` (a,) in [0, k)."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def trusts_order(R: Ranks) -> bool:
    """Whether the teacher is sure often enough for the order of its sets to be trusted.

    Example:
        >>> trusts_order(np.array([[0, -1], [1, 0]]))
        True
    """
    sizes = (R >= 0).sum(axis=1)
    return not (sizes > 0).any() or float(sizes[sizes > 0].mean()) <= UNSURE_ABOVE


def fit_label_model(R: Ranks, beliefs: Mapping[bool, Floats], audited: Audited | None = None) -> LabelModel:
    """Estimate how the teacher answers, without gold or with an audit.

    Args:
        R: (n, k), -1 outside the set.
        beliefs: P, (n, k), of students taught with the order of the sets (True) or without it (False). Of two the
            rule of `trusts_order` chooses, unless an audit shows the other to be right more often.
        audited: texts that a person labelled; fewer than 30 count for nothing here.

    Source:
        Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979, for the
        place table; Platt, Probabilistic Outputs for Support Vector Machines, 1999, for the calibration.

    Example:
        >>> R, P = np.full((90, 2), [0, -1]), np.full((90, 2), [0.001, 0.999])
        >>> np.round(fit_label_model(R, {True: P}).places[1], 2).tolist()
        [0.35, 0.65]
    """
    is_audited = audited is not None and len(audited.rows) >= MIN_AUDIT
    models = {ordered: _ordered(R, P) if ordered else _unordered(R) for ordered, P in beliefs.items()}
    order = next(iter(models)) if len(models) == 1 else trusts_order(R)
    if audited is None or not is_audited:
        return models[order]
    found = {each: posterior(R, beliefs[each], model)[audited.rows] for each, model in models.items()}
    if len(models) > 1 and _is_better(found[not order], found[order], audited.columns):
        order = not order
    return _calibrated(models[order], found[order], audited.columns)


def posterior(R: Ranks, P: Floats, model: LabelModel) -> NDArray[np.float64]:
    """How probable each label is, (n, k), rows sum to one; not calibrated.

    Example:
        >>> R, P = np.array([[0, -1]]), np.array([[0.5, 0.5]])
        >>> posterior(R, P, fit_label_model(R, {True: P})).round(2).tolist()
        [[0.95, 0.05]]
    """
    # A belief of exactly zero would make a label impossible whatever the teacher says.
    belief = np.maximum(np.asarray(P, dtype=np.float64), np.finfo(np.float32).tiny)
    has_set = (R >= 0).any(axis=1, keepdims=True)
    joint = belief ** (1 / model.temperature) * answer_likelihood(R, _places_for(R, model))
    joint = np.where(has_set, joint, belief)
    normalised: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
    return normalised


def taught_posterior(R: Ranks, P: Floats, model: LabelModel) -> NDArray[np.float64]:
    """What a student learns from, (n, k): the posterior with more of what the others believe in it.

    Example:
        >>> R, P = np.array([[0, -1]]), np.array([[0.01, 0.99]])
        >>> model = fit_label_model(R, {True: P})
        >>> taught_posterior(R, P, model)[0, 0] < posterior(R, P, model)[0, 0]
        np.True_
    """
    temperature = TAUGHT_TEMPERATURE if model.trusts_order else TAUGHT_UNORDERED_TEMPERATURE
    return posterior(R, P, model.model_copy(update={"temperature": temperature}))


def confidence(largest: Floats, model: LabelModel) -> NDArray[np.float64]:
    """How likely labels are right whose posteriors are given, both (n,): the posterior itself without an audit.

    Example:
        >>> confidence(np.array([0.9]), LabelModel(places=(), temperature=1.0, trusts_order=True)).tolist()
        [0.9]
    """
    if not model.n_audited:
        return np.asarray(largest, dtype=np.float64)
    return _sigmoid(model.slope * np.asarray(largest, dtype=np.float64) + model.offset)


def _ordered(R: Ranks, P: Floats) -> LabelModel:
    prior, has_set = prior_places(_largest(R)), (R >= 0).any(axis=1)
    places = prior
    if has_set.sum() >= _MIN_SETS:
        # Counts over many texts bear a louder student than the verdict on one of them.
        belief = np.asarray(P[has_set], dtype=np.float64) ** (1 / _COUNTING_TEMPERATURE)
        places = learn_places(R[has_set], belief, prior, may_rise=False)
    return LabelModel(places=_rows(places), temperature=TEMPERATURE, trusts_order=True)


def _unordered(R: Ranks) -> LabelModel:
    return LabelModel(
        places=_rows(flat_places(prior_places(_largest(R)))), temperature=UNORDERED_TEMPERATURE, trusts_order=False
    )


def _largest(R: Ranks) -> int:
    return int((R >= 0).sum(axis=1).max(initial=0))


def _rows(places: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in places.tolist())


def _places_for(R: Ranks, model: LabelModel) -> Floats:
    """The place table; sets larger than any it was estimated on have the prior's rows."""
    known = np.array(model.places, dtype=np.float64)
    if _largest(R) < len(known):
        return known
    places = prior_places(_largest(R)) if model.trusts_order else flat_places(prior_places(_largest(R)))
    for size in range(1, len(known)):
        places[size] = 0.0
        places[size, :size], places[size, -1] = known[size, :size], known[size, -1]
    return places


def _is_better(rows: Floats, others: Floats, y: NDArray[np.int64]) -> bool:
    """Whether one posterior is right more often than another, by more than chance makes it one time in six.

    Of the texts that one of the two alone gets right, the difference has their number's root as standard error.
    """
    right, other = rows.argmax(axis=1) == y, others.argmax(axis=1) == y
    n_more, n_less = int((right & ~other).sum()), int((other & ~right).sum())
    return n_more - n_less > sqrt(n_more + n_less)


def _calibrated(model: LabelModel, rows: Floats, y: NDArray[np.int64]) -> LabelModel:
    """Slope and offset of a logistic curve over the posterior, of the highest likelihood under a weak prior.

    Over the posterior, not over its log-odds: close to one those grow without end, while a student that echoes its
    teacher is no surer there.
    """
    # Imported here: it takes a tenth of a second that a run without an audit need not wait.
    from scipy.optimize import minimize

    largest, is_right = rows.max(axis=1), rows.argmax(axis=1) == y
    centre, scale = largest.mean(), max(float(largest.std()), _MIN_SPREAD)
    n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
    # Platt's targets: an audit without a mistake is no proof that there are none.
    wanted = np.where(is_right, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    z = (largest - centre) / scale

    def badness(weights: Floats) -> float:
        odds = weights[0] * z + weights[1]
        unlikely = (np.logaddexp(0.0, odds) - wanted * odds).sum()
        return float(unlikely + 0.5 * _SLOPE_PRIOR * weights[0] ** 2)

    slope, offset = minimize(badness, x0=np.array([1.0, 0.0]), method="BFGS").x
    # Below zero the surest labels would be called the worst; the order of confidences is kept.
    slope = max(float(slope), _MIN_SLOPE) / scale
    return model.model_copy(
        update={"slope": slope, "offset": float(offset) - slope * float(centre), "n_audited": len(rows)}
    )


def _sigmoid(z: Floats) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * np.asarray(z, dtype=np.float64)))
    return values
