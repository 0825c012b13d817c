"""Counts of belief beside sets, by hand and on planted students."""

import numpy as np
import pytest

from candist_core import beliefs
from candist_core.beliefs import BeliefCounts


def counted(R, P) -> BeliefCounts:
    counts = BeliefCounts(np.shape(R)[1])
    counts.add(np.array(R), np.array(P, dtype=float))
    return counts


def planted(n=3000, k=5, right=0.7, knows=0.9, seed=0):
    """First labels that are right by chance, and a student that is right by another chance and says so."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    first = np.where(rng.random(n) < right, truth, (truth + rng.integers(1, k, n)) % k)
    choice = np.where(rng.random(n) < knows, truth, (truth + rng.integers(1, k, n)) % k)
    R, P = np.full((n, k), -1), np.full((n, k), (1 - knows) / (k - 1))
    R[np.arange(n), first], P[np.arange(n), choice] = 0, knows
    return R, P


def test_lift_is_belief_in_further_labels_over_belief_in_random_ones():
    # 0.5 of the 0.75 beside the first label lie on the one further label, a random one of three would have 0.25.
    counts = counted([[0, 1, -1, -1]], [[0.25, 0.5, 0.125, 0.125]])
    assert counts.lift == pytest.approx(0.5 / 0.25)
    assert counted([[0, -1, -1, -1]], [[0.25, 0.5, 0.125, 0.125]]).lift is None


def test_further_labels_drawn_by_chance_have_a_lift_of_one():
    R, P = planted(n=20_000)
    rng = np.random.default_rng(1)
    others = rng.permuted(np.tile(np.arange(5), (20_000, 1)), axis=1)
    second = np.where(R[np.arange(20_000), others[:, 0]] == 0, others[:, 1], others[:, 0])
    R[np.arange(20_000), second] = 1
    assert counted(R, P).lift == pytest.approx(1.0, abs=0.05)


def test_entropies_are_of_sets_of_several_and_of_pairs():
    counts = counted([[0, 1, -1], [1, 0, -1], [0, -1, -1]], [[0.25, 0.25, 0.5], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    assert counts.in_set_entropy == pytest.approx((1 + 0) / 2)
    assert counts.pairs[0, 1] == 2
    assert counts.pair_bits[0, 1] == pytest.approx(1.0)
    assert counted([[0, -1]], [[0.5, 0.5]]).in_set_entropy == 0.0


def test_agreement_is_told_by_the_label_that_leads():
    counts = counted([[0, 1, -1], [0, -1, -1], [-1, 0, -1]], [[0.2, 0.8, 0.0], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0]])
    assert (counts.led.tolist(), counts.inside.tolist()) == ([2, 1, 0], [1, 1, 0])
    assert counts.believed.tolist() == [0, 3, 0]


@pytest.mark.parametrize("right", [0.95, 0.8, 0.6])
def test_the_interval_of_coverage_holds_the_truth_where_student_and_teacher_err_apart(right):
    R, P = planted(right=right)
    found = counted(R, P).coverage(np.array([0, len(R), 0, 0, 0, 0]))
    assert found.low <= right <= found.high
    assert found.low <= found.value <= found.high


def test_no_belief_is_no_estimate():
    assert BeliefCounts(3).coverage(np.array([0, 9, 0, 0])) is None


def test_the_estimate_is_made_of_a_bounded_sample_from_all_shards(monkeypatch):
    # The bound is a constant of twenty thousand, more than a test need make.
    monkeypatch.setattr(beliefs, "SAMPLE_ROWS", 200)
    R, P = planted(n=6000, right=0.6)
    counts = BeliefCounts(5)
    for start in range(0, 6000, 130):
        counts.add(R[start : start + 130], P[start : start + 130])
    assert 200 <= sum(len(ranks) for ranks, _ in counts._rows) <= 400
    whole = counted(R, P).coverage(np.array([0, 6000, 0, 0, 0, 0]))
    assert counts.coverage(np.array([0, 6000, 0, 0, 0, 0])).value == pytest.approx(whole.value, abs=0.06)
