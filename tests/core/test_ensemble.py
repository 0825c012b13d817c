"""Several answers to one text become one: votes, their order, and what a mix of statuses amounts to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.candidates import CandidateSet, Status
from candist_core.ensemble import combine_samples, combine_teachers, is_unsure
from candist_core.teacher_config import Combine

LABELS = ["a", "b", "c", "d"]
ABSTAINED, UNPARSED, REFUSED, FAILED = (
    CandidateSet(status=status) for status in (Status.ABSTAINED, Status.UNPARSED, Status.REFUSED, Status.FAILED)
)

named = st.lists(st.sampled_from(LABELS), unique=True, min_size=1, max_size=4).map(lambda x: CandidateSet(tuple(x)))
any_set = named | st.sampled_from([ABSTAINED, UNPARSED, REFUSED, FAILED])
any_sets = st.lists(any_set, min_size=1, max_size=7)


def ok(*names):
    return CandidateSet(names)


# draws of one teacher


def test_a_score_is_the_share_of_draws_that_name_the_label():
    found = combine_samples([ok("a"), ok("a", "b"), ok("c"), ok("a")], LABELS)
    # c was named first in its draw, b second in its own.
    assert found == CandidateSet(("a", "c", "b"), (3 / 4, 1 / 4, 1 / 4))


def test_equal_votes_go_by_mean_rank_and_then_by_the_tasks_order():
    assert combine_samples([ok("b", "a"), ok("b", "a")], LABELS).labels == ("b", "a")
    assert combine_samples([ok("b", "a"), ok("a", "b")], LABELS).labels == ("a", "b")


def test_a_label_that_one_of_fifty_draws_names_is_kept():
    found = combine_samples([ok("a")] * 49 + [ok("a", "b")], LABELS)
    assert found == CandidateSet(("a", "b"), (1.0, 1 / 50))


def test_beyond_the_tasks_limit_the_labels_with_the_fewest_votes_are_left_out():
    draws = [ok("a", "b"), ok("b", "c"), ok("b", "c"), ok("d")]
    assert combine_samples(draws, LABELS, max_candidates=2) == CandidateSet(("b", "c"), (3 / 4, 2 / 4))


def test_a_single_draw_keeps_its_own_scores():
    only = CandidateSet(("b", "a"), (0.7, 0.2))
    assert combine_samples([only], LABELS) is only


@pytest.mark.parametrize(
    ("sets", "status"),
    [
        ([ok("a"), ABSTAINED], "ok"),
        ([ok("a"), ABSTAINED, ABSTAINED], "abstained"),
        ([ok("a"), REFUSED, REFUSED, UNPARSED, FAILED], "ok"),
        ([ABSTAINED, REFUSED, REFUSED, UNPARSED], "abstained"),
        ([REFUSED, UNPARSED], "refused"),
        ([REFUSED, UNPARSED, UNPARSED], "unparsed"),
        ([FAILED, FAILED, UNPARSED], "unparsed"),
        ([FAILED, FAILED], "failed"),
    ],
)
def test_a_mix_of_statuses_amounts_to_what_the_table_says(sets, status):
    assert combine_samples(sets, LABELS).status == status
    assert combine_samples(sets[::-1], LABELS).status == status


def test_abstentions_lower_the_votes_and_what_is_no_answer_does_not():
    assert combine_samples([ok("a"), ok("a"), ABSTAINED], LABELS).scores == (2 / 3,)
    assert combine_samples([ok("a"), ok("a"), REFUSED, UNPARSED, FAILED], LABELS).scores == (1.0,)


@given(any_sets, st.randoms())
def test_the_order_of_the_draws_does_not_matter(sets, random):
    shuffled = list(sets)
    random.shuffle(shuffled)
    assert combine_samples(shuffled, LABELS) == combine_samples(sets, LABELS)


@given(any_sets, st.sampled_from(Combine))
def test_what_is_combined_is_a_sound_set(sets, how):
    found = combine_teachers(sets, LABELS, how)
    assert bool(found.labels) == (found.status is Status.OK)
    assert len(set(found.labels)) == len(found.labels)
    assert set(found.labels) <= {label for one in sets for label in one.labels}
    if found.scores is not None:
        assert list(found.scores) == sorted(found.scores, reverse=True)
        assert all(0 < score <= 1 for score in found.scores)


@given(named, st.integers(1, 6))
def test_draws_that_agree_give_the_set_they_agree_on(one, n):
    assert combine_samples([one] * n, LABELS).labels == one.labels


# several teachers


def test_a_union_keeps_the_first_teachers_order_and_adds_what_the_next_one_names():
    found = combine_teachers([ok("c", "a"), ok("b", "a"), ok("d")], LABELS, Combine.UNION)
    assert found == CandidateSet(("c", "a", "b", "d"))


def test_a_union_of_one_answer_is_that_answer_with_its_scores():
    only = CandidateSet(("b",), (0.9,))
    assert combine_teachers([FAILED, only, ABSTAINED, ABSTAINED], LABELS, Combine.UNION) == only


def test_a_union_over_the_limit_leaves_out_what_the_last_teachers_added():
    sets = [ok("a", "b"), ok("c")]
    assert combine_teachers(sets, LABELS, Combine.UNION, max_candidates=2).labels == ("a", "b")


def test_each_teacher_has_one_vote():
    found = combine_teachers([ok("a"), ok("b"), ok("b", "c")], LABELS, Combine.VOTE)
    assert found == CandidateSet(("b", "a", "c"), (2 / 3, 1 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([ok("a", "b"), ok("b")], ok("b")),
        ([ok("a", "b"), ok("b", "c"), ok("d")], ok("d")),
        ([ok("a", "b"), ABSTAINED], ABSTAINED),
        ([ok("a", "b"), FAILED], ok("a", "b")),
        ([ok("a", "b"), UNPARSED], ok("a", "b")),
        ([ABSTAINED, REFUSED], ABSTAINED),
        ([FAILED, ok("a")], ok("a")),
        ([FAILED, REFUSED], REFUSED),
        ([FAILED, FAILED], FAILED),
    ],
)
def test_in_a_cascade_the_last_teacher_that_answered_stands(sets, expected):
    assert combine_teachers(sets, LABELS, Combine.CASCADE) == expected


@pytest.mark.parametrize("found", [ok("a", "b"), ABSTAINED, UNPARSED, REFUSED, FAILED])
def test_whatever_is_not_one_label_goes_to_the_next_teacher(found):
    assert is_unsure(found)
    assert not is_unsure(ok("a"))
