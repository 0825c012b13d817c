import numpy as np
import pytest

from candist_core.config import Method, StudentConfig
from candist_core.errors import EmptyCandidateSetError
from candist_core.refine import (
    dr_targets,
    dropped_rows,
    outside_set,
    rank_weights,
    refine,
    refine_targets,
    reliable_rows,
    sharpen_targets,
    uniform_targets,
)

T, F = True, False


def random_belief_and_sets(seed, n=200, k=6):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(k, 0.3), size=n)
    S = rng.random((n, k)) < 0.3
    S[np.arange(n), rng.integers(k, size=n)] = True
    return P, S


def test_uniform_targets_share_the_mass_among_candidates_only():
    np.testing.assert_allclose(
        uniform_targets(np.array([[T, T, T], [F, T, F], [T, F, T]])),
        [[1 / 3, 1 / 3, 1 / 3], [0, 1, 0], [1 / 2, 0, 1 / 2]],
    )


def test_refined_targets_are_the_belief_renormalised_inside_the_set():
    P = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    targets = refine_targets(P, np.array([[T, F, T], [T, F, T]]))
    np.testing.assert_allclose(targets, [[5 / 7, 0, 2 / 7], [1 / 4, 0, 3 / 4]], rtol=1e-6)


def test_student_certain_of_a_non_candidate_gives_uniform_targets():
    targets = refine_targets(np.array([[1.0, 0.0, 0.0]]), np.array([[F, T, T]]))
    np.testing.assert_allclose(targets, [[0, 1 / 2, 1 / 2]])


@pytest.mark.parametrize("make", [uniform_targets, lambda S: refine_targets(np.full((2, 2), 0.5), S)])
def test_a_row_without_candidates_is_named(make):
    with pytest.raises(EmptyCandidateSetError, match=r"1 rows .* the first is row 1"):
        make(np.array([[T, F], [F, F]]))


def test_gradient_of_refined_targets_is_that_of_the_set_likelihood():
    # d/dz H(Q, p) = p - Q with Q held fixed; for -log sum_S p it is p - p·S / sum_S p (method, section 0).
    logits, S = np.random.default_rng(3).normal(size=(50, 5)), np.eye(5, dtype=bool)[[0, 1, 2, 3, 4] * 10]
    S[:, 2] = True
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    step = 1e-5
    for j in range(5):
        up, down = logits.copy(), logits.copy()
        up[:, j] += step
        down[:, j] -= step
        values = [-np.log((np.exp(z) * S).sum(axis=1) / np.exp(z).sum(axis=1)) for z in (up, down)]
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(P[:, j] - refine_targets(P, S)[:, j], slope, atol=1e-6)


def test_each_candidate_weighs_a_third_of_the_one_before():
    weights = rank_weights(np.array([[2, 0, 1, -1], [-1, 0, -1, -1]]))
    np.testing.assert_allclose(weights, [[1 / 13, 9 / 13, 3 / 13, 0], [0, 1, 0, 0]], rtol=1e-6)


def test_weights_and_belief_multiply():
    targets = refine_targets(np.array([[0.2, 0.6, 0.2]]), np.array([[3 / 4, 1 / 4, 0]]))
    np.testing.assert_allclose(targets, [[1 / 2, 1 / 2, 0]], rtol=1e-6)


def test_a_student_without_mass_in_the_set_falls_back_to_the_weights():
    targets = refine_targets(np.array([[0.0, 0.0, 1.0]]), np.array([[3 / 4, 1 / 4, 0]]))
    np.testing.assert_allclose(targets, [[3 / 4, 1 / 4, 0]])


def test_sharpening_by_one_half_squares_the_ratio():
    np.testing.assert_allclose(sharpen_targets(np.array([[3 / 4, 1 / 4, 0]]), 0.5), [[9 / 10, 1 / 10, 0]])


def test_sharpening_leaves_one_hot_rows_exactly_as_they_are():
    one_hot = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(sharpen_targets(one_hot, 0.85), one_hot)


def test_sharpening_a_vanishing_row_does_not_underflow():
    np.testing.assert_allclose(sharpen_targets(np.full((1, 2), 1e-30), 0.05), [[1 / 2, 1 / 2]])


def test_a_row_is_outside_when_its_most_probable_label_is_no_candidate():
    P = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    assert outside_set(P, np.array([[F, T], [F, T], [T, T]])).tolist() == [T, F, F]


def test_the_cap_takes_back_the_rows_whose_candidates_hold_most_mass():
    # Five rows of class 1, four of them outside: at most 2 of 5 may go, those with least mass inside.
    P = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.1, 0.9]])
    S = np.array([[F, T]] * 5)
    assert dropped_rows(P, S, max_dropped=0.4).tolist() == [T, F, F, T, F]


def test_the_cap_counts_each_class_by_itself():
    # Class 1 has one row outside of one; class 2 has one of two: half of each rounds down to 0 and 1.
    P = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    S = np.array([[F, T, F], [F, F, T], [F, F, T]])
    assert dropped_rows(P, S, max_dropped=0.5).tolist() == [F, T, F]


@pytest.mark.parametrize(("max_dropped", "n_dropped"), [(0.0, 0), (0.29, 29), (1.0, 100)])
def test_the_cap_allows_the_exact_share(max_dropped, n_dropped):
    P, S = np.tile([0.9, 0.1], (100, 1)), np.tile([F, T], (100, 1))
    assert dropped_rows(P, S, max_dropped).sum() == n_dropped


def test_reliable_rows_are_the_smallest_losses_of_their_predicted_class():
    # Losses: -log of the mass on the single candidate; class 0 has rows 0, 1, 2, 4 of which half are taken.
    P = np.array([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.8, 0.2], [0.3, 0.7]])
    S = np.array([[T, F], [T, F], [T, F], [F, T], [T, F], [F, T]])
    assert reliable_rows(P, S, share=0.5).tolist() == [F, T, F, T, T, F]


def test_a_set_of_two_equals_is_less_reliable_than_a_single_candidate():
    # Same mass inside; entropy inside the set adds log 2 to the loss of the second row.
    P = np.array([[0.8, 0.1, 0.1], [0.4, 0.4, 0.2]])
    S = np.array([[T, F, F], [T, T, F]])
    assert reliable_rows(P, S, share=0.5).tolist() == [T, F]


def test_rows_outside_their_set_are_never_reliable():
    P, S = random_belief_and_sets(0)
    assert not (reliable_rows(P, S, share=1.0) & outside_set(P, S)).any()


def test_dr_sharpens_keeps_rescues_and_drops():
    P = np.array([[0.8, 0.2, 0.0], [0.5, 0.3, 0.2], [0.01, 0.01, 0.98], [0.1, 0.1, 0.8]])
    S = np.array([[T, T, F], [T, T, F], [T, T, F], [T, T, F]])
    targets = dr_targets(P, S, StudentConfig(sharpen=0.5, reliable_share=0.5, max_dropped=1.0))
    np.testing.assert_allclose(targets.Q, [[16 / 17, 1 / 17, 0], [5 / 8, 3 / 8, 0], [0, 0, 1], [0, 0, 0]], rtol=1e-6)
    assert targets.kept.tolist() == [T, T, T, F]
    assert targets.reliable.tolist() == [T, F, F, F]


def test_a_threshold_of_one_rescues_nobody():
    P, S = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[F, T], [F, T]])
    targets = dr_targets(P, S, StudentConfig(rescue_above=1.0, max_dropped=1.0))
    assert not targets.kept.any()


def test_a_row_taken_back_by_the_cap_learns_its_candidates_even_if_the_student_is_sure():
    targets = dr_targets(np.array([[0.99, 0.01]]), np.array([[F, T]]), StudentConfig(max_dropped=0.4))
    np.testing.assert_allclose(targets.Q, [[0, 1]])


@pytest.mark.parametrize("seed", range(20))
def test_no_class_keeps_less_than_the_cap_leaves_it(seed):
    P, S = random_belief_and_sets(seed)
    settings = StudentConfig(max_dropped=0.2, rescue_above=1.0)
    kept = dr_targets(P, S, settings).kept
    best = np.where(S, P, -1).argmax(axis=1)
    for j in range(S.shape[1]):
        assert kept[best == j].mean() >= 0.8


@pytest.mark.parametrize("seed", range(20))
def test_dr_rows_sum_to_one_or_nothing_and_stay_inside_the_set_unless_rescued(seed):
    P, S = random_belief_and_sets(seed)
    settings = StudentConfig(rescue_above=0.8)
    targets = dr_targets(P, S, settings)
    np.testing.assert_allclose(targets.Q.sum(axis=1), targets.kept, atol=1e-6)
    is_rescued = targets.kept & ((targets.Q > 0) & ~S).any(axis=1)
    assert is_rescued.any()
    np.testing.assert_array_equal(targets.Q[is_rescued].max(axis=1), 1.0)
    assert (P[is_rescued].max(axis=1) > 0.8).all()
    is_single = (S.sum(axis=1) == 1) & targets.reliable
    np.testing.assert_array_equal(targets.Q[is_single], S[is_single])


@pytest.mark.parametrize(("method", "first"), [("uniform", 1 / 2), ("proden", 3 / 4), ("dr", 3 / 4)])
def test_the_teachers_order_counts_for_the_methods_that_refine(method, first):
    S, ranks = np.array([[T, T, F]]), np.array([[0, 1, -1]])
    settings = StudentConfig(method=Method(method))
    np.testing.assert_allclose(refine(None, S, settings, 1, ranks).Q, [[first, 1 - first, 0]])
    indifferent = np.array([[0.4, 0.4, 0.2]])
    np.testing.assert_allclose(refine(indifferent, S, settings, 2, ranks).Q, [[first, 1 - first, 0]], rtol=1e-6)


@pytest.mark.parametrize("method", Method)
def test_without_an_order_every_method_starts_uniform_and_keeps_every_row(method):
    P, S = random_belief_and_sets(1)
    settings = StudentConfig(method=method)
    for belief in (None, P):
        first = refine(belief, S, settings, epoch=1)
        np.testing.assert_array_equal(first.Q, uniform_targets(S))
        assert first.kept.all()
        assert not first.reliable.any()


def test_methods_differ_as_their_names_say():
    P, S = random_belief_and_sets(2)
    after = {method: refine(P, S, StudentConfig(method=method, warmup_epochs=3), epoch=4) for method in Method}
    np.testing.assert_array_equal(after[Method.UNIFORM].Q, uniform_targets(S))
    np.testing.assert_array_equal(after[Method.PRODEN].Q, refine_targets(P, S))
    assert not after[Method.DR].kept.all()
    assert after[Method.DR].reliable.any()


def test_dr_drops_nothing_during_its_warm_up():
    P, S = random_belief_and_sets(2)
    warm = refine(P, S, StudentConfig(warmup_epochs=3), epoch=3)
    np.testing.assert_array_equal(warm.Q, refine_targets(P, S))
    assert warm.kept.all()


def test_targets_are_float32_from_float32_and_float64_beliefs():
    P, S = random_belief_and_sets(4)
    for belief in (P, P.astype(np.float32)):
        assert refine(belief, S, StudentConfig(), epoch=9).Q.dtype == np.float32


def test_beliefs_of_exactly_zero_give_finite_targets():
    P = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    S = np.array([[T, T, F], [F, T, T], [F, T, T]])
    assert np.isfinite(refine(P, S, StudentConfig(), epoch=9).Q).all()


def planted(seed, n=1500, k=5):
    """Features, truth and sets: the truth is a candidate in 85 %, each other label in 20 %."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    X = rng.normal(size=(n, 8)) + 2.5 * rng.normal(size=(k, 8))[truth]
    S = rng.random((n, k)) < 0.2
    S[np.arange(n), truth] = rng.random(n) < 0.85
    S[~S.any(axis=1), 0] = True
    return X, truth, S


def fit(X, S, settings):
    """A linear student: full-batch gradient steps, one refinement an epoch."""
    W, P = np.zeros((X.shape[1] + 1, S.shape[1])), None
    X = np.hstack([X, np.ones((len(X), 1))])
    for epoch in range(1, settings.epochs + 1):
        targets = refine(P, S, settings, epoch)
        for _ in range(10):
            P = softmax(X @ W)
            W -= X.T @ ((P - targets.Q) * targets.kept[:, None]) / targets.kept.sum()
        P = softmax(X @ W)
    return P


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_dr_finds_planted_truth_that_uniform_targets_miss(seed):
    X, truth, S = planted(seed)
    accuracy = {
        method: (fit(X, S, StudentConfig(method=method, epochs=12)).argmax(axis=1) == truth).mean() for method in Method
    }
    assert accuracy[Method.DR] > accuracy[Method.UNIFORM]
    assert accuracy[Method.DR] > 0.85
