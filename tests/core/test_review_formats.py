"""What other tools are given, and what they give back. The exports are as their own converters write them."""

import json

import polars as pl
import pytest

from candist_core.errors import ReviewError
from candist_core.review_formats import Answer, read_answers, to_argilla, to_csv, to_label_studio
from candist_core.spec import TaskSpec

SPEC = TaskSpec(labels=[{"name": "spam"}, {"name": "ham"}, {"name": "news"}])
TEXT = 'first line\nsecond, with "quotes" <b>ü</b>'
CHOSEN = pl.DataFrame(
    {"doc_id": ["1", "2"], "text": [TEXT, "=HYPERLINK(1)"], "candidates": [["ham", "spam"], ["news"]],
     "why": ["doubtful", "random"]}
)  # fmt: skip


def as_json(value):
    return json.dumps(value).encode()


def test_csv_comes_back_as_it_went_out_and_blank_labels_are_no_answers():
    assert read_answers(to_csv(CHOSEN), "review.csv") == []
    frame = pl.read_csv(to_csv(CHOSEN), infer_schema=False).with_columns(label=pl.Series([" ham ", None]))
    assert read_answers(frame.write_csv().encode(), "review.csv") == [Answer("1", TEXT, "ham", "doubtful")]


def test_no_cell_of_a_csv_is_a_formula_for_a_spreadsheet():
    frame = pl.DataFrame({"doc_id": ["-1"], "text": ["@SUM(A1)"], "candidates": [["+x"]], "why": ["random"]})
    row = pl.read_csv(to_csv(frame), infer_schema=False).row(0)
    assert row == ("'-1", "'@SUM(A1)", "'+x", "random", None)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_spreadsheets_may_separate_as_they_like_and_mark_the_order_of_bytes(separator):
    data = f"\ufeffdoc_id{separator}label\r\n007{separator}ham\r\n".encode()
    assert read_answers(data, "a.csv") == [Answer("007", None, "ham")]


def test_label_studio_offers_the_candidates_first_and_shows_no_verdict():
    tasks = json.loads(to_label_studio(CHOSEN, SPEC))
    assert [choice["value"] for choice in tasks[0]["data"]["choices"]] == ["ham", "spam", "news"]
    assert tasks[1]["data"]["text"] == "=HYPERLINK(1)"
    assert all(set(task) == {"data"} for task in tasks)


def label_studio_result(label):
    return {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def test_an_export_of_label_studio_gives_each_annotation_that_was_not_skipped():
    data = {"doc_id": "1", "text": TEXT, "why": "doubtful", "choices": [{"value": "ham"}]}
    annotations = [
        {"was_cancelled": False, "completed_by": 1, "result": [label_studio_result("ham")]},
        {"was_cancelled": True, "result": [label_studio_result("spam")]},
        {"was_cancelled": False, "result": []},
        {"was_cancelled": False, "result": [{"from_name": "note", "type": "textarea", "value": {"text": ["x"]}}]},
        {"was_cancelled": False, "result": [label_studio_result("news")]},
    ]
    export = [{"id": 7, "data": data, "annotations": annotations, "predictions": []}]
    found = read_answers(as_json(export), "export.json")
    assert found == [Answer("1", TEXT, "ham", "doubtful"), Answer("1", TEXT, "news", "doubtful")]


def test_label_studio_s_short_json_and_csv_are_read_too():
    row = {"doc_id": "1", "text": "t", "why": "random", "choices": [{"value": "ham"}], "id": 9, "label": "ham"}
    row |= {"annotator": 1, "annotation_id": 3, "created_at": "x", "updated_at": "x", "lead_time": 1.5}
    assert read_answers(as_json([row]), "min.json") == [Answer("1", "t", "ham", "random")]
    csv = '"annotation_id","annotator","choices","doc_id","id","label","text","why"\n'
    csv += '0,"1","[{""value"":""ham""}]","1",9,"ham","t","random"\n'
    assert read_answers(csv.encode(), "result.csv") == [Answer("1", "t", "ham", "random")]


def test_argilla_gets_a_dataset_with_one_question_and_the_candidates_in_order():
    files = {path: json.loads(data) for path, data in to_argilla(CHOSEN, SPEC, "mails").items()}
    assert set(files) == {"records.json", ".argilla/settings.json", ".argilla/dataset.json"}
    question = files[".argilla/settings.json"]["questions"][0]
    assert [option["value"] for option in question["settings"]["options"]] == ["spam", "ham", "news"]
    record = files["records.json"][0]
    assert (record["id"], record["fields"]) == ("1", {"text": TEXT, "candidates": "1. ham\n2. spam"})
    assert record["suggestions"] == record["responses"] == {}


def test_records_of_argilla_count_once_they_are_completed():
    record = {
        "id": "1", "fields": {"text": "t", "candidates": "1. ham"}, "metadata": {"why": "random"}, "suggestions": {},
        "responses": {"label": [{"value": "ham", "user_id": "u"}, {"value": "spam", "user_id": "v"}]},
        "vectors": {}, "status": "completed", "_server_id": "s",
    }  # fmt: skip
    draft = record | {"id": "2", "status": "pending"}
    found = read_answers(as_json([record, draft, record | {"id": "3", "responses": {}}]), "records.json")
    assert found == [Answer("1", "t", "ham", "random"), Answer("1", "t", "spam", "random")]


def test_flattened_records_of_argilla_count_where_they_were_submitted():
    record = {
        "id": "1", "status": "completed", "_server_id": None, "text": "t", "candidates": "1. ham", "why": "doubtful",
        "label.responses": ["ham", "spam", "news"], "label.responses.users": ["u", "v", "w"],
        "label.responses.status": ["submitted", "draft", "discarded"],
    }  # fmt: skip
    assert read_answers(as_json([record, {"id": "2", "label.responses": None}]), "flat.json") == [
        Answer("1", "t", "ham", "doubtful")
    ]


def test_of_json_lines_the_last_about_a_text_counts_and_half_a_line_at_the_end_does_not():
    lines = b'{"doc_id":"1","label":"ham"}\n{"doc_id":"2","label":"ham"}\n{"doc_id":"1","label":null}\n'
    assert read_answers(lines + b'{"doc_id":"2","lab', "a.jsonl") == [Answer("2", None, "ham")]


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"x", "answers.xlsx", "found the ending 'xlsx', wanted csv, tsv, json or jsonl"),
        (b"doc_id,answer\n1,ham\n", "a.csv", "found the columns doc_id, answer, wanted doc_id or text, and label"),
        ("doc_id,label\n1,h\xe4m\n".encode("latin-1"), "a.csv", "wanted CSV in UTF-8"),
        (b"PK\x03\x04\xff", "a.csv", "no UTF-8 text"),
        (b"{", "a.json", "found no JSON"),
        (b'{"id": 1}', "a.json", "wanted a list of tasks or records"),
        (b"[1]", "a.json", "wanted a list of tasks or records"),
        (b'no\n{"doc_id":"1","label":"ham"}\n', "a.jsonl", "line 1: found no JSON"),
    ],
)
def test_what_is_no_file_of_answers_is_told_in_one_sentence(data, name, said):
    with pytest.raises(ReviewError) as caught:
        read_answers(data, name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "item",
    [
        {"data": {}, "annotations": [None, {"result": None}, {"result": [None, {"type": "choices", "value": None}]}]},
        {"fields": {"text": None}, "responses": {"label": [None, {}]}},
        {"label": {"choices": ["ham", "spam"]}, "doc_id": "1"},
        {"label": 3, "doc_id": "1"},
        {"label": "ham"},
        {},
    ],
)
def test_odd_items_hold_no_answer_and_break_nothing(item):
    assert read_answers(as_json([item]), "a.json") == []


def test_a_file_of_final_labels_is_no_file_of_answers():
    for data, name in (
        (b"doc_id,label,needs_review\na,spam,true\n", "review.csv"),
        (b'{"doc_id": "a", "label": "spam", "needs_review": true}\n', "review.jsonl"),
    ):
        with pytest.raises(ReviewError, match="candist review export"):
            read_answers(data, name)
