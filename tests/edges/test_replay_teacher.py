import asyncio

import polars as pl
import pytest

from candist_core.annotate import annotate
from candist_core.edges.replay_teacher import Recorded, Recording, ReplayTeacher, read_replies, replay_model
from candist_core.errors import RowError, TeacherError
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig, TeacherKind
from tests.fakes import MemoryLog

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))
DATA = b'{"id": "a", "reply": "spam"}\n\n{"id": 7, "reply": "ham", "note": "x"}\r\n'
PROMPT = compile_prompt(SPEC, TeacherConfig(kind=TeacherKind.REPLAY, replies_uri="x"), replay_model(DATA))


def ask(teacher, request):
    return asyncio.run(teacher.ask(request))


def test_a_reply_is_found_by_the_rows_id_and_costs_nothing():
    teacher = ReplayTeacher(read_replies(DATA, "x"), replay_model(DATA))
    reply = ask(teacher, PROMPT.request("7", "hello"))
    assert (reply.reply, reply.finish_reason, reply.cost_usd, reply.prompt_tokens) == ("ham", "stop", 0.0, 0)
    assert reply.request_key == PROMPT.request("7", "hello").key


def test_a_request_key_goes_before_an_id():
    request = PROMPT.request("a", "hello")
    lines = f'{{"id": "a", "reply": "spam"}}\n{{"id": "b", "reply": "ham", "request_key": "{request.key}"}}'
    assert ask(ReplayTeacher(read_replies(lines.encode(), "x"), "m"), request).reply == "ham"


def test_a_text_without_a_recorded_reply_is_a_row_error_and_can_be_known_before():
    teacher = ReplayTeacher(Recording({("a", 0): Recorded("spam")}, {}), "m")
    assert teacher.missing_replies(["a", "z", "y"]) == ["z", "y"]
    with pytest.raises(RowError) as caught:
        ask(teacher, PROMPT.request("z", "hello"))
    assert caught.value.reason == "no recorded reply"


def test_samples_of_one_text_are_told_apart_and_bring_all_that_was_kept():
    lines = b"""{"id": "a", "reply": "spam"}
{"id": "a", "reply": "ham", "sample": 1, "finish_reason": "length", "logprobs": "[[1]]"}"""
    teacher = ReplayTeacher(read_replies(lines, "x"), "m")
    first, second = (ask(teacher, PROMPT.request("a", "x", sample)) for sample in (0, 1))
    assert (first.reply, first.finish_reason, first.logprobs) == ("spam", "stop", None)
    assert (second.reply, second.finish_reason, second.logprobs) == ("ham", "length", "[[1]]")


def test_an_empty_recorded_reply_is_a_reply():
    assert ask(ReplayTeacher(Recording({("a", 0): Recorded("")}, {}), "m"), PROMPT.request("a", "x")).reply == ""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"nope", r"no JSON \(JSONDecodeError\)"), (b'{"id": "a"}', "no reply"),
        (b'{"reply": "x"}', "no id"), (b"[]", "no id"),
        (b'{"id": null, "reply": "x"}', "id of type NoneType"), (b'{"id": true, "reply": "x"}', "id of type bool"),
        (b'{"id": "a", "reply": {"label": "x"}}', "reply of type dict"),
        (b'{"id": "a", "reply": "\xff"}', "UnicodeDecodeError"),
        (b'{"id": "a", "reply": "x", "request_key": 3}', "request_key of type int"),
        (b'{"id": "a", "reply": "x", "sample": -1}', "sample '-1'"),
        (b"[" * 100_000, "RecursionError"),
        (b'{"id": "first", "reply": "other"}', "a second, different reply for id 'first'"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_its_number_in_one_sentence(line, found):
    with pytest.raises(TeacherError, match=f"recorded replies r.jsonl, line 3: found {found}|line 3.*{found}"):
        read_replies(b'{"id": "first", "reply": "x"}\n\n' + line + b"\n", "r.jsonl")


def test_a_recording_without_lines_is_refused():
    with pytest.raises(TeacherError, match="found no line"):
        read_replies(b"\n \n", "r.jsonl")


def test_the_same_line_twice_and_a_byte_order_mark_are_borne():
    assert read_replies(b"\xef\xbb\xbf" + DATA + DATA, "x").by_id == {
        ("a", 0): Recorded("spam"),
        ("7", 0): Recorded("ham"),
    }


def test_a_line_separator_inside_a_text_does_not_end_the_line():
    assert read_replies('{"id": "a", "reply": "x\u2028y"}'.encode(), "x").by_id == {("a", 0): Recorded("x\u2028y")}


def test_lone_surrogates_become_what_a_table_can_hold():
    reply = read_replies(b'{"id": "a", "reply": "\\ud800 spam"}', "x").by_id[("a", 0)].reply
    assert pl.Series([reply]).to_list() == ["? spam"]


def test_the_models_name_changes_with_the_recording():
    assert replay_model(DATA) != replay_model(DATA + b" ")
    assert ReplayTeacher(read_replies(DATA, "x"), replay_model(DATA)).name == replay_model(DATA)


def test_recorded_replies_annotate_a_shard_and_missing_ones_are_rejects():
    texts = pl.DataFrame({"doc_id": ["a", "z", "7"], "text": ["one", "two", "three"]})
    teacher = ReplayTeacher(read_replies(DATA, "x"), replay_model(DATA))
    result = asyncio.run(
        annotate(texts, SPEC, PROMPT, teacher, MemoryLog(), TeacherConfig(max_in_flight=8, max_attempts=1))
    )
    assert result.annotations["candidates"].to_list() == [["spam"], [], ["ham"]]
    assert result.rejects["reason"].to_list() == ["no recorded reply"]
    assert (result.usage.n_requests, result.usage.cost_usd, result.usage.n_unpriced) == (2, 0.0, 0)
