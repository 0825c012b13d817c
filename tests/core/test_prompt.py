"""Keys hold what can change the answer, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.config import ResponseFormat, TeacherConfig
from candist_core.prompt import compile_prompt, render_text, response_format_of
from candist_core.spec import Strategy, TaskSpec

SPEC = TaskSpec(labels=[{"name": "spam", "description": "unwanted"}, {"name": "ham", "examples": ["see you\nat noon"]}])
TEACHER = TeacherConfig(model="m")


def key(spec=SPEC, teacher=TEACHER, text="hello", sample=0, doc_id="d"):
    return compile_prompt(spec, teacher).request(doc_id, text, sample).key


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": SPEC.model_copy(update={"instruction": "another"})},
        {"spec": SPEC.model_copy(update={"strategy": Strategy.SA})},
        {"spec": SPEC.model_copy(update={"labels": SPEC.labels[::-1]})},
        {"teacher": TEACHER.model_copy(update={"model": "n"})},
        {"teacher": TEACHER.model_copy(update={"temperature": 0.5})},
        {"teacher": TEACHER.model_copy(update={"max_tokens": 9})},
        {"teacher": TEACHER.model_copy(update={"response_format": ResponseFormat.TEXT})},
        {"text": "hello "},
        {"sample": 1},
    ],
)
def test_what_can_change_the_answer_changes_the_key(changed):
    assert key(**changed) != key()


@pytest.mark.parametrize(
    "changed",
    [
        {"doc_id": "e"},
        {"teacher": TEACHER.model_copy(update={"max_in_flight": 3, "max_attempts": 1, "timeout_s": 1.0})},
        {"teacher": TEACHER.model_copy(update={"api_key_env": "OTHER"})},
    ],
)
def test_what_cannot_change_the_answer_leaves_the_key(changed):
    assert key(**changed) == key()


def test_keys_are_the_same_on_every_machine():
    assert key() == "da3690d6bfe16e742ab3567a779b4619"


@given(st.text(max_size=60), st.text(max_size=60))
def test_distinct_texts_have_distinct_keys(one, other):
    assert (key(text=one) == key(text=other)) == (one == other)


@given(st.text(max_size=80))
def test_no_text_can_close_its_own_place(text):
    first, *_, last = render_text(text).split("\n")
    inner = render_text(text)[len(first) + 1 : -len(last) - 1]
    assert inner == text
    assert last not in inner
    assert first not in inner


def test_a_forged_end_marker_stays_inside_the_text():
    forged = render_text("hello")
    assert render_text(forged).count("<<<END") == 2
    assert not render_text(forged).endswith(forged)


def test_every_label_stands_in_the_system_message_with_its_description_and_examples():
    system = compile_prompt(SPEC, TEACHER).head.system
    assert "- spam: unwanted" in system
    assert "for example: see you at noon" in system


def test_strategies_share_all_but_the_ending():
    systems = [
        compile_prompt(SPEC.model_copy(update={"strategy": strategy}), TEACHER).head.system for strategy in Strategy
    ]
    starts = {system.split("Choose the one")[0].split("Give all the")[0] for system in systems}
    assert len(starts) == 1
    assert len(set(systems)) == 3


def test_the_schema_closes_the_labels_and_opens_beyond_what_endpoints_take():
    field = response_format_of(SPEC, ResponseFormat.JSON_SCHEMA)["json_schema"]["schema"]["properties"]["candidates"]
    assert field["items"]["enum"] == ["spam", "ham"]
    many = TaskSpec(labels=[{"name": f"label {i}"} for i in range(500)])
    field = response_format_of(many, ResponseFormat.JSON_SCHEMA)["json_schema"]["schema"]["properties"]["candidates"]
    assert field["items"] == {"type": "string"}


def test_a_text_endpoint_is_sent_no_response_format():
    assert response_format_of(SPEC, ResponseFormat.TEXT) is None
    assert response_format_of(SPEC, ResponseFormat.JSON_OBJECT) == {"type": "json_object"}
