import numpy as np
import pytest

from candist_core.answers import read_answers
from candist_core.memory import begin, epoch_to_restore, observe
from candist_core.recipe import Recipe, Rule, Table, find_recipe

T, F = True, False


def watch(recipe, answers, beliefs):
    memory = begin(answers, recipe)
    for P in beliefs:
        memory = observe(memory, np.asarray(P, dtype=float), None, answers, recipe)
    return memory


def sure_of(share, n=100):
    """Beliefs about n texts of label 0, of which a share is seen as label 0."""
    return np.where(np.arange(n)[:, None] < share * n, [0.9, 0.1], [0.1, 0.9])


@pytest.mark.parametrize(
    ("shares", "warm_epoch"),
    [
        ((0.5, 0.6, 0.7, 0.8, 0.9), None),
        ((0.5, 0.7, 0.705, 0.707, 0.9), 4),  # 0.707 stands beside 0.7, two epochs before
        ((0.7, 0.6, 0.5, 0.9, 0.9), 3),  # a fall is no rise
        ((0.7, 0.7), None),  # never before the third
    ],
)
def test_the_warm_up_ends_when_agreement_stands_still(shares, warm_epoch):
    recipe = Recipe(Rule.DR, warmup_epochs=None, epochs=20)
    answers = read_answers(np.tile([T, F], (1000, 1)), None, recipe, seed=0)
    # Approximated accuracy is the share of rows inside: a single candidate has all mass within the set.
    memory = watch(recipe, answers, [sure_of(share, 1000) for share in shares])
    assert memory.accuracies == pytest.approx(shares)
    assert memory.warm_epoch == warm_epoch


def test_the_warm_up_ends_at_the_latest_after_two_fifths():
    recipe = Recipe(Rule.DR, warmup_epochs=None, epochs=20)
    answers = read_answers(np.tile([T, F], (100, 1)), None, recipe, seed=0)
    rising = [sure_of(0.1 * step) for step in range(1, 10)]
    assert watch(recipe, answers, rising[:7]).warm_epoch is None
    assert watch(recipe, answers, rising).warm_epoch == 8


def test_a_run_of_one_epoch_ends_its_warm_up_with_it():
    recipe = Recipe(Rule.DR, warmup_epochs=None, epochs=1)
    answers = read_answers(np.array([[T, F]]), None, recipe, seed=0)
    assert watch(recipe, answers, [[[0.9, 0.1]]]).warm_epoch == 1


def test_a_fixed_warm_up_ends_when_it_was_told_to():
    recipe = Recipe(Rule.DR, warmup_epochs=2)
    answers = read_answers(np.array([[T, F]]), None, recipe, seed=0)
    assert not watch(recipe, answers, [[[0.9, 0.1]]]).is_warm
    assert watch(recipe, answers, [[[0.9, 0.1]]] * 5).warm_epoch == 2


def test_progress_is_judged_on_held_out_texts_alone():
    recipe = Recipe(Rule.DR, held_out_share=0.2)
    answers = read_answers(np.tile([T, F], (200, 1)), None, recipe, seed=0)
    right_there = np.where(answers.is_held_out[:, None], [0.9, 0.1], [0.2, 0.8])
    memory = watch(recipe, answers, [right_there])
    assert memory.accuracies == (1.0,)
    assert memory.in_set_rates == (0.0,)
    assert memory.noise_rate == 1.0


def test_the_noise_rate_is_that_of_the_end_of_the_warm_up():
    recipe = Recipe(Rule.SMALL_LOSS, warmup_epochs=2)
    answers = read_answers(np.tile([T, F], (100, 1)), None, recipe, seed=0)
    memory = watch(recipe, answers, [sure_of(share) for share in (0.5, 0.8, 0.95)])
    assert memory.noise_rate == pytest.approx(0.2)


def test_epochs_running_are_counted_for_each_text():
    recipe = Recipe(Rule.DR)
    answers = read_answers(np.array([[T, F], [T, F]]), None, recipe, seed=0)
    memory = watch(recipe, answers, [[[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.9], [0.8, 0.2]]])
    assert memory.n_same.tolist() == [1, 2]
    assert memory.n_outside.tolist() == [1, 0]


def test_observing_leaves_the_memory_before_as_it_was():
    recipe = Recipe(Rule.ALIM, epochs=4)
    answers = read_answers(np.array([[T, T, F]]), None, recipe, seed=0)
    first = watch(recipe, answers, [[[0.6, 0.2, 0.2]]])
    before = first.stored.copy()
    observe(first, np.array([[0.1, 0.1, 0.8]]), None, answers, recipe)
    np.testing.assert_array_equal(first.stored, before)
    assert first.epoch == 1


def test_stored_weights_move_by_a_share_that_grows():
    # Kept after epoch 1 of 10: 0.95 - 0.15 / 10; moved towards 3/4 and 1/4, still inside the set in the warm-up.
    recipe = Recipe(Rule.ALIM, epochs=10)
    answers = read_answers(np.array([[T, T, F]]), None, recipe, seed=0)
    keep = 0.95 - 0.015
    expected = [keep / 2 + (1 - keep) * 3 / 4, keep / 2 + (1 - keep) / 4, 0]
    np.testing.assert_allclose(watch(recipe, answers, [[[0.6, 0.2, 0.2]]]).stored, [expected], rtol=1e-6)


def test_labels_outside_count_by_the_margin_at_the_noise_rate():
    # Margins inside over outside: 1/4, 4 and 9; the place 3 · 0.4 = 1 has 4, capped at 1: every label counts alike.
    recipe = Recipe(Rule.ALIM, epochs=10, warmup_epochs=1, noise_rate=0.4)
    P = np.array([[0.2, 0.8], [0.8, 0.2], [0.9, 0.1]])
    answers = read_answers(np.tile([T, F], (3, 1)), None, recipe, seed=0)
    keep = 0.95 - 0.015
    np.testing.assert_allclose(watch(recipe, answers, [P]).stored, keep * np.array([1, 0]) + (1 - keep) * P, rtol=1e-6)
    # At rate 0 the smallest margin, 1/4, holds: 0.2 inside against 0.8 / 4 outside are half and half.
    recipe = Recipe(Rule.ALIM, epochs=10, warmup_epochs=1, noise_rate=0.0)
    first = watch(recipe, answers, [P]).stored[0]
    np.testing.assert_allclose(first, keep * np.array([1, 0]) + (1 - keep) / 2, rtol=1e-6)


def echo(answers, P):
    """Beliefs that hold the teacher's first label on trained texts and P elsewhere."""
    first = np.eye(answers.S.shape[1])[(answers.R == 0).argmax(axis=1)]
    return np.where(answers.is_held_out[:, None], P, 0.98 * first + 0.01)


def test_the_table_is_learned_from_the_third_epoch_on_and_from_held_out_texts():
    rng = np.random.default_rng(0)
    truth, R = rng.integers(2, size=2000), np.full((2000, 2), -1)
    R[np.arange(2000), np.where(rng.random(2000) < 0.7, truth, 1 - truth)] = 0
    recipe = find_recipe("ca_ml_em", held_out_share=0.5)
    answers = read_answers(R >= 0, R, recipe, seed=0)
    P = echo(answers, np.where(np.eye(2)[truth] > 0, 0.99, 0.01))
    one, two = (watch(recipe, answers, [P] * n).places for n in (1, 2))
    assert one[1, 0] == pytest.approx(0.95)
    # 0.7 of the held-out texts, and 0.3 as many of the prior's 0.95.
    assert two[1, 0] == pytest.approx((0.7 + 0.3 * 0.95) / 1.3, abs=0.03)


def test_without_held_out_texts_the_table_stands_once_the_warm_up_is_over():
    R = np.array([[0, -1], [-1, 0]] * 300)
    recipe = find_recipe("ca_ml_em", warmup_epochs=3)
    answers = read_answers(R >= 0, R, recipe, seed=0)
    unsure, sure = np.full((600, 2), 0.5), np.where(R == 0, 1.0, 0.0)
    three = watch(recipe, answers, [unsure, unsure, unsure])
    later = watch(recipe, answers, [unsure, unsure, unsure, sure, sure])
    np.testing.assert_array_equal(later.places, three.places)


def test_a_teacher_without_order_has_flat_tables():
    S = np.array([[T, T, F]] * 100)
    for table in Table:
        recipe = Recipe(Rule.ML, table=table)
        answers = read_answers(S, None, recipe, seed=0)
        places = watch(recipe, answers, [np.tile([0.8, 0.1, 0.1], (100, 1))] * 3).places
        assert places[2, 0] == pytest.approx(places[2, 1])


@pytest.mark.parametrize(
    ("accuracies", "in_set_rates", "epoch"),
    [
        ((0.5, 0.8, 0.8, 0.8, 0.6, 0.6), (0.5, 0.9, 0.9, 0.9, 0.8, 0.7), 4),
        ((0.5, 0.8, 0.8, 0.8, 0.6, 0.6), (0.5, 0.9, 0.9, 0.9, 0.9, 0.95), None),  # still fits its own texts better
        ((0.8, 0.8, 0.8, 0.78, 0.78, 0.78), (0.9, 0.9, 0.9, 0.8, 0.8, 0.8), None),  # a fall of 0.02 is none
        ((0.9, 0.1), (0.9, 0.1), None),
    ],
)
def test_training_goes_back_only_if_both_agreements_fell(accuracies, in_set_rates, epoch):
    assert epoch_to_restore(accuracies, in_set_rates) == epoch
