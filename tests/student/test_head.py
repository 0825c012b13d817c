from dataclasses import replace

import numpy as np
import pytest
import torch

from candist_core.answers import read_answers
from candist_core.errors import StudentError
from candist_core.memory import observe
from candist_core.recipe import RECIPES, find_recipe
from candist_core.student.device import choose_device
from candist_core.student.head import Head, HeadLearner, HeadSettings, train_head
from candist_core.student.train import train as run_training
from tests.core.planted import plant

SMALL = HeadSettings(hidden=16, device="cpu", learning_rate=1e-2)
AGREEMENT = (0.9, 0.9, 0.9, 0.5, 0.5, 0.5)
EXTRAS = {"consistency": True, "mixup": True}


def embedded(planted):
    return (planted.X / np.linalg.norm(planted.X, axis=1, keepdims=True)).astype(np.float32)


def train(name, planted, seed=0, **changes):
    recipe = find_recipe(name, **{"epochs": 5, **changes})
    return train_head(embedded(planted), planted.S, planted.R, recipe, seed, SMALL)


def accuracy(head, planted):
    return (head.predict(embedded(planted)).argmax(axis=1) == planted.truth).mean()


@pytest.mark.parametrize("name", RECIPES)
def test_equal_seeds_give_equal_beliefs_and_others_do_not(name):
    planted = plant(0, n=300)
    X = embedded(planted)
    first, same, other = (train(name, planted, seed, epochs=2, **EXTRAS).predict(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_head_finds_more_truth_than_the_teachers_first_labels_hold(name):
    planted = plant(0, n=1500, first_right=0.6, spread=2.0)
    first_right = ((planted.R == 0).argmax(axis=1) == planted.truth).mean()
    assert accuracy(train(name, planted, epochs=10), planted) > first_right + 0.1


def test_rows_of_belief_are_float32_and_sum_to_one():
    planted = plant(0, n=60)
    P = train("ca_cc", planted).predict(embedded(planted)[:7])
    assert P.dtype == np.float32
    assert P.shape == (7, 5)
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-6)


def test_held_out_texts_are_never_trained_on():
    planted = plant(0, n=300)
    # With a fixed warm-up and no guard nothing of theirs steers training either: other embeddings, same network.
    recipe = find_recipe("ca_dr_c", epochs=3, warmup_epochs=2, guard=False, **EXTRAS)
    held_out = read_answers(planted.S, planted.R, recipe, seed=0).is_held_out
    X, moved = embedded(planted), embedded(planted)
    moved[held_out] = -moved[held_out]
    first, second = (train_head(rows, planted.S, planted.R, recipe, 0, SMALL) for rows in (X, moved))
    assert first.trained.n_held_out == held_out.sum() > 20
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_what_was_learned_without_gold_is_told():
    planted = plant(0, n=600, first_right=0.7, spread=3.0)
    trained = train("ca_dr_c", planted, epochs=6).trained
    assert len(trained.epochs) == len(trained.held_out_accuracies) == 6
    assert trained.n_held_out == pytest.approx(60, abs=5)
    assert trained.warm_epoch in (1, 2, 3)
    assert 0 <= trained.noise_rate <= 1
    assert trained.epochs[-1].kept_rate < 1 - trained.n_held_out / 600
    assert trained.restored_epoch is None


@pytest.mark.parametrize("name", ["sa_ce", "ca_cc", "ca_ml_em", "ca_lws", "ca_alim", "ca_dr", "ca_dr_c", "rnd2_dr_c"])
@pytest.mark.parametrize(
    ("n", "k", "n_classes"), [(20, 5, 5), (20, 500, 5), (300, 12, 1), (2, 3, 2), (1, 3, 1), (30, 3, 2)]
)
def test_few_texts_many_labels_and_classes_without_text_train(name, n, k, n_classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    S = np.eye(k, dtype=bool)[np.arange(n) % n_classes]
    recipe = find_recipe(name, epochs=3, **EXTRAS)
    head = train_head(X, S, np.where(S, 0, -1), recipe, 0, SMALL)
    P = head.predict(X)
    assert np.isfinite(P).all()
    assert np.isfinite(head.trained.epochs[-1].loss)


def test_texts_without_candidates_have_no_say_unless_extras_or_rescue_use_them():
    planted = plant(0, n=200)
    X, S, R = embedded(planted), planted.S.copy(), planted.R.copy()
    S[::5], R[::5] = False, -1
    moved = X.copy()
    moved[::5] = -moved[::5]
    plain, same = (train_head(rows, S, R, find_recipe("ca_cc", epochs=2), 0, SMALL) for rows in (X, moved))
    np.testing.assert_array_equal(plain.predict(X), same.predict(X))
    used, differs = (
        train_head(rows, S, R, find_recipe("ca_cc", epochs=2, consistency=True), 0, SMALL) for rows in (X, moved)
    )
    assert not np.array_equal(used.predict(X), differs.predict(X))


def test_no_answer_at_all_is_one_sentence():
    X = np.ones((3, 2), dtype=np.float32)
    with pytest.raises(StudentError, match="found 0 of 3 with candidates"):
        train_head(X, np.zeros((3, 4), dtype=bool), None, find_recipe("ca_cc"), 0, SMALL)


def test_embeddings_that_are_no_numbers_are_counted():
    X = np.ones((3, 2), dtype=np.float32)
    X[1, 0] = np.nan
    with pytest.raises(StudentError, match="found 1 of 3 rows with no numbers"):
        train_head(X, np.ones((3, 2), dtype=bool), None, find_recipe("ca_cc"), 0, SMALL)


def test_a_loss_that_is_no_number_ends_training_with_advice():
    planted = plant(0, n=60)
    wild = HeadSettings(hidden=16, device="cpu", learning_rate=1e30)
    with pytest.raises(StudentError, match=r"a loss of (nan|inf) in epoch \d.*lower student.learning_rate"):
        train_head(embedded(planted), planted.S, planted.R, find_recipe("ca_cc"), 0, wild)


def test_chance_and_threads_of_the_process_are_left_alone():
    planted = plant(0, n=40)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train("ca_cc", planted, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_the_guard_goes_back_to_the_weights_of_the_best_epoch(monkeypatch):
    planted = plant(0, n=400)
    X, beliefs = embedded(planted), []
    # Training falls too seldom to wait for: here the first three epochs are always called the best.
    monkeypatch.setattr(
        "candist_core.student.train.observe",
        lambda memory, P, *rest: (
            beliefs.append(P) or replace(observe(memory, P, *rest), accuracies=AGREEMENT[: len(beliefs)])
        ),
    )
    monkeypatch.setattr("candist_core.student.train.epoch_to_restore", lambda accuracies, rates: 3)
    head = train("ca_dr_c", planted, epochs=6)
    assert head.trained.restored_epoch == 3
    np.testing.assert_array_equal(head.predict(X), beliefs[2])
    assert not np.array_equal(beliefs[2], beliefs[5])


@pytest.mark.parametrize(
    ("name", "n", "n_asked"),
    [("sa_ce", 90, 90), ("sa_ce", 300, 100), ("sa_ce", 600, 120), ("sa_ce", 3000, 512), ("ca_proden", 600, 600)],
)
def test_only_what_hangs_on_beliefs_asks_for_all_of_them(name, n, n_asked):
    X = np.eye(4, dtype=np.float32)[np.arange(n) % 2]
    R = np.where(np.eye(4, dtype=bool)[np.arange(n) % 2], 0, -1)
    asked = []

    class Watched(HeadLearner):
        def believe(self, rows, rng=None):
            asked.append(len(rows))
            return super().believe(rows, rng)

    recipe = find_recipe(name, epochs=2)
    learner = Watched(Head(4, 4, HeadSettings()), X, 64, choose_device("cpu"))
    trained = run_training(learner, read_answers(R >= 0, R, recipe, seed=0), recipe, 1e-2, seed=0)
    assert asked == [n_asked, n_asked]
    assert trained.epochs[-1].in_set_rate == 1.0
