"""Which texts are drawn: distinct, the same again, spread out, or where a student doubts."""

import numpy as np
import pytest

from candist_core.active import (
    draw_by_gradient,
    draw_diverse,
    draw_doubtful,
    draw_random,
    draw_stratified,
    margins,
)


def unit_rows(n, d=8, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def beliefs(n, k=5, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(k), n).astype(np.float32)


DRAWS = {
    "random": lambda X, P, size, seed: draw_random(len(X), size, seed),
    "stratified": lambda X, P, size, seed: draw_stratified(X, size, seed),
    "diverse": lambda X, P, size, seed: draw_diverse(X, size, seed),
    "doubtful": lambda X, P, size, seed: draw_doubtful(P, X, size, seed),
    "gradient": lambda X, P, size, seed: draw_by_gradient(P, X, size, seed),
}


@pytest.mark.parametrize("how", DRAWS)
@pytest.mark.parametrize("size", [1, 65, 300, 400])
def test_draws_are_distinct_as_many_as_wanted_and_the_same_again(how, size):
    X, P = unit_rows(300), beliefs(300)
    rows = DRAWS[how](X, P, size, 7)
    assert len(rows) == len(set(rows.tolist())) == min(size, 300)
    assert rows.min() >= 0
    assert rows.max() < 300
    np.testing.assert_array_equal(rows, DRAWS[how](X, P, size, 7))


def test_a_stratified_draw_takes_from_each_cluster_its_share():
    corners = np.eye(4, dtype=np.float32)
    X = np.concatenate([corners[[0] * 400], corners[[1] * 300], corners[[2] * 200], corners[[3] * 100]])
    X += np.random.default_rng(0).normal(scale=0.01, size=X.shape).astype(np.float32)
    rows = draw_stratified(X, 200, seed=0)
    shares = np.bincount(X[rows].argmax(axis=1), minlength=4) / 200
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.2, 0.1], atol=0.02)


def test_a_diverse_draw_finds_the_rare_kinds_that_a_random_one_misses():
    X = np.eye(8, dtype=np.float32)[[0] * 993 + list(range(1, 8))]
    assert set(X[draw_diverse(X, 8, seed=0)].argmax(axis=1)) == set(range(8))
    assert len(set(X[draw_random(1000, 8, seed=0)].argmax(axis=1))) < 4


def test_gradients_choose_texts_that_a_student_doubts_and_of_equal_ones_few():
    P = np.full((300, 2), [0.999, 0.001], dtype=np.float32)
    P[200:] = [0.5, 0.5]
    X = np.concatenate([unit_rows(200), np.eye(8, dtype=np.float32)[[0] * 90 + [1] * 5 + [2] * 5]])
    rows = np.concatenate([draw_by_gradient(P, X, 2, seed) for seed in range(20)])
    doubtful = rows[rows >= 200]
    assert len(doubtful) > 20, "at random a third"
    assert (X[doubtful].argmax(axis=1) > 0).sum() >= 3, "ten of the hundred are of another kind"


def test_the_distance_of_two_gradients_is_that_of_the_outer_products():
    X, P = unit_rows(20, 3), beliefs(20, 4)
    A = P - np.eye(4)[P.argmax(axis=1)]
    G = np.einsum("ik,id->ikd", A, X).reshape(20, -1)
    wanted = ((G[:, None] - G[None]) ** 2).sum(axis=2)
    norms = (A**2).sum(axis=1)
    np.testing.assert_allclose(norms[:, None] + norms - 2 * (A @ A.T) * (X @ X.T), wanted, atol=1e-5)


def test_margins_are_of_the_two_likeliest_labels():
    np.testing.assert_allclose(margins(np.array([[0.2, 0.5, 0.3]])), [0.2])
