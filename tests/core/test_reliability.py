import numpy as np
import pytest

from candist_core.reliability import agreement, dropped_rows, outside_set, reliable_rows, small_loss_rows

T, F = True, False


def random_belief_and_sets(seed, n=200, k=6):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(k, 0.3), size=n)
    S = rng.random((n, k)) < 0.3
    S[np.arange(n), rng.integers(k, size=n)] = True
    return P, S


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


def test_only_the_rows_named_may_be_dropped():
    P, S = np.tile([0.9, 0.1], (3, 1)), np.tile([F, T], (3, 1))
    assert dropped_rows(P, S, 1.0, np.array([F, T, F])).tolist() == [F, T, F]


@pytest.mark.parametrize("seed", range(20))
def test_no_class_keeps_less_than_the_cap_leaves_it(seed):
    P, S = random_belief_and_sets(seed)
    dropped = dropped_rows(P, S, max_dropped=0.2)
    best = np.where(S, P, -1).argmax(axis=1)
    assert dropped.any()
    for j in range(S.shape[1]):
        assert dropped[best == j].mean() <= 0.2


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


def test_the_order_of_a_set_counts_for_its_reliability():
    # Equal beliefs in two candidates: the row whose weights settle it has the smaller entropy.
    P, S = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]), np.array([[T, T, F], [T, T, F]])
    assert reliable_rows(P, S, 0.5, np.array([[0.5, 0.5, 0], [0.9, 0.1, 0]])).sum() == 1
    P = np.array([[0.5, 0.45, 0.05]] * 2)
    assert reliable_rows(P, S, 0.5, np.array([[0.5, 0.5, 0], [0.9, 0.1, 0]])).tolist() == [F, T]


def test_rows_outside_their_set_are_never_reliable():
    P, S = random_belief_and_sets(0)
    assert not (reliable_rows(P, S, share=1.0) & outside_set(P, S)).any()


def test_beliefs_of_exactly_zero_are_ranked_without_a_warning():
    P = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    S = np.array([[T, T, F], [F, T, T], [F, T, T]])
    assert reliable_rows(P, S, share=1.0).tolist() == [T, T, F]


def test_small_losses_are_ranked_over_all_classes():
    P = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    Q = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=float)
    assert small_loss_rows(P, Q, share=0.5).tolist() == [T, F, T, F]
    assert small_loss_rows(P, Q, share=1.0).all()
    assert not small_loss_rows(P, Q, share=0.0).any()


def test_agreement_weighs_the_belief_within_the_set():
    # Inside: 0.6 of 0.8 within the set; outside: nothing.
    P = np.array([[0.6, 0.2, 0.2], [0.6, 0.2, 0.2]])
    covering, accuracy = agreement(P, np.array([[T, T, F], [F, T, T]]))
    assert covering == 0.5
    assert accuracy == pytest.approx(3 / 8)
    assert agreement(P[:0], np.ones((0, 3), dtype=bool)) == (0.0, 0.0)
