import numpy as np
import pytest

from candist_core.places import answer_likelihood, flat_places, learn_places, prior_places

TABLE = np.array([[0, 0, 0], [0.9, 0, 0.1], [0.6, 0.3, 0.1]])


def test_every_size_has_a_distribution_over_places():
    places = prior_places(4)
    np.testing.assert_allclose(places[1:].sum(axis=1), 1)
    assert not places[0].any()
    # A set of two has no third place.
    assert places[2, 2] == 0


def test_a_flat_table_forgets_the_order_and_keeps_the_outside():
    np.testing.assert_allclose(flat_places(TABLE), [[0, 0, 0], [0.9, 0, 0.1], [0.45, 0.45, 0.1]])


def test_labels_outside_a_set_share_what_is_left():
    R = np.array([[1, 0, -1, -1], [-1, -1, 0, -1], [-1, -1, -1, -1]])
    expected = [[0.3, 0.6, 0.05, 0.05], [0.1 / 3, 0.1 / 3, 0.9, 0.1 / 3], [1, 1, 1, 1]]
    np.testing.assert_allclose(answer_likelihood(R, TABLE), expected, rtol=1e-6)


def answers(seed, n, k, table):
    """Truth, and ranks drawn from a table."""
    rng = np.random.default_rng(seed)
    truth, sizes = rng.integers(k, size=n), rng.integers(1, 3, size=n)
    R = np.full((n, k), -1)
    for i in range(n):
        place = rng.choice(len(table), p=table[sizes[i]])
        order = rng.permutation([j for j in range(k) if j != truth[i]])[: sizes[i]]
        if place < len(table) - 1:
            order[place] = truth[i]
        R[i, order] = np.arange(sizes[i])
    return truth, R


def test_a_table_is_learned_from_beliefs_that_know_the_truth_only_roughly():
    table = np.array([[0, 0, 0], [0.7, 0, 0.3], [0.4, 0.5, 0.1]])
    truth, R = answers(0, 6000, 5, table)
    rng = np.random.default_rng(1)
    # The posterior of Gaussian features, drawn without regard to the answer: right in about 80 %.
    logits = 2 * (2 * np.eye(5)[truth] + rng.normal(size=(6000, 5)))
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    learned = learn_places(R, P, prior_places(2))
    # The prior weighs 0.3 of the texts: what is learned lies between it and the truth.
    expected = (0.3 * prior_places(2) + table) / 1.3
    np.testing.assert_allclose(learned[1:], expected[1:], atol=0.04)


def test_few_sets_leave_the_prior_where_it_is():
    learned = learn_places(np.array([[0, 1, -1]]), np.array([[0.0, 0.0, 1.0]]), prior_places(2))
    np.testing.assert_allclose(learned, prior_places(2), atol=0.02)


def test_a_set_of_every_label_has_no_outside():
    R, P = np.array([[0, 1]] * 400), np.array([[0.9, 0.1]] * 400)
    learned = learn_places(R, P, prior_places(2))
    assert learned[2].sum() == pytest.approx(1)
    assert learned[2, 2] < prior_places(2)[2, 2]
