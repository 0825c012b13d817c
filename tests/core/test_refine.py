from dataclasses import replace

import numpy as np
import pytest

from candist_core.answers import read_answers
from candist_core.config import Method, StudentConfig
from candist_core.errors import StudentError
from candist_core.losses import Loss
from candist_core.memory import begin, observe
from candist_core.recipe import RECIPES, Recipe, Rule, find_recipe, recipe_of
from candist_core.refine import refine
from candist_core.reliability import outside_set
from candist_core.targets import rank_weights, refine_targets, sharpen_targets, uniform_targets

T, F = True, False
DR = Recipe(Rule.DR, warmup_epochs=1, lag=1)


def random_belief_and_sets(seed, n=200, k=6):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(k, 0.3), size=n)
    R = np.full((n, k), -1)
    for i in range(n):
        labels = rng.permutation(k)[: rng.integers(1, 4)]
        R[i, labels] = np.arange(len(labels))
    return P, R >= 0, R


def after(recipe, S, R, *beliefs, views=None):
    """Targets once the student has been seen with some beliefs, one an epoch."""
    answers = read_answers(S, R, recipe, seed=0)
    memory = begin(answers, recipe)
    for epoch, P in enumerate(beliefs):
        memory = observe(memory, P, None if views is None else views[epoch], answers, recipe)
    return refine(answers, recipe, memory)


def test_the_first_epoch_of_every_recipe_keeps_every_text_that_is_not_held_out():
    _, S, R = random_belief_and_sets(0)
    for recipe in RECIPES.values():
        answers = read_answers(S, R, recipe, seed=0)
        targets = refine(answers, recipe, begin(answers, recipe))
        np.testing.assert_array_equal(targets.kept, answers.is_closed)
        assert not targets.reliable.any()
        assert targets.Q.dtype == targets.power.dtype == np.float32


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", RECIPES)
def test_targets_of_every_recipe_are_usable_and_gone_where_nothing_is_kept(name, seed):
    P, S, R = random_belief_and_sets(seed)
    S[:7], R[:7] = False, -1
    recipe = find_recipe(name, warmup_epochs=2, rescue_above=0.8)
    answers = read_answers(S, R, recipe, seed)
    memory = begin(answers, recipe)
    for _ in range(3):
        memory = observe(memory, P, P, answers, recipe)
        targets = refine(answers, recipe, memory)
        assert np.isfinite(targets.Q).all()
        assert not targets.Q[~targets.kept].any()
        assert (np.abs(targets.Q[targets.kept]).sum(axis=1) > 0).all()
        assert not (targets.kept & answers.is_held_out).any()
        if targets.loss is Loss.CROSS_ENTROPY:
            np.testing.assert_allclose(targets.Q.sum(axis=1), targets.kept, atol=1e-5)


def test_single_label_recipes_learn_the_first_label():
    P, S, R = random_belief_and_sets(1)
    np.testing.assert_array_equal(after(find_recipe("sa_ce"), S, R, P).Q, R == 0)
    smooth = after(find_recipe("sa_ls"), S, R, P).Q
    np.testing.assert_allclose(smooth, np.where(R == 0, 0.9 + 0.1 / 6, 0.1 / 6), rtol=1e-5)
    generalised = after(find_recipe("sa_gce"), S, R, P)
    np.testing.assert_array_equal(generalised.Q, R == 0)
    assert (generalised.loss, generalised.power[0]) == (Loss.GENERALISED, np.float32(0.7))


def test_small_loss_keeps_ever_fewer_until_the_noise_rate_is_left_out():
    P, S, R = random_belief_and_sets(1)
    recipe = find_recipe("sa_small_loss", noise_rate=0.5, warmup_epochs=4)
    for epochs, share in ((0, 1.0), (1, 0.875), (2, 0.75), (4, 0.5), (9, 0.5)):
        targets = after(recipe, S, R, *[P] * epochs)
        assert targets.kept.mean() == pytest.approx(share)
    losses = -np.log(P[np.arange(200), (R == 0).argmax(axis=1)])
    assert losses[targets.kept].max() <= losses[~targets.kept].min()


def test_small_loss_measures_its_noise_rate_without_gold():
    P = np.tile([0.9, 0.1], (10, 1))
    R = np.array([[0, -1]] * 7 + [[-1, 0]] * 3)
    recipe = find_recipe("sa_small_loss", warmup_epochs=1)
    assert after(recipe, R >= 0, R, P).kept.tolist() == [T] * 7 + [F] * 3


def test_uniform_proden_and_cc_differ_in_how_the_student_is_heard():
    P, S, R = random_belief_and_sets(2)
    np.testing.assert_array_equal(after(find_recipe("ca_uniform"), S, R, P).Q, uniform_targets(S))
    np.testing.assert_array_equal(after(find_recipe("ca_proden"), S, R, P).Q, refine_targets(P, uniform_targets(S)))
    cc = after(find_recipe("ca_cc"), S, R, P)
    np.testing.assert_array_equal(cc.Q, S)
    assert cc.loss is Loss.LIKELIHOOD


@pytest.mark.parametrize("rule", ["uniform", "proden", "cc", "dr"])
def test_the_teachers_order_counts_where_it_is_asked_for(rule):
    S, R = np.array([[T, T, F]]), np.array([[0, 1, -1]])
    recipe = Recipe(Rule(rule), by_order=True)
    np.testing.assert_allclose(after(recipe, S, R).Q, [[3 / 4, 1 / 4, 0]])
    np.testing.assert_allclose(after(recipe, S, R, np.array([[0.4, 0.4, 0.2]])).Q, [[3 / 4, 1 / 4, 0]], rtol=1e-6)
    # Without ranks there is no order to go by.
    indifferent = after(recipe, S, None).Q[0]
    assert indifferent[0] == indifferent[1]


def test_leveraged_weights_are_shared_separately_inside_and_outside():
    S, R = np.array([[T, T, F, F]]), np.array([[0, 1, -1, -1]])
    recipe = find_recipe("ca_lws", outside_weight=2.0)
    np.testing.assert_allclose(after(recipe, S, R).Q, [[1 / 2, 1 / 2, -1, -1]])
    learned = after(recipe, S, R, np.array([[0.3, 0.1, 0.45, 0.15]])).Q
    np.testing.assert_allclose(learned, [[3 / 4, 1 / 4, -3 / 2, -1 / 2]], rtol=1e-6)


def test_a_set_of_every_label_has_no_leverage_outside():
    S = np.array([[T, T]])
    np.testing.assert_allclose(after(find_recipe("ca_lws"), S, None, np.array([[0.5, 0.5]])).Q, [[1 / 2, 1 / 2]])


def test_marginal_likelihood_weighs_the_whole_answer():
    # The prior: 0.95 for a single label; 0.69 and 0.23 for two, 0.08 outside them.
    R = np.array([[0, -1, -1], [1, 0, -1]])
    ordered = after(find_recipe("ca_ml_order"), R >= 0, R)
    np.testing.assert_allclose(ordered.Q, [[0.95, 0.025, 0.025], [0.23, 0.69, 0.08]], rtol=1e-5)
    flat = after(find_recipe("ca_ml_flat"), R >= 0, R)
    np.testing.assert_allclose(flat.Q, [[0.95, 0.025, 0.025], [0.46, 0.46, 0.08]], rtol=1e-5)
    assert ordered.loss is flat.loss is Loss.LIKELIHOOD


def test_dr_sharpens_keeps_rescues_and_drops():
    P = np.array([[0.8, 0.2, 0.0], [0.5, 0.3, 0.2], [0.01, 0.01, 0.98], [0.1, 0.1, 0.8]])
    S = np.array([[T, T, F]] * 4)
    targets = after(replace(DR, sharpen=0.5), S, None, P)
    np.testing.assert_allclose(targets.Q, [[16 / 17, 1 / 17, 0], [5 / 8, 3 / 8, 0], [0, 0, 1], [0, 0, 0]], rtol=1e-6)
    assert targets.kept.tolist() == [T, T, T, F]
    assert targets.reliable.tolist() == [T, F, F, F]
    assert targets.rescued.tolist() == [F, F, T, F]


def test_dr_without_lag_leaves_the_belief_to_the_step():
    P = np.array([[0.8, 0.2, 0.0], [0.5, 0.3, 0.2], [0.01, 0.01, 0.98], [0.1, 0.1, 0.8]])
    S = np.array([[T, T, F]] * 4)
    targets = after(replace(DR, lag=0, sharpen=0.5), S, None, P)
    assert targets.loss is Loss.REFINED
    np.testing.assert_allclose(targets.Q, [[1 / 2, 1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 0, 1], [0, 0, 0]])
    assert targets.power.tolist() == [2, 1, 1, 1]


def test_a_threshold_of_one_rescues_nobody():
    P, S = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[F, T], [F, T]])
    assert not after(replace(DR, rescue_above=1.0), S, None, P).kept.any()


def test_a_row_taken_back_by_the_cap_learns_its_candidates_even_if_the_student_is_sure():
    targets = after(replace(DR, max_dropped=0.4), np.array([[F, T]]), None, np.array([[0.99, 0.01]]))
    np.testing.assert_allclose(targets.Q, [[0, 1]])
    assert not targets.rescued.any()


def test_an_agreed_rescue_wants_the_same_label_twice_and_on_another_view():
    recipe, S = replace(DR, rescue_agreed=True), np.array([[T, F, F]] * 3)
    before = np.array([[0.0, 0.99, 0.01], [0.0, 0.01, 0.99], [0.0, 0.99, 0.01]])
    P = np.array([[0.0, 0.99, 0.01]] * 3)
    view = np.array([[0.0, 0.6, 0.4], [0.0, 0.6, 0.4], [0.0, 0.4, 0.6]])
    assert after(recipe, S, None, before, P, views=[view, view]).rescued.tolist() == [T, F, F]
    assert not after(recipe, S, None, P, views=[view]).rescued.any()


def test_a_row_that_must_be_outside_twice_is_not_dropped_at_once():
    recipe, S = replace(DR, twice_outside=True), np.array([[F, T]])
    outside, inside = np.array([[0.6, 0.4]]), np.array([[0.4, 0.6]])
    assert after(recipe, S, None, outside).kept.all()
    assert after(recipe, S, None, outside, inside, outside).kept.all()
    assert not after(recipe, S, None, outside, outside).kept.any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["ca_dr_c", "ca_dr_c_order", "sa_dr_c", "rnd2_dr_c"])
def test_no_class_keeps_less_than_the_cap_leaves_it(name, seed):
    P, S, R = random_belief_and_sets(seed, n=600)
    recipe = find_recipe(name, warmup_epochs=1, max_dropped=0.2, rescue_above=1.0)
    answers = read_answers(S, R, recipe, seed=0)
    memory = observe(begin(answers, recipe), P, P, answers, recipe)
    kept, closed = refine(answers, recipe, memory).kept, answers.is_closed
    best = np.where(answers.S, P, -1).argmax(axis=1)
    assert kept[closed].mean() < 1
    for j in range(S.shape[1]):
        assert kept[closed & (best == j)].mean() >= 0.8


@pytest.mark.parametrize("seed", range(20))
def test_dr_rows_sum_to_one_or_nothing_and_stay_inside_the_set_unless_rescued(seed):
    P, S, R = random_belief_and_sets(seed)
    targets = after(replace(DR, rescue_above=0.8, max_dropped=0.4), S, R, P)
    np.testing.assert_allclose(targets.Q.sum(axis=1), targets.kept, atol=1e-6)
    is_beyond = ((targets.Q > 0) & ~S).any(axis=1)
    np.testing.assert_array_equal(is_beyond, targets.rescued)
    assert is_beyond.any()
    np.testing.assert_array_equal(targets.Q[is_beyond].max(axis=1), 1.0)
    assert (P[is_beyond].max(axis=1) > 0.8).all()
    is_single = (S.sum(axis=1) == 1) & targets.reliable
    np.testing.assert_array_equal(targets.Q[is_single], S[is_single])


@pytest.mark.parametrize("name", RECIPES)
def test_open_texts_have_no_target_before_they_are_rescued(name):
    P, S, R = random_belief_and_sets(3)
    S[::4], R[::4] = False, -1
    recipe = find_recipe(name, warmup_epochs=2, rescue_above=0.9)
    answers = read_answers(S, R, recipe, seed=0)
    memory = begin(answers, recipe)
    for _ in range(4):
        targets = refine(answers, recipe, memory)
        assert not (targets.kept & answers.is_open & ~targets.rescued).any()
        assert not (targets.reliable & answers.is_open).any()
        if not memory.is_warm:
            assert not (targets.kept & answers.is_open).any()
        memory = observe(memory, P, P, answers, recipe)
    rescued = targets.rescued & answers.is_open
    assert rescued.any() == (recipe.rule is Rule.DR)
    np.testing.assert_array_equal(targets.Q[rescued].argmax(axis=1), P[rescued].argmax(axis=1))


def test_dr_drops_nothing_during_its_warm_up():
    P, S, R = random_belief_and_sets(2)
    warm = after(replace(DR, warmup_epochs=3), S, R, P, P)
    np.testing.assert_array_equal(warm.Q, refine_targets(P, uniform_targets(S)))
    assert warm.kept.all()


def test_the_settings_of_a_run_give_the_targets_they_always_gave():
    P, S, R = random_belief_and_sets(4)
    W = rank_weights(R)
    answers_alone = [method for method in Method if method is not Method.POSTERIOR]
    found = {method: after(recipe_of(StudentConfig(method=method)), S, R, P, P, P) for method in answers_alone}
    np.testing.assert_array_equal(found[Method.UNIFORM].Q, uniform_targets(S))
    np.testing.assert_array_equal(found[Method.PRODEN].Q, refine_targets(P, W))
    dr = found[Method.DR]
    assert dr.loss is Loss.CROSS_ENTROPY
    assert (outside_set(P, S) >= ~dr.kept).all()
    np.testing.assert_array_equal(dr.Q[dr.reliable], sharpen_targets(refine_targets(P, W)[dr.reliable], 0.85))
    calm = dr.kept & ~dr.reliable & ~dr.rescued
    np.testing.assert_array_equal(dr.Q[calm], refine_targets(P, W)[calm])


def test_a_posterior_is_learned_as_it_stands_and_asked_for_where_it_is_missing():
    P, S, R = random_belief_and_sets(6)
    recipe = recipe_of(StudentConfig())
    answers = read_answers(S, R, recipe, seed=0, posterior=P)
    targets = refine(answers, recipe, begin(answers, recipe))
    np.testing.assert_array_equal(targets.Q, np.where(answers.is_closed[:, None], P, 0).astype(np.float32))
    with pytest.raises(StudentError, match="found no posterior"):
        read_answers(S, R, recipe, seed=0)


def test_refining_twice_gives_the_same_and_changes_no_memory():
    P, S, R = random_belief_and_sets(5)
    for recipe in RECIPES.values():
        answers = read_answers(S, R, recipe, seed=0)
        memory = observe(begin(answers, recipe), P, P, answers, recipe)
        first, second = refine(answers, recipe, memory), refine(answers, recipe, memory)
        np.testing.assert_array_equal(first.Q, second.Q)
        np.testing.assert_array_equal(memory.P, P)
