"""What each key does in a review, and what of a text reaches the terminal."""

import pytest

from flows.review_session import Item, Session
from flows.screen import visible

LABELS = ["outage", "slow_speed", "billing_dispute", "billing_question"]


def session_of(n=3, given=None):
    kept = []
    items = [Item(f"d{i}", f"text {i}", ("outage", "slow_speed"), "doubtful") for i in range(n)]
    session = Session(items, LABELS, given or {}, lambda item, label: kept.append((item.doc_id, label)))
    return session, kept


def type_in(session, keys):
    return [session.press(key) for key in keys]


def test_digits_answer_in_the_order_of_the_candidates():
    session, kept = session_of()
    type_in(session, "213")
    assert kept == [("d0", "slow_speed"), ("d1", "outage")]
    assert (session.item.doc_id, session.note) == ("d2", "no such key")


def test_undo_takes_back_one_answer_after_the_other_and_shows_its_text():
    session, kept = session_of()
    type_in(session, "12uuu")
    assert kept == [("d0", "outage"), ("d1", "slow_speed"), ("d1", None), ("d0", None)]
    assert (session.item.doc_id, session.n_answered, session.note) == ("d0", 0, "nothing to take back")
    type_in(session, "2")
    assert (kept[-1], session.item.doc_id) == (("d0", "slow_speed"), "d1")


def test_a_skipped_text_comes_again_at_the_end():
    session, kept = session_of()
    type_in(session, "s111")
    assert [doc_id for doc_id, _ in kept] == ["d1", "d2", "d0"]
    assert session.item is None


def test_another_label_is_typed_until_it_is_the_only_one():
    session, kept = session_of()
    type_in(session, "/billing\r")
    assert (kept, session.note) == ([], "2 labels hold this, type more")
    assert session.matches == ["billing_dispute", "billing_question"]
    type_in(session, "_x\x7fq\n")
    assert (kept, session.typed) == ([("d0", "billing_question")], None)


def test_a_name_typed_in_full_counts_though_others_hold_it_and_digits_are_letters_there():
    items = [Item("d", "t", ("x",), "random")]
    kept = []
    session = Session(items, ["bill", "bill 2"], {}, lambda item, label: kept.append(label))
    type_in(session, "/bill\ru/bill 2\r")
    assert kept == ["bill", None, "bill 2"]


@pytest.mark.parametrize("keys", ["/\r", "/nothing\r", "/out\x1b", "/\x1b[A"])
def test_nothing_is_answered_by_mistake(keys):
    session, kept = session_of()
    type_in(session, keys)
    assert kept == []


def test_q_ends_the_review_but_is_a_letter_of_a_name():
    session, _ = session_of()
    assert type_in(session, "/q\x1bq") == [True, True, True, False]
    assert session.press("\x04") is False


def test_answers_of_an_earlier_session_are_passed_over_and_can_be_taken_back():
    session, kept = session_of(given={"d1": "outage", "elsewhere": "outage"})
    assert (session.item.doc_id, session.n_answered) == ("d0", 1)
    type_in(session, "u")
    assert kept == [("d1", None)]
    assert session.item.doc_id == "d1"


def test_after_the_last_text_only_undo_and_quit_do_anything():
    session, kept = session_of(n=1)
    type_in(session, "112s/m")
    assert kept == [("d0", "outage")]
    assert session.note == "all texts are answered: u undo, q quit"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\u202eabc\u200b\ufeff", "\\u202eabc\\u200b\\ufeff"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
        ("a\xa0b\u3000c\td\u2028e", "a b c    d\\u2028e"),
        ("naïve 漢字 🙂 [bold]", "naïve 漢字 🙂 [bold]"),
    ],
)
def test_what_could_steer_a_terminal_is_written_out(text, shown):
    assert visible(text) == shown
