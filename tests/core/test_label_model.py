"""The label model: what it learns of a teacher, when it trusts an order, and what an audit changes."""

import numpy as np
import pytest

from candist_core.label_model import (
    MIN_AUDIT,
    Audited,
    confidence,
    fit_label_model,
    posterior,
    taught_posterior,
    trusts_order,
)
from candist_core.metrics import expected_calibration_error
from candist_core.places import flat_places, prior_places


def audited(rows: np.ndarray, y: np.ndarray) -> Audited:
    return Audited(rows, y[rows])


def test_fewer_than_fifty_sets_leave_the_prior():
    R, P = np.full((49, 2), [0, -1], dtype=np.int16), np.full((49, 2), [0.001, 0.999])
    np.testing.assert_array_equal(fit_label_model(R, {True: P}).places, prior_places(1))
    assert fit_label_model(np.tile(R, (2, 1)), {True: np.tile(P, (2, 1))}).places[1][0] < 0.95


def test_agreement_of_the_student_is_no_evidence_for_the_teacher():
    R, P = np.full((500, 3), [0, 1, -1], dtype=np.int16), np.full((500, 3), [0.998, 0.001, 0.001])
    np.testing.assert_array_equal(fit_label_model(R, {True: P}).places, prior_places(2))


def test_a_student_that_prefers_the_second_places_moves_the_teacher_s_table():
    R, P = np.full((500, 3), [0, 1, -1], dtype=np.int16), np.full((500, 3), [0.0005, 0.999, 0.0005])
    P[:150] = [0.999, 0.0005, 0.0005]
    places = np.array(fit_label_model(R, {True: P}).places)
    assert places[2, 1] > places[2, 0]
    np.testing.assert_allclose(places[1:].sum(axis=1), 1.0)


@pytest.mark.parametrize(("n_pairs", "is_trusted"), [(0, True), (50, True), (51, False), (100, False)])
def test_the_order_is_trusted_while_sets_hold_one_and_a_half_labels_on_average(n_pairs, is_trusted):
    R = np.full((100, 3), [0, -1, -1], dtype=np.int16)
    R[:n_pairs, 1] = 1
    assert trusts_order(R) is is_trusted


def test_texts_without_an_answer_say_nothing_about_the_order():
    R = np.full((10, 3), -1, dtype=np.int16)
    assert trusts_order(R)
    R[0] = [0, 1, -1]
    assert not trusts_order(R)


def test_a_teacher_whose_order_is_not_trusted_has_the_flat_table_and_the_student_more_say():
    R, P = np.array([[1, 0, -1]]), np.array([[0.8, 0.1, 0.1]])
    model = fit_label_model(R, {False: P})
    np.testing.assert_array_equal(model.places, flat_places(prior_places(2)))
    # ³√0.8·0.46 : ³√0.1·0.46 : ³√0.1·0.08
    joint = np.array([0.8, 0.1, 0.1]) ** (1 / 3) * [0.46, 0.46, 0.08]
    np.testing.assert_allclose(posterior(R, P, model)[0], joint / joint.sum())
    # Taught is the belief itself, weighed by the table.
    taught = np.array([0.368, 0.046, 0.008]) / 0.422
    np.testing.assert_allclose(taught_posterior(R, P, model)[0], taught)


def test_without_an_audit_a_confidence_is_the_posterior():
    R, P = np.array([[0, -1]] * 10), np.full((10, 2), 0.5)
    model = fit_label_model(R, {True: P}, Audited(np.arange(5), np.zeros(5, int)))
    assert model.n_audited == 0
    np.testing.assert_array_equal(confidence(np.array([0.3, 0.9]), model), [0.3, 0.9])


def test_a_set_larger_than_any_before_has_the_prior_s_row():
    small, P = np.array([[0, -1, -1, -1]]), np.full((1, 4), 0.25)
    model, large = fit_label_model(small, {True: P}), np.array([[0, 1, 2, -1]])
    known = fit_label_model(large, {True: P})
    np.testing.assert_allclose(posterior(large, P, model), posterior(large, P, known))


def weak_teacher(seed: int, n: int = 4000, k: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First labels right on 60 %, and a student that makes the same mistakes on four fifths of the others."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    first = np.where(rng.random(n) < 0.6, y, (y + rng.integers(1, k, n)) % k)
    R = np.full((n, k), -1, dtype=np.int16)
    R[np.arange(n), first] = 0
    P = np.full((n, k), 0.02)
    P[np.arange(n), np.where(rng.random(n) < 0.8, first, y)] = 0.9
    return R, P, y


@pytest.mark.parametrize("seed", range(5))
def test_an_audit_of_a_hundred_texts_makes_confidences_honest(seed):
    R, P, y = weak_teacher(seed)
    rows = np.random.default_rng(seed).choice(len(y), 100, replace=False)
    blind, told = fit_label_model(R, {True: P}), fit_label_model(R, {True: P}, audited(rows, y))
    errors = []
    for model in (blind, told):
        belief = posterior(R, P, model)
        is_right = belief.argmax(axis=1) == y
        errors.append(expected_calibration_error(confidence(belief.max(axis=1), model), is_right))
    assert errors[0] > 0.2, "no sign without gold shows that both are wrong alike"
    # The accuracy of a hundred texts is itself known to a standard error of 0.05.
    assert errors[1] < 0.12
    assert told.n_audited == 100


def test_calibration_keeps_the_order_of_confidences_even_of_an_audit_against_it():
    R, P, _ = weak_teacher(0)
    sure = posterior(R, P, fit_label_model(R, {True: P}))
    rows = np.argsort(-sure.max(axis=1))[: 2 * MIN_AUDIT]
    worst = (sure.argmax(axis=1) + 1) % 6
    model = fit_label_model(R, {True: P}, Audited(rows, worst[rows]))
    bounds = confidence(np.array([0.5, 0.7, 0.9]), model)
    assert (np.diff(bounds) > 0).all()


def test_an_audit_overrules_the_rule_about_the_order():
    R = np.full((200, 3), [0, 1, -1], dtype=np.int16)
    likes_second = np.full((200, 3), [0.1, 0.8, 0.1])
    likes_first = np.full((200, 3), [0.8, 0.1, 0.1])
    y = np.zeros(200, int)
    rows = np.arange(MIN_AUDIT)
    assert not trusts_order(R)
    assert not fit_label_model(R, {True: likes_first, False: likes_second}).trusts_order
    assert fit_label_model(R, {True: likes_first, False: likes_second}, audited(rows, y)).trusts_order


def test_a_student_is_taught_more_of_what_others_believe():
    R, P = np.full((1, 2), [0, -1], dtype=np.int16), np.array([[0.2, 0.8]])
    model = fit_label_model(R, {True: P})
    # √0.2·0.95 : √0.8·0.05
    expected = 0.2**0.5 * 0.95 / (0.2**0.5 * 0.95 + 0.8**0.5 * 0.05)
    assert taught_posterior(R, P, model)[0, 0] == pytest.approx(expected)
