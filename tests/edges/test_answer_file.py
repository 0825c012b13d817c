"""Answers on disk before the next text is shown, whole or not at all."""

import json

import pytest

from candist_core.edges.answer_file import open_answers
from candist_core.errors import ReviewError, StoreError
from candist_core.review_formats import Answer, read_answers


def test_answers_stand_in_the_file_at_once_and_the_last_about_a_text_counts(tmp_path):
    path = tmp_path / "a.jsonl"
    with open_answers(path) as answers:
        answers.give("1", "text\u2028 \ud800", "random", "ham")
        assert len(path.read_bytes().splitlines()) == 1
        answers.give("2", "t", "doubtful", "ham")
        answers.give("1", "t", "random", None)
        answers.give("2", "t", "doubtful", "spam")
        assert answers.given == {"2": "spam"}
    with open_answers(path) as answers:
        assert answers.given == {"2": "spam"}
    assert read_answers(path.read_bytes(), path.name) == [Answer("2", "t", "spam", "doubtful")]


def test_half_a_line_of_a_killed_process_is_cut_off_before_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"doc_id": "1", "text": "t", "why": "random", "label": "ham"})
    path.write_text(f'{line}\n{{"doc_id": "2", "lab')
    with open_answers(path) as answers:
        assert answers.given == {"1": "ham"}
        answers.give("3", "t", "random", "ham")
    assert [json.loads(line)["doc_id"] for line in path.read_text().splitlines()] == ["1", "3"]


def test_one_process_alone_adds_to_a_file(tmp_path):
    with open_answers(tmp_path / "a.jsonl"), pytest.raises(ReviewError, match="another review that writes to it"):
        open_answers(tmp_path / "a.jsonl").__enter__()


@pytest.mark.parametrize("content", ["text\n", '{"doc_id": "1"}\n', "[1]\n", "3\n"])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content + "more")
    with pytest.raises(ReviewError, match="line 1: found no answer"):
        open_answers(path).__enter__()
    assert path.read_text() == content + "more"


def test_a_name_that_import_would_not_read_and_a_place_that_is_none_are_refused(tmp_path):
    with pytest.raises(ReviewError, match=r"wanted \.jsonl"):
        open_answers(tmp_path / "a.csv").__enter__()
    with pytest.raises(StoreError, match="found no such folder"):
        open_answers(tmp_path / "none" / "a.jsonl").__enter__()
