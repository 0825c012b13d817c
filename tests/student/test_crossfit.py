"""Cross-fitting: nobody is asked about what it was taught."""

import numpy as np
import pytest

from candist_core.errors import StudentError
from candist_core.recipe import find_recipe
from candist_core.student.crossfit import cross_fit

RECIPE = find_recipe("sa_ce", epochs=6)


def planted(n: int = 240, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in k groups, and the group of each."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    X = np.eye(8, dtype=np.float32)[y] + 0.1 * rng.standard_normal((n, 8)).astype(np.float32)
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), y


def ranks_of(first: np.ndarray, k: int = 3) -> np.ndarray:
    return np.where(np.eye(k, dtype=bool)[first], 0, -1).astype(np.int16)


def test_the_answer_to_a_text_has_no_part_in_what_is_believed_of_it():
    X, y = planted()
    R, changed = ranks_of(y), ranks_of(y)
    changed[0] = ranks_of(np.array([(y[0] + 1) % 3]))[0]
    before, after = (cross_fit(X, ranks >= 0, ranks, RECIPE, seed=0) for ranks in (R, changed))
    np.testing.assert_array_equal(before.folds, after.folds)
    held = before.folds == before.folds[0]
    np.testing.assert_array_equal(before.believe(X, before.folds)[held], after.believe(X, after.folds)[held])
    assert not np.array_equal(before.believe(X, before.folds), after.believe(X, after.folds))


def test_a_wrong_answer_is_seen_through_where_its_neighbours_are_right():
    X, y = planted()
    first = y.copy()
    first[:24] = (first[:24] + 1) % 3
    R = ranks_of(first)
    P = (fitted := cross_fit(X, R >= 0, R, RECIPE, seed=0)).believe(X, fitted.folds)
    assert (P.argmax(axis=1) == y).mean() > 0.98
    np.testing.assert_allclose(P.sum(axis=1), 1.0, atol=1e-5)


def test_texts_without_candidates_are_in_no_fold_and_get_the_mean_belief():
    X, y = planted()
    R = ranks_of(y)
    R[5] = -1
    fitted = cross_fit(X, R >= 0, R, RECIPE, seed=0, n_folds=3)
    assert fitted.folds[5] == -1
    each = [head.predict(X[5:6]) for head in fitted.heads if head is not None]
    np.testing.assert_allclose(fitted.believe(X[5:6], fitted.folds[5:6]), np.mean(each, axis=0), rtol=1e-5)


def test_a_single_text_with_an_answer_leaves_its_fold_believing_anything():
    X, y = planted(n=6)
    R = ranks_of(y)
    R[1:] = -1
    fitted = cross_fit(X, R >= 0, R, RECIPE, seed=0, n_folds=2)
    np.testing.assert_allclose(fitted.believe(X[:1], fitted.folds[:1]), 1 / 3)


def test_equal_seeds_give_equal_beliefs_and_others_other_folds():
    X, y = planted()
    R = ranks_of(y)
    one, same, other = (cross_fit(X, R >= 0, R, RECIPE, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.believe(X, one.folds), same.believe(X, same.folds))
    assert not np.array_equal(one.folds, other.folds)


def test_no_answers_at_all_is_one_sentence():
    X, _ = planted(n=4)
    R = np.full((4, 3), -1, dtype=np.int16)
    with pytest.raises(StudentError, match="found 0 of 4 texts with candidates"):
        cross_fit(X, R >= 0, R, RECIPE, seed=0)
