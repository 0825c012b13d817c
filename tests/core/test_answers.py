import numpy as np
import pytest

from candist_core.answers import read_answers
from candist_core.errors import StudentError
from candist_core.recipe import Recipe, Rule, Sets, find_recipe

T, F = True, False
ALL = Recipe(Rule.CC)


def sets(n, k=5, seed=0):
    """A mask and its ranks; each text has one to three labels."""
    rng = np.random.default_rng(seed)
    R = np.full((n, k), -1)
    for i in range(n):
        labels = rng.permutation(k)[: rng.integers(1, 4)]
        R[i, labels] = np.arange(len(labels))
    return R >= 0, R


def test_the_teachers_sets_come_as_they_are():
    S, R = sets(20)
    answers = read_answers(S, R, ALL, seed=0)
    np.testing.assert_array_equal(answers.S, S)
    np.testing.assert_array_equal(answers.R, R)
    assert answers.is_closed.all()


def test_first_labels_alone_are_those_of_rank_zero():
    S, R = sets(20)
    answers = read_answers(S, R, Recipe(Rule.CC, Sets.FIRST), seed=0)
    np.testing.assert_array_equal(answers.S, R == 0)


def test_a_random_second_label_is_never_the_first_and_follows_the_seed():
    S, R = sets(300)
    recipe = Recipe(Rule.CC, Sets.FIRST_AND_RANDOM)
    one, same, other = (read_answers(S, R, recipe, seed) for seed in (1, 1, 2))
    assert (one.S.sum(axis=1) == 2).all()
    np.testing.assert_array_equal(one.R == 0, R == 0)
    np.testing.assert_array_equal(one.R, same.R)
    assert (one.R != other.R).any()
    # Each of four others is drawn for about a quarter of the texts.
    seconds = (np.nonzero(one.R == 1)[1] - np.nonzero(one.R == 0)[1]) % 5
    assert (np.bincount(seconds, minlength=5)[1:] > 50).all()


def test_places_left_empty_in_an_order_are_closed():
    R = np.array([[3, -1, 1], [-1, 2, -1], [0, 1, 2]])
    answers = read_answers(R >= 0, R, ALL, seed=0)
    assert answers.R.tolist() == [[1, -1, 0], [-1, 0, -1], [0, 1, 2]]


def test_with_one_label_there_is_no_second_one():
    answers = read_answers(np.ones((3, 1), dtype=bool), None, Recipe(Rule.CC, Sets.FIRST_AND_RANDOM), seed=0)
    assert answers.S.tolist() == [[True]] * 3


def test_first_labels_of_sets_without_order_are_refused():
    with pytest.raises(StudentError, match="candidate sets: found no order"):
        read_answers(np.array([[T, T, F]]), None, Recipe(Rule.CC, Sets.FIRST), seed=0)


def test_single_labels_need_no_order():
    answers = read_answers(np.array([[F, T]]), None, Recipe(Rule.CC, Sets.FIRST), seed=0)
    assert answers.R.tolist() == [[-1, 0]]
    assert not answers.is_ordered


def test_a_text_without_candidates_is_open_and_holds_every_label():
    answers = read_answers(np.array([[T, F, F], [F, F, F]]), np.array([[0, -1, -1], [-1, -1, -1]]), ALL, seed=0)
    assert answers.is_open.tolist() == [F, T]
    assert answers.S.tolist() == [[T, F, F], [T, T, T]]


@pytest.mark.parametrize(("k", "largest"), [(2, 1), (3, 2), (4, 2), (6, 3), (10, 5), (77, 5)])
def test_sets_of_more_than_five_or_half_of_all_labels_are_open(k, largest):
    S = np.tri(k, dtype=bool)
    answers = read_answers(S, None, find_recipe("ca_dr_c"), seed=0)
    assert (~answers.is_open).sum() == largest
    assert not read_answers(S, None, ALL, seed=0).is_open.any()


@pytest.mark.parametrize("n", [0, 4])
def test_no_candidates_at_all_is_one_sentence(n):
    with pytest.raises(StudentError, match=f"training texts: found 0 of {n} with candidates"):
        read_answers(np.zeros((n, 3), dtype=bool), None, ALL, seed=0)


def test_sets_that_all_say_nothing_are_one_sentence():
    with pytest.raises(StudentError, match="candidate sets: found none small enough"):
        read_answers(np.ones((4, 2), dtype=bool), None, find_recipe("ca_dr_c"), seed=0)


def test_a_tenth_is_held_out_of_every_class_alike_and_follows_the_seed():
    S, R = sets(1000)
    recipe = Recipe(Rule.CC, held_out_share=0.1)
    one, same, other = (read_answers(S, R, recipe, seed) for seed in (1, 1, 2))
    first = (R == 0).argmax(axis=1)
    for j in range(5):
        of_class = first == j
        assert abs(one.is_held_out[of_class].sum() - 0.1 * of_class.sum()) <= 2
    np.testing.assert_array_equal(one.is_held_out, same.is_held_out)
    assert (one.is_held_out != other.is_held_out).any()


def test_no_class_loses_its_only_text():
    S = np.eye(30, dtype=bool)[np.concatenate([np.arange(30), np.zeros(400, dtype=int)])]
    held_out = read_answers(S, None, Recipe(Rule.CC, held_out_share=0.5), seed=0).is_held_out
    assert S[~held_out].any(axis=0).all()
    assert held_out.sum() == 200


def test_too_few_texts_to_judge_by_are_not_held_out():
    S, R = sets(100)
    assert not read_answers(S, R, Recipe(Rule.CC, held_out_share=0.1), seed=0).is_held_out.any()


def test_open_texts_are_not_held_out():
    S, R = sets(400)
    S[::2], R[::2] = False, -1
    answers = read_answers(S, R, Recipe(Rule.CC, held_out_share=0.3), seed=0)
    assert answers.is_held_out.any()
    assert not (answers.is_held_out & answers.is_open).any()
