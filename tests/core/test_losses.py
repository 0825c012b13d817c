import numpy as np
import pytest

from candist_core.losses import Loss, log_softmax, loss_gradients, row_losses, soft_targets

BELIEF = np.array([[0.6, 0.3, 0.1]])
Z, ONE = np.log(BELIEF), np.ones(1)


def random_rows(loss, seed, b=40, k=6):
    """Logits, rows and powers that the loss may meet."""
    rng = np.random.default_rng(seed)
    Z, S = 3 * rng.normal(size=(b, k)), rng.random((b, k)) < 0.4
    S[np.arange(b), rng.integers(k, size=b)] = True
    weights = rng.random((b, k)) + 0.05
    inside = np.where(S, weights, 0) / np.where(S, weights, 0).sum(axis=1, keepdims=True)
    Q = inside - 0.7 * np.where(S, 0, weights) if loss is Loss.LEVERAGED else inside
    return Z, Q, rng.uniform(0.3, 1.7, size=b)


def test_cross_entropy_is_that_of_the_target():
    Q = np.array([[1 / 2, 1 / 2, 0]])
    assert row_losses(Loss.CROSS_ENTROPY, Z, Q, ONE)[0] == pytest.approx(-(np.log(0.6) + np.log(0.3)) / 2)


def test_likelihood_sums_over_what_the_answer_may_mean():
    assert row_losses(Loss.LIKELIHOOD, Z, np.array([[True, True, False]]), ONE)[0] == pytest.approx(-np.log(0.9))
    W = np.array([[0.7, 0.2, 0.1]])
    assert row_losses(Loss.LIKELIHOOD, Z, W, ONE)[0] == pytest.approx(-np.log(0.42 + 0.06 + 0.01))


def test_refined_is_cross_entropy_against_the_belief_inside_the_set():
    # 0.6 and 0.3 inside the set are 2/3 and 1/3; at power 2 they are 4/5 and 1/5.
    S = np.array([[1.0, 1.0, 0.0]])
    for power, first in ((1.0, 2 / 3), (2.0, 4 / 5)):
        expected = -(first * np.log(0.6) + (1 - first) * np.log(0.3))
        assert row_losses(Loss.REFINED, Z, S, np.array([power]))[0] == pytest.approx(expected)


def test_generalised_is_absolute_error_at_power_one_and_cross_entropy_near_zero():
    Q = np.array([[0.0, 1.0, 0.0]])
    assert row_losses(Loss.GENERALISED, Z, Q, ONE)[0] == pytest.approx(1 - 0.3)
    assert row_losses(Loss.GENERALISED, Z, Q, np.array([1e-7]))[0] == pytest.approx(-np.log(0.3), rel=1e-5)
    assert row_losses(Loss.GENERALISED, Z, Q, np.array([0.7]))[0] == pytest.approx((1 - 0.3**0.7) / 0.7)


def test_leveraged_wants_high_logits_inside_and_low_ones_outside():
    logits, Q = np.array([[0.0, np.log(3), np.log(3)]]), np.array([[0.5, 0.5, -2.0]])
    # sigmoid(0) = 1/2, sigmoid(log 3) = 3/4.
    assert row_losses(Loss.LEVERAGED, logits, Q, ONE)[0] == pytest.approx(0.5 / 2 + 0.5 / 4 + 2 * 3 / 4)


@pytest.mark.parametrize("loss", Loss)
def test_gradients_are_slopes(loss):
    logits, Q, power = random_rows(loss, seed=1)
    T, step = soft_targets(loss, logits, Q, power), 1e-6

    def value(moved):
        # The target of refined is held fixed.
        return -(T * log_softmax(moved)).sum(axis=1) if loss is Loss.REFINED else row_losses(loss, moved, Q, power)

    found = loss_gradients(loss, logits, Q, power)
    for j in range(logits.shape[1]):
        up, down = logits.copy(), logits.copy()
        up[:, j] += step
        down[:, j] -= step
        np.testing.assert_allclose(found[:, j], (value(up) - value(down)) / (2 * step), atol=1e-7)


def test_refining_without_lag_has_exactly_the_gradient_of_the_set_likelihood():
    logits, Q, _ = random_rows(Loss.LIKELIHOOD, seed=2)
    S, ones = (Q > 0).astype(float), np.ones(len(Q))
    for W in (S, Q):
        likelihood = loss_gradients(Loss.LIKELIHOOD, logits, W, ones)
        np.testing.assert_allclose(loss_gradients(Loss.REFINED, logits, W, ones), likelihood, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.85])
def test_a_single_candidate_stays_one_hot_however_it_is_sharpened(gamma):
    logits, one_hot = 5 * np.random.default_rng(3).normal(size=(6, 6)), np.eye(6)
    np.testing.assert_array_equal(soft_targets(Loss.REFINED, logits, one_hot, np.full(6, 1 / gamma)), one_hot)


@pytest.mark.parametrize("loss", Loss)
def test_extreme_logits_give_finite_losses_and_gradients(loss):
    logits = np.array([[900.0, -900.0, 0.0], [-900.0, 900.0, 0.0]])
    Q = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    assert np.isfinite(row_losses(loss, logits, Q, np.ones(2))).all()
    assert np.isfinite(loss_gradients(loss, logits, Q, np.ones(2))).all()


@pytest.mark.parametrize("loss", Loss)
def test_soft_targets_are_distributions_inside_the_set(loss):
    logits, Q, power = random_rows(loss, seed=4)
    T = soft_targets(loss, logits, Q, power)
    np.testing.assert_allclose(T.sum(axis=1), 1)
    assert (T >= 0).all()
    assert not T[Q <= 0].any()


def test_float32_stays_float32():
    rows = [row.astype(np.float32) for row in random_rows(Loss.REFINED, seed=5)]
    assert row_losses(Loss.REFINED, *rows).dtype == np.float32
