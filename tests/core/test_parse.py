"""No reply raises, and only known labels come out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.candidates import Status
from candist_core.parse import parse_reply
from candist_core.spec import TaskSpec

NAMES = ("slow_speed", "outage", "billing dispute", "Größe")
SPEC = TaskSpec(labels=[{"name": name} for name in NAMES])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["candidates", "label", "labels", "score", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_is_sane(reply: str, finish_reason: str) -> None:
    found = parse_reply(SPEC, reply, finish_reason)
    assert set(found.labels) <= set(NAMES)
    assert len(set(found.labels)) == len(found.labels)
    assert (found.status is Status.OK) == bool(found.labels)
    assert found.scores is None or len(found.scores) == len(found.labels)


@given(st.text(max_size=400), st.sampled_from(["stop", "length", "content_filter", "", "?"]))
@settings(max_examples=400, deadline=None)
def test_any_text_yields_known_labels_each_once(reply, finish_reason):
    assert_is_sane(reply, finish_reason)


@given(json_values, st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_json_in_any_prose_yields_known_labels_each_once(value, before, after):
    assert_is_sane(before + json.dumps(value, ensure_ascii=False) + after, "stop")


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
def test_the_asked_form_comes_back_in_the_order_of_the_reply(names):
    assert parse_reply(SPEC, json.dumps({"candidates": names})).labels == tuple(names)


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('{"label": "outage"}', ("outage",)),
        ('["OUTAGE", "Slow-Speed"]', ("outage", "slow_speed")),
        ('```json\n{"candidates": ["outage"]}\n```', ("outage",)),
        ('Sure! {"candidates": ["outage", "nonsense"]} Hope it helps.', ("outage",)),
        ("1. outage\n2. slow speed", ("outage", "slow_speed")),
        ("- outage\n- billing_dispute", ("outage", "billing dispute")),
        ("The label is outage.", ("outage",)),
        ("outage, slow_speed", ("outage", "slow_speed")),
        ('{"candidates": ["outage", "outage", "Outage"]}', ("outage",)),
        ('{"candidates": {"outage": 0.7, "slow_speed": 0.3}}', ("outage", "slow_speed")),
        ('{"Answer": "GRÖSSE"}', ("Größe",)),
        ('{"candidates": ["2) outage (most likely)"]}', ("outage",)),
        ('{broken {"candidates": ["outage"]}', ("outage",)),
    ],
)
def test_replies_of_many_forms_are_understood(reply, labels):
    assert parse_reply(SPEC, reply).labels == labels


@pytest.mark.parametrize(
    ("reply", "finish_reason", "status"),
    [
        ('{"candidates": []}', "stop", Status.ABSTAINED),
        ('{"label": null}', "stop", Status.ABSTAINED),
        ("", "stop", Status.UNPARSED),
        ("no idea", "stop", Status.UNPARSED),
        ('{"candidates": ["weather"]}', "stop", Status.UNPARSED),
        ('{"candidates": ["outage", "slow', "length", Status.UNPARSED),
        ("I'm sorry, I can't help with that.", "stop", Status.REFUSED),
        ("I\u2019m sorry, but no.", "stop", Status.REFUSED),
        ('{"candidates": ["outage"]}', "content_filter", Status.REFUSED),
        ("[" * 100_000, "stop", Status.UNPARSED),
        ('{"label": ' * 5_000, "stop", Status.UNPARSED),
        ("9" * 10_000, "stop", Status.UNPARSED),
    ],
)
def test_replies_without_a_label_have_a_status(reply, finish_reason, status):
    assert parse_reply(SPEC, reply, finish_reason).status is status


def test_scores_come_along_when_every_label_has_one():
    reply = '{"candidates": [{"label": "outage", "score": 0.75}, {"label": "slow_speed", "score": 0.25}]}'
    assert parse_reply(SPEC, reply).scores == (0.75, 0.25)
    assert parse_reply(SPEC, '{"candidates": [{"label": "outage", "score": NaN}]}').scores is None


def test_labels_that_differ_by_punctuation_alone_keep_apart():
    spec = TaskSpec(labels=[{"name": "a_b"}, {"name": "a-b"}])
    assert parse_reply(spec, '{"label": "a-b"}').labels == ("a-b",)
    assert parse_reply(spec, '{"label": "a b"}').status is Status.UNPARSED
