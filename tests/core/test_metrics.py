"""Metrics against fractions by hand, and against scikit-learn where it has the same one."""

import math

import numpy as np
import pytest

from candist_core.metrics import (
    accuracy,
    coverage,
    expected_calibration_error,
    lift,
    macro_f1,
    mean_set_size,
    risk_coverage,
    set_sizes,
    wilson,
)


def mask(*rows: str) -> np.ndarray:
    """S over the labels a to d."""
    return np.array([[name in row for name in "abcd"] for row in rows])


def test_wilson_of_half_of_four_is_symmetric_about_one_half():
    z2 = 1.959963984540054**2
    half = math.sqrt(z2 / 16 + z2 * z2 / 64) / (1 + z2 / 4)
    interval = wilson(2, 4)
    assert (interval.value, interval.n) == (1 / 2, 4)
    assert interval.low == pytest.approx(1 / 2 - half)
    assert interval.high == pytest.approx(1 / 2 + half)


def test_wilson_of_none_and_of_all_stays_inside_zero_and_one():
    z2 = 1.959963984540054**2
    for n in (1, 7, 500):
        none, every = wilson(0, n), wilson(n, n)
        assert 0.0 <= none.low < 1e-15
        assert none.high == pytest.approx(z2 / (n + z2))
        assert 1 - 1e-15 < every.high <= 1.0
        assert every.low == pytest.approx(n / (n + z2))


def test_wilson_of_no_rows_knows_nothing():
    interval = wilson(0, 0)
    assert (interval.value, interval.low, interval.high, interval.n) == (0.0, 0.0, 1.0, 0)


def test_wilson_covers_the_truth_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    intervals = [wilson(int(hits), 60) for hits in rng.binomial(60, 0.9, 4000)]
    assert np.mean([i.low <= 0.9 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.02)


def test_coverage_counts_an_empty_set_as_a_miss():
    assert coverage(mask("ab", "c", "", "d"), np.array([1, 2, 0, 0])) == 2 / 4


def test_set_sizes_are_counted_and_the_mean_leaves_empty_sets_out():
    S = mask("ab", "c", "", "abc")
    assert set_sizes(S) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert mean_set_size(S) == (2 + 1 + 3) / 3
    assert mean_set_size(mask("", "")) == 0.0


def test_lift_is_coverage_per_extra_label_over_a_random_label_s():
    # Four texts, first labels right in 2; two extra labels, one of them right: (1/4) / (2/4) over (2/4) / 3.
    S = mask("ab", "cd", "a", "b")
    first, y = np.array([0, 2, 0, 1]), np.array([1, 0, 0, 1])
    assert accuracy(first, y) == 2 / 4
    assert lift(S, first, y) == pytest.approx((1 / 4) / (2 / 4) / ((2 / 4) / 3))


def test_lift_of_random_extra_labels_is_near_one():
    rng = np.random.default_rng(0)
    n, k = 40_000, 6
    y = rng.integers(0, k, n)
    first = np.where(rng.random(n) < 0.6, y, (y + rng.integers(1, k, n)) % k)
    S = np.zeros((n, k), dtype=bool)
    S[np.arange(n), first] = True
    S[np.arange(n), (first + rng.integers(1, k, n)) % k] = True
    assert lift(S, first, y) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("sets", "first", "y"),
    [(["a", "b"], [0, 1], [0, 2]), (["ab", "cd"], [0, 2], [0, 2]), ([], [], [])],
    ids=["no extra label", "no wrong first label", "no row"],
)
def test_lift_is_undefined_where_nothing_can_be_gained(sets, first, y):
    S = mask(*sets).reshape(len(sets), 4)
    assert lift(S, np.array(first, dtype=int), np.array(y, dtype=int)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(seed):
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, 9, 50), rng.integers(2, 12, 50)
    assert macro_f1(predicted, y) == pytest.approx(f1_score(y, predicted, average="macro", zero_division=0.0))
    assert accuracy(predicted, y) == pytest.approx(accuracy_score(y, predicted))


def test_macro_f1_by_hand():
    # a: 1 right, predicted 2, gold 1; b: 1 right, predicted 1, gold 2
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1])) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_expected_calibration_error_by_hand():
    # bin (0.8, 0.9]: 2 texts, confidence 0.85, accuracy 1/2; bin (0, 0.1]: one text, 0.05, right
    confidence, is_right = np.array([0.8001, 0.8999, 0.05]), np.array([True, False, True])
    assert expected_calibration_error(confidence, is_right) == pytest.approx((2 * 0.35 + 0.95) / 3)


def test_expected_calibration_error_keeps_one_and_zero_in_their_bins():
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    assert expected_calibration_error(np.array([0.9] * 10), np.array([True] * 9 + [False])) == pytest.approx(0.0)


def test_risk_coverage_keeps_equal_confidences_together():
    curve = risk_coverage(np.array([0.5, 0.9, 0.5, 0.7]), np.array([False, True, True, True]))
    assert curve.rows() == [(0.9, 1 / 4, 0.0), (0.7, 2 / 4, 0.0), (0.5, 4 / 4, 1 / 4)]
