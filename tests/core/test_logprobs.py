"""Scores come from the tokens of the label itself, or not at all."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.logprobs import scores_from_logprobs


def scores(tokens, labels, reply=None):
    """Scores for a reply made of the tokens, given as (token, log-probability)."""
    reply = "".join(token for token, _ in tokens) if reply is None else reply
    return scores_from_logprobs(reply, json.dumps(tokens), labels)


def near(*values):
    return pytest.approx(tuple(math.exp(value) for value in values))


REPLY = [('{"', -9.0), ("candidates", -9.0), ('":["', -9.0), ("out", -0.5), ("age", -0.25), ('","', -9.0)]
REPLY += [("slow", -1.0), ('"]}', -9.0)]


def test_a_score_is_the_product_over_the_labels_tokens_and_nothing_around_them_counts():
    assert scores(REPLY, ["outage", "slow"]) == near(-0.75, -1.0)


def test_scores_stand_in_the_order_in_which_the_labels_are_asked_for():
    assert scores(REPLY, ["slow", "outage"]) == near(-1.0, -0.75)


def test_a_token_that_holds_more_than_the_label_counts_whole():
    assert scores([('{"label": "sp', -0.5), ('am"}', -0.25)], ["spam"]) == near(-0.75)


def test_a_label_that_the_reasoning_speaks_of_is_scored_where_it_is_chosen():
    tokens = [('{"reasoning": "', -1), ("spam", -2), (" or ", -1), ('\\"ham\\"', -2), ('", "candidates": ["', -1)]
    tokens += [("ham", -0.125), ('", "', -1), ("spam", -0.5), ('"]}', -1)]
    assert scores(tokens, ["ham", "spam"]) == near(-0.125, -0.5)


def test_reasoning_that_is_the_bare_label_is_not_taken_for_the_choice():
    tokens = [('{"reasoning": "', -1), ("spam", -2), ('", "label": "', -1), ("spam", -0.125), ('"}', -1)]
    assert scores(tokens, ["spam"]) == near(-0.125)


def test_reasoning_that_ends_in_the_quoted_label_is_not_taken_for_the_choice():
    tokens = [('{"reasoning": "I say \\"', -1), ("spam", -2), ('", "label": "', -1), ("spam", -0.125), ('"}', -1)]
    assert scores(tokens, ["spam"]) == near(-0.125)


def test_prose_before_and_after_the_json_does_not_count():
    tokens = [('I say "spam". ', -3), ('{"label": "', -1), ("spam", -0.125), ('"} as "spam" it is', -3)]
    assert scores(tokens, ["spam"]) == near(-0.125)


def test_a_label_named_like_the_key_is_scored_as_a_value():
    assert scores([('{"', -1), ("label", -2), ('": "', -1), ("label", -0.125), ('"}', -1)], ["label"]) == near(-0.125)


@pytest.mark.parametrize(
    ("tokens", "label"),
    [
        ([("The best label: ", -1), ("Slow", -0.25), (" speed", -0.25), (".", -1)], "slow_speed"),
        ([("- ", -1), ("slow-", -0.25), ("speed", -0.25)], "slow speed"),
        ([('["', -1), ("SLOW", -0.25), (" SPEED", -0.25), ('"]', -1)], "slow_speed"),
        ([("It is not slow speed but ... no: ", -1), ("slow", -0.25), (" speed", -0.25)], "slow_speed"),
        ([('{"candidates": {"', -1), ("slow", -0.25), ("_speed", -0.25), ('": 0.7}}', -1)], "slow_speed"),
    ],
)
def test_a_label_written_in_another_way_is_found_by_its_words(tokens, label):
    assert scores(tokens, [label]) == near(-0.5)


def test_a_label_is_not_found_within_a_longer_one():
    tokens = [("card", -0.25), (", ", -1), ("card", -0.5), (" lost", -0.125)]
    assert scores(tokens, ["card", "card lost"]) == near(-0.25, -0.625)
    assert scores([("discard", -0.25)], ["card"]) is None


def test_a_label_of_signs_alone_is_found_as_it_is():
    assert scores([("answer: ", -1), ("+/-", -0.5)], ["+/-"]) == near(-0.5)


def test_a_character_made_of_several_tokens_counts_all_of_them():
    # OpenAI's form: the bytes that a token holds, where they are no character.
    reply = '{"label": "été 🎉"}'
    tokens = [('{"label": "', -1), ("\\xc3", -0.5), ("\\xa9", -0.25), ("té ", -0.125), ("bytes:\\xf0\\x9f", -0.25)]
    tokens += [("\\x8e\\x89", -0.5), ('"}', -1)]
    assert scores(tokens, ["été 🎉"], reply) == near(-1.625)


def test_empty_tokens_in_front_of_the_character_they_begin_count_with_it():
    tokens = [('{"label": "', -1), ("", -0.5), ("é", -0.25), ("té", -0.125), ("", -4), ('"}', -1)]
    assert scores(tokens, ["été"]) == near(-0.875)


def test_a_label_in_json_escapes_is_found():
    tokens = [('{"label": "', -1), ("\\u00e9", -0.5), ("t", -0.25), ("\\u00e9", -0.25), ('"}', -1)]
    assert scores(tokens, ["été"]) == near(-1.0)


def test_backslashes_that_the_reply_really_holds_are_no_bytes():
    tokens = [("\\xc3", -0.5), (" ", -1), ("spam", -0.25)]
    assert scores(tokens, ["spam"]) == near(-0.25)


def test_tokens_around_the_reply_do_no_harm():
    tokens = [("<think>", -1), ('{"label":"spam"}', -3), ("</think>\n", -1), *[('{"label":"', -1), ("spam", -0.5)]]
    tokens += [('"}', -1), ("<|im_end|>", -1)]
    assert scores(tokens, ["spam"], '{"label":"spam"}') == near(-0.5)


def test_the_word_for_very_unlikely_is_a_probability_of_nothing():
    assert scores([('{"label":"', 0), ("spam", -9999.0), ('"}', 0)], ["spam"]) == (0.0,)
    assert scores([('{"label":"', 0), ("spam", -math.inf), ('"}', 0)], ["spam"]) == (0.0,)


def test_rounding_never_makes_more_than_certain():
    assert scores([('{"label":"', 0), ("spam", 1e-7), ('"}', 0)], ["spam"]) == (1.0,)


def test_no_label_has_no_score():
    assert scores([('{"candidates": []}', -1)], []) == ()


REPLY_TEXT = '{"label":"spam"}'


@pytest.mark.parametrize(
    "logprobs",
    [
        "",
        "no json",
        "null",
        "{}",
        "7",
        "[]",
        "[7]",
        '["spam"]',
        '[["spam"]]',
        '[["spam", -1, 2]]',
        '[["{\\"label\\":\\"spam\\"}", null]]',
        '[["{\\"label\\":\\"spam\\"}", "-1"]]',
        '[["{\\"label\\":\\"spam\\"}", false]]',
        '[["{\\"label\\":\\"spam\\"}", NaN]]',
        '[["{\\"label\\":\\"spam\\"}", 0.9]]',
        '[["{\\"label\\":\\"spam\\"}", -1], [7, -1]]',
        # A token is missing, or another reply's.
        '[["{\\"label\\":", -1], ["spam\\"}", -1]]',
        '[["{\\"label\\":\\"ham\\"}", -1]]',
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_tokens_that_are_odd_or_not_of_this_reply_give_no_scores(logprobs):
    assert scores_from_logprobs(REPLY_TEXT, logprobs, ["spam"]) is None


def test_a_number_beyond_all_bounds_is_no_logarithm_or_an_impossible_token():
    tokens = json.dumps([[REPLY_TEXT, -1]])
    assert scores_from_logprobs(REPLY_TEXT, tokens.replace("-1", "-1" + "0" * 999), ["spam"]) == (0.0,)
    assert scores_from_logprobs(REPLY_TEXT, tokens.replace("-1", "1" + "0" * 999), ["spam"]) is None


def test_one_label_that_does_not_stand_in_the_reply_leaves_all_without_scores():
    assert scores(REPLY, ["outage", "weather"]) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(
    st.text(max_size=30), json_values.map(json.dumps) | st.text(max_size=20), st.lists(st.text(max_size=4), max_size=3)
)
def test_nothing_whatever_raises(reply, logprobs, labels):
    found = scores_from_logprobs(reply, logprobs, labels)
    assert found is None or len(found) == len(labels)


@given(
    st.lists(st.text('ab"\\\n é🎉_', min_size=1, max_size=5), min_size=1, max_size=3, unique_by=str.casefold),
    st.lists(st.integers(0, 60), max_size=12),
    st.booleans(),
)
def test_however_a_reply_is_cut_into_tokens_every_token_over_a_label_counts_once(labels, cuts, is_ascii):
    pieces = [json.dumps(label, ensure_ascii=is_ascii) for label in labels]
    reply = '{"candidates": [' + ", ".join(pieces) + "]}"
    ends = sorted({cut for cut in cuts if 0 < cut < len(reply)} | {len(reply)})
    starts = [0, *ends[:-1]]
    tokens = [(reply[start:end], -(2.0**-i)) for i, (start, end) in enumerate(zip(starts, ends, strict=True))]
    expected, at = [], len('{"candidates": [')
    for piece in pieces:
        inner = range(at + 1, at + len(piece) - 1)
        values = [
            value for (_, value), s, e in zip(tokens, starts, ends, strict=True) if s < inner.stop and e > inner.start
        ]
        expected.append(sum(values))
        at += len(piece) + 2
    assert scores(tokens, labels) == near(*expected)
