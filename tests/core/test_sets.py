"""Counts of candidate sets, by hand and against random sets."""

from math import log

import numpy as np
import pytest

from candist_core import sets
from candist_core.sets import SetCounts, companions, ranked_pairs, set_entropy


def counted(*rows: str, k: int = 4) -> SetCounts:
    """Sets over the labels a to d, the first letter first."""
    R = np.array([[row.find(name) for name in "abcdefgh"[:k]] for row in rows])
    counts = SetCounts(k)
    counts.add(R)
    return counts


def random_sets(n, k, size, seed=0):
    rng = np.random.default_rng(seed)
    R = np.full((n, k), -1)
    for i in range(n):
        R[i, rng.choice(k, size, replace=False)] = np.arange(size)
    return R


def test_labels_that_stand_together_are_counted_on_both_sides_and_led_ones_on_one():
    counts = counted("ab", "ba", "abc", "d", "")
    assert (counts.n, counts.n_several, counts.n_labels) == (4, 3, 8)
    assert counts.sizes.tolist() == [1, 1, 2, 1, 0]
    assert counts.together.tolist() == [[0, 3, 1, 0], [3, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert counts.led.tolist() == [[0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert counts.holding.tolist() == [3, 3, 1, 1]
    assert counts.first.tolist() == [2, 1, 0, 1]
    assert sorted(counts.equal.values()) == [1, 2]


def test_shards_add_up_to_what_the_whole_is():
    R = random_sets(300, 6, 3)
    parts, whole = SetCounts(6), SetCounts(6)
    whole.add(R)
    for start in range(0, 300, 70):
        parts.add(R[start : start + 70])
    for name in ("sizes", "first", "holding", "together", "led"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert parts.equal == whole.equal


def test_a_label_that_is_not_known_leaves_a_gap_and_no_first_label():
    pairs = list(ranked_pairs(np.array([[1, 2, -1]])))
    assert [(one.tolist(), other.tolist(), led) for _, one, other, led in pairs] == [([0], [1], False)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "k", "size"), [(500, 6, 2), (100, 40, 2), (2000, 5, 3)])
def test_random_sets_have_an_entropy_of_one(n, k, size, seed):
    counts = SetCounts(k)
    counts.add(random_sets(n, k, size, seed))
    assert set_entropy(counts) == pytest.approx(1.0, abs=0.03)


def test_two_kinds_of_sets_have_the_entropy_of_a_coin_over_that_of_all_pairs():
    # 400 sets over 6 possible ones: as many random ones are 1/2m · (6 - 1) below log 6, to the first order.
    counts = counted(*["ab", "cd"] * 200)
    assert set_entropy(counts) == pytest.approx(log(2) / (log(6) - 5 / 800), rel=1e-3)


def test_sets_that_cannot_differ_have_an_entropy_of_one():
    assert set_entropy(counted("a", "b")) == 1.0
    assert set_entropy(counted(*["ab"] * 30, k=2)) == 1.0


def test_companions_count_only_labels_whose_sets_hold_enough_others():
    counts = counted(*["ab"] * 6, *["ac"] * 6, *["ba"] * 9)
    assert companions(counts, at_least=10) == pytest.approx(2.0)
    # 12 others beside a, two kinds alike; 9 beside b, always the same.
    assert companions(counts, at_least=9) == pytest.approx((12 * 2 + 9 * 1) / 21)
    assert companions(counted("ab"), at_least=10) is None


def test_the_frequent_sets_stay_when_the_different_ones_are_too_many(monkeypatch):
    # The bound is a constant of a million, too many to reach in a test.
    monkeypatch.setattr(sets, "MAX_DIFFERENT", 4)
    counts = counted("ab", "ab", "ac", "ac", "ad", "bc", "bd")
    assert sorted(counts.equal.values()) == [2, 2]
