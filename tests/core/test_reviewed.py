"""Answers laid beside the version that they are about."""

import polars as pl
import pytest

from candist_core.errors import ReviewError
from candist_core.review_formats import Answer
from candist_core.reviewed import join_reviews, match_answers
from tests.versions import frame_of, label_row

LABELS = ["spam", "ham", "slow_speed"]
FRAME = frame_of(
    [
        label_row("1", "win a prize", "spam", 0.9),
        label_row("2", "=see  you\nat noon", "spam", 0.4, "ham"),
        label_row("3", "win a prize", "spam", 0.9),
        label_row("'4", "other", "ham", 0.6),
    ]
)


def match(*answers):
    return match_answers(answers, FRAME, LABELS, "answers f.csv")


def test_an_answer_is_found_by_its_id_or_else_by_its_text():
    table, report = match(Answer("2", None, "ham", "random"), Answer("0007", "win a  prize", "SPAM"))
    assert dict(table.select("text", "answer").iter_rows()) == {"=see  you\nat noon": "ham", "win a prize": "spam"}
    assert (report.n_random, report.n_doubtful, report.n_corrected, report.n_unknown) == (1, 1, 1, 0)


def test_what_a_spreadsheet_does_to_ids_and_texts_does_not_matter():
    table, report = match(Answer("2", "'=see you at noon ", "ham"), Answer("'4", "other", "slow speed"))
    assert table["answer"].to_list() == ["ham", "slow_speed"]
    assert report.n_changed == 0


def test_an_answer_about_a_text_that_reads_otherwise_now_is_left_out():
    table, report = match(Answer("1", "another text", "ham"), Answer("2", None, "ham"), Answer("9", "gone", "ham"))
    assert table.height == 1
    assert (report.n_changed, report.n_unknown) == (1, 1)


def test_people_who_do_not_agree_settle_nothing():
    table, report = match(
        Answer("1", None, "ham"),
        Answer("3", None, "spam"),
        *[Answer("2", None, name) for name in ("ham", "ham", "spam")],
    )
    assert table["answer"].to_list() == ["ham"]
    assert report.n_disputed == 1


def test_only_what_is_known_to_be_random_estimates():
    _, report = match(Answer("1", None, "spam", None), Answer("2", None, "ham", "Random "))
    assert (report.n_random, report.n_doubtful) == (1, 1)
    assert report.estimate.final_accuracy.n == 1
    assert report.estimate.final_accuracy.value == 0


def test_a_label_that_the_task_does_not_have_is_named_with_the_nearest():
    with pytest.raises(
        ReviewError, match=r"answers f\.csv: found the label 'spamm', wanted one .* did you mean 'spam'"
    ):
        match(Answer("1", None, "spamm"))


def test_answers_about_another_version_are_refused():
    with pytest.raises(ReviewError, match="found 1 answers, 0 of them about texts that read otherwise now"):
        match(Answer("77", None, "ham"))
    with pytest.raises(ReviewError, match="found no answer"):
        match()


def test_the_newer_label_counts_and_once_random_is_always_random():
    now = pl.DataFrame({"text": [" a", "c"], "answer": ["ham", "spam"], "why": ["doubtful", "random"]})
    before = [("a", "spam", "random"), ("b", "ham", "doubtful"), ("c", "ham", "doubtful")]
    assert join_reviews(before, now) == [
        (" a", "ham", "random"),
        ("b", "ham", "doubtful"),
        ("c", "spam", "random"),
    ]
