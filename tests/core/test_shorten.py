"""What is left of a text that is too long: never more than asked for, never half a character."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.shorten import MARK, shorten, shorter
from candist_core.teacher_config import Truncate

BOTH = pytest.mark.parametrize("truncate", Truncate)
texts = st.text(st.sampled_from("ab \né漢🎉\u0301\u200d"), max_size=200)


def size(text):
    return len(text.encode("utf-8", "surrogatepass"))


@BOTH
def test_a_text_that_fits_stays_as_it_is(truncate):
    # 16 tokens are 64 bytes: 64 letters fit, and 16 emoji of four bytes each.
    assert shorten("x" * 64, 16, truncate) == "x" * 64
    assert shorten("🎉" * 16, 16, truncate) == "🎉" * 16
    assert shorten("x" * 65, 16, truncate) != "x" * 65


def test_the_head_is_kept_up_to_the_mark():
    # 64 bytes less the six of the mark.
    assert shorten("x" * 100, 16, Truncate.HEAD) == "x" * 58 + " [...]"


def test_head_and_tail_are_kept_in_equal_parts():
    # 64 bytes less the seven of the mark are 57: the tail has 28, the head the odd one more.
    text = "h" * 500 + "t" * 500
    assert shorten(text, 16, Truncate.HEAD_TAIL) == "h" * 29 + MARK + "t" * 28


@BOTH
def test_no_character_is_cut_apart(truncate):
    for text in ("漢" * 99, "a" + "漢" * 99, "🎉" * 99, "ab🎉" * 99):
        for max_tokens in range(16, 24):
            cut = shorten(text, max_tokens, truncate)
            assert set(cut) - set(MARK) <= set(text)
            assert 4 * max_tokens - 8 < size(cut) <= 4 * max_tokens


@pytest.mark.parametrize("unit", ["e\u0301", "👍🏽", "👩\u200d💻", "❤\ufe0f", "\r\n"])
@BOTH
def test_what_is_drawn_as_one_is_not_cut_apart(unit, truncate):
    for offset in range(8):
        parts = shorten("x" * offset + unit * 99 + "x" * offset, 16, truncate).split(MARK.strip())
        for part in parts:
            assert part.strip(" ").strip("x").replace(unit, "") == ""


def test_marks_without_end_do_not_eat_the_text():
    # The look back is 32 characters at most; all that is cut belongs to the last of eight letters.
    assert size(shorten("x" * 8 + "\u0301" * 500, 32, Truncate.HEAD)) > 96


@given(texts, st.integers(1, 60), st.sampled_from(Truncate))
def test_the_result_is_within_bounds_and_cutting_again_changes_nothing(text, max_tokens, truncate):
    cut = shorten(text, max_tokens, truncate)
    assert size(cut) <= max(4 * max_tokens, 0)
    assert shorten(cut, max_tokens, truncate) == cut
    assert (cut == text) == (size(text) <= 4 * max_tokens)


@given(texts, st.integers(8, 60))
def test_what_is_kept_is_the_start_and_the_end_of_the_text(text, max_tokens):
    cut = shorten(text, max_tokens, Truncate.HEAD_TAIL)
    if cut != text:
        head, tail = cut.split(MARK)
        assert text.startswith(head)
        assert text.endswith(tail)


@BOTH
def test_a_shorter_text_has_half_the_length(truncate):
    cut = shorter("word " * 200, truncate)
    assert 490 <= size(cut) <= 500


@BOTH
def test_cutting_twice_leaves_one_mark(truncate):
    cut = shorter(shorten("word " * 999, 500, truncate), truncate)
    assert cut.count(MARK.strip()) == 1


@BOTH
def test_a_text_too_short_to_fill_a_context_is_not_cut(truncate):
    assert shorter("x" * 255, truncate) is None
    assert shorter("x" * 256, truncate) is not None


@BOTH
def test_texts_grow_shorter_until_they_are_too_short(truncate):
    text, sizes = "漢字 " * 5000, []
    while text is not None:
        sizes.append(size(text))
        text = shorter(text, truncate)
    assert all(2 * after <= before for before, after in pairwise(sizes))
    assert sizes[-1] < 256


def test_half_a_surrogate_pair_is_a_character_like_any_other():
    assert size(shorten("\ud83d" * 99, 16, Truncate.HEAD)) <= 64
