import numpy as np
import pytest

from candist_core.errors import EmptyCandidateSetError
from candist_core.targets import rank_weights, refine_targets, sharpen_targets, smooth_targets, uniform_targets

T, F = True, False


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


def test_smoothing_spreads_its_share_over_all_labels():
    np.testing.assert_allclose(smooth_targets(np.array([[1, 0, 0, 0]]), 0.1), [[37 / 40, 1 / 40, 1 / 40, 1 / 40]])
