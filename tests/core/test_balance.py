"""How far labels have moved, by hand."""

from math import log

import numpy as np
import pytest

from candist_core.balance import Expected, population_stability_index, psi_by_chance, shift_of, spread_rest


def test_the_index_is_a_sum_over_labels_and_the_same_both_ways():
    a, e = np.array([0.7, 0.3]), np.array([0.5, 0.5])
    by_hand = 0.2 * log(7 / 5) + -0.2 * log(3 / 5)
    assert population_stability_index(a, e) == pytest.approx(by_hand)
    assert population_stability_index(e, a) == pytest.approx(by_hand)
    assert population_stability_index(a, a) == 0.0


def test_a_label_that_nobody_expected_or_nobody_got_gives_a_finite_index():
    never = shift_of({"a": 100}, Expected("prior", {"a": 0.0, "b": 1.0}), ["a", "b"])
    assert np.isfinite(never.psi)
    assert never.psi > 5


def test_samples_of_one_population_stay_below_what_chance_allows():
    rng, k = np.random.default_rng(0), 20
    shares = rng.dirichlet(np.full(k, 5.0))
    labels = [str(j) for j in range(k)]
    n_above = 0
    for _ in range(300):
        one, two = rng.multinomial(2000, shares), rng.multinomial(500, shares)
        expected = Expected("audit", dict(zip(labels, two / 500, strict=True)), 500)
        shift = shift_of(dict(zip(labels, one.tolist(), strict=True)), expected, labels)
        n_above += shift.psi > shift.by_chance
    assert n_above <= 2


def test_chance_shrinks_with_the_texts_and_grows_with_the_labels():
    assert psi_by_chance(10, 1000, 1000) == pytest.approx(2 * psi_by_chance(10, 1000, None))
    assert psi_by_chance(10, 1000, None) < psi_by_chance(77, 1000, None)


def test_labels_without_a_stated_share_split_the_rest():
    assert spread_rest({"a": 0.5}, ["a", "b", "c"]) == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert spread_rest({"a": 0.99, "b": 0.02}, ["a", "b"])["a"] == pytest.approx(0.99 / 1.01)
