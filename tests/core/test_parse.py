"""No reply raises, and only known labels come out."""

import inspect
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.candidates import CandidateSet, Status
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
@settings(max_examples=250, deadline=None)
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
        ("outage or slow speed", ("outage", "slow_speed")),
        ('{"candidates": ["outage", "outage", "Outage"]}', ("outage",)),
        ('{"candidates": {"outage": 0.7, "slow_speed": 0.3}}', ("outage", "slow_speed")),
        ('{"slow_speed": 0.3, "outage": 0.7}', ("outage", "slow_speed")),
        ('{"slow_speed": false, "outage": true}', ("outage",)),
        ('{"Answer": "GRÖSSE"}', ("Größe",)),
        ('{"label": "Gro\u0308ße"}', ("Größe",)),
        ('{"label": "\u200boutage\u200e"}', ("outage",)),
        ('{"label": "\uff4f\uff55\uff54\uff41\uff47\uff45"}', ("outage",)),
        ('{"candidates": ["2) outage (most likely)"]}', ("outage",)),
        ('{"candidates": ["outage: the service is down"]}', ("outage",)),
        ('{broken {"candidates": ["outage"]}', ("outage",)),
        ('{"result": {"candidates": ["outage"]}}', ("outage",)),
        ('{"predictions": [{"label": "outage"}, {"label": "slow_speed"}]}', ("outage", "slow_speed")),
        ('"{\\"candidates\\": [\\"outage\\"]}"', ("outage",)),
        ('{"candidates": "[\\"outage\\"]"}', ("outage",)),
        ('{"label": "outage, slow_speed"}', ("outage", "slow_speed")),
        ("{'candidates': ['outage', 'slow_speed']}", ("outage", "slow_speed")),
        ("{candidates: [“outage”, “slow_speed”]}", ("outage", "slow_speed")),
        ('{"candidates": ["outage", "slow_speed",],}', ("outage", "slow_speed")),
        ('{"reasoning": "he says "no"", "label": "outage"}', ("outage",)),
        ('{"reasoning": "no\nnet", "label": "outage"}', ("outage",)),
        ('{"label": "outage"}\n{"label": "slow_speed"}', ("outage", "slow_speed")),
        ("<answer>outage</answer>", ("outage",)),
        ("**Answer:** `outage`", ("outage",)),
        (r"Final answer: \boxed{outage}", ("outage",)),
        ("Footnotes [1] and [2].\noutage", ("outage",)),
        ("Footnote [no idea] and {x}.\noutage", ("outage",)),
    ],
)
def test_replies_of_many_forms_are_understood(reply, labels):
    assert parse_reply(SPEC, reply).labels == labels


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ('<think>"outage"? {"candidates": ["outage"]}</think>{"candidates": ["slow_speed"]}', ("slow_speed",)),
        ('outage\nno, wait\n</think>\n\n{"label": "slow_speed"}', ("slow_speed",)),
        ("<thinking>outage</thinking> slow_speed", ("slow_speed",)),
        ("[THINK]outage[/THINK]slow_speed", ("slow_speed",)),
        (
            "<|channel|>analysis<|message|>outage<|end|><|start|>assistant<|channel|>final<|message|>slow_speed",
            ("slow_speed",),
        ),
        ("<think>one: outage</think>draft: outage<think>two: outage</think>\nslow_speed", ("slow_speed",)),
        ('{"label": "slow_speed"}\n<think>or outage?</think>', ("slow_speed",)),
        ('{"label": "slow_speed"}\n<think>or outage?', ("slow_speed",)),
        ('{"reasoning": "outage, or {\\"label\\": \\"outage\\"}", "candidates": ["slow_speed"]}', ("slow_speed",)),
        ('{"reasoning": "</think>outage", "label": "slow_speed"}', ("slow_speed",)),
        ('{"analysis": ["outage"], "label": "slow_speed"}', ("slow_speed",)),
        ('I first thought {"label": "outage"}, but no: {"label": "slow_speed"}', ("slow_speed",)),
        ('Of ["outage"] and ["billing dispute"], {"label": "slow_speed"}. See ["outage"].', ("slow_speed",)),
        ("Possible:\n- outage\n- billing dispute\n\nFinal answer: slow_speed", ("slow_speed",)),
        ("Answer: outage\nOn second thought...\nAnswer: slow_speed", ("slow_speed",)),
    ],
)
def test_what_is_thought_before_the_answer_is_not_the_answer(reply, labels):
    assert parse_reply(SPEC, reply).labels == labels


@pytest.mark.parametrize(
    ("reply", "finish_reason", "status"),
    [
        ('{"candidates": []}', "stop", Status.ABSTAINED),
        ('{"label": null}', "stop", Status.ABSTAINED),
        ('{"label": ""}', "stop", Status.ABSTAINED),
        ('{"label": "None"}', "stop", Status.ABSTAINED),
        ('{"candidates": [null]}', "stop", Status.ABSTAINED),
        ('{"reasoning": "no outage", "candidates": []}', "stop", Status.ABSTAINED),
        ('<think>outage?</think>{"candidates": []}', "stop", Status.ABSTAINED),
        ("```json\n[]\n```", "stop", Status.ABSTAINED),
        ("None.", "stop", Status.ABSTAINED),
        ("null", "stop", Status.ABSTAINED),
        ("", "stop", Status.UNPARSED),
        (" \n\t", "stop", Status.UNPARSED),
        ("", "length", Status.UNPARSED),
        ("...", "stop", Status.UNPARSED),
        ("no idea", "stop", Status.UNPARSED),
        ("it is not outage", "stop", Status.UNPARSED),
        ("{}", "stop", Status.UNPARSED),
        ("[{}]", "stop", Status.UNPARSED),
        ("42", "stop", Status.UNPARSED),
        ('{"error": "outage"}', "stop", Status.UNPARSED),
        ('{"excluded": ["outage"]}', "stop", Status.UNPARSED),
        ('{"reasoning": "outage"}', "stop", Status.UNPARSED),
        ('{"candidates": ["weather"]}', "stop", Status.UNPARSED),
        ('{"candidates": ["weather", ""]}', "stop", Status.UNPARSED),
        ('{"candidates": ["panne de r\u00e9seau"]}', "stop", Status.UNPARSED),
        ('{"label": "Ausfall"}', "stop", Status.UNPARSED),
        ("断网", "stop", Status.UNPARSED),
        ("<think>outage", "length", Status.UNPARSED),
        ("<think>outage</think>", "stop", Status.UNPARSED),
        ('{"candidates": [', "length", Status.UNPARSED),
        ('{"candidates": ["slow', "length", Status.UNPARSED),
        ('{"steps": ["outage"], "candidates": ["slow', "length", Status.UNPARSED),
        ('{"candidates": ["outage', "length", Status.UNPARSED),
        ('{"reasoning": "outage, slow_speed, [], {}', "length", Status.UNPARSED),
        ('{"candidates": ["outage", "slow', "length", Status.OK),
        ('{"candidates": ["outage", "slow', "stop", Status.OK),
        ('{"candidates": ["outage"]', "length", Status.OK),
        ('["outage", "slow', "length", Status.OK),
        ("outage, slow_sp", "length", Status.OK),
        ("I'm sorry, I can't help with that.", "stop", Status.REFUSED),
        ("I\u2019m sorry, but no.", "stop", Status.REFUSED),
        ("As an AI language model, I do not label.", "stop", Status.REFUSED),
        ("Unfortunately, I cannot do this.", "stop", Status.REFUSED),
        ("<think>it is an outage</think>I won't do this.", "stop", Status.REFUSED),
        ("I'm sorry about the outage.\noutage", "stop", Status.OK),
        ('{"candidates": ["outage"]}', "content_filter", Status.REFUSED),
        ('{"candidates": ["outage"]}', "SAFETY", Status.REFUSED),
        ("", "refusal", Status.REFUSED),
        ("[" * 100_000, "stop", Status.UNPARSED),
        ('{"label": ' * 5_000, "stop", Status.UNPARSED),
        ("9" * 10_000, "stop", Status.UNPARSED),
        ('[{"label":' * 480 + '"outage"' + "}]" * 480, "stop", Status.UNPARSED),
        ("\ud800\x00\udfff", "stop", Status.UNPARSED),
    ],
)
def test_each_reply_has_its_status(reply, finish_reason, status):
    found = parse_reply(SPEC, reply, finish_reason)
    assert found.status is status
    assert found.labels == (("outage",) if status is Status.OK else ())


TOLD = TaskSpec(labels=[{"name": name} for name in ("spam", "ham", "phishing")])


@pytest.mark.parametrize(
    "reply",
    [
        '{"spam": "no", "ham": "yes"}',
        '{"spam": "false", "ham": "true", "phishing": "N"}',
        '{"spam": "Unlikely.", "ham": "Likely", "phishing": "none"}',
        '{"candidates": {"spam": "no", "ham": "yes"}}',
        '{"candidates": {"spam": "no", "ham": "yes", "reasoning": "a greeting"}}',
        'So: {"spam": "no", "ham": "yes"}',
        '{"spam": "0", "ham": "1"}',
        '{"spam": "0.0", "ham": "0.9"}',
        '{"spam": "0 %", "ham": "90 %"}',
        '{"spam": {"applies": false}, "ham": {"applies": true}}',
        '{"spam": {"score": 0}, "ham": {"score": 0.9}}',
        '{"candidates": [{"label": "spam", "applies": false}, {"label": "ham", "applies": true}]}',
        '[{"label": "spam", "possible": "no"}, {"label": "ham", "possible": "yes"}]',
        '[{"label": "spam", "include": 0}, {"label": "ham", "include": 1}]',
        '[{"label": "spam", "answer": "no"}, {"label": "ham", "answer": "yes"}]',
        '{"candidates": ["spam: no", "ham: yes"]}',
        '{"label": "spam: no, ham: yes"}',
        "spam: no\nham: yes",
        "spam: no, ham: yes",
        "- **spam:** No.\n- **ham:** Yes.",
        "1. spam (no)\n2. ham (yes)",
        "spam (unwanted mail): no, since it greets\nham (wanted mail): yes",
        "Answer:\nspam: 0\nham: 1",
    ],
)
def test_a_label_to_which_the_teacher_says_no_is_no_candidate(reply):
    assert parse_reply(TOLD, reply).labels == ("ham",)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ('{"spam": "low", "ham": "high", "phishing": "none"}', Status.UNPARSED),
        ('{"spam": "no", "ham": "maybe"}', Status.UNPARSED),
        ('{"candidates": {"spam": "", "ham": "?"}}', Status.UNPARSED),
        ("spam: no and ham: yes", Status.UNPARSED),
        ("spam: no\nham: no", Status.UNPARSED),
        ('{"spam": "no", "ham": "no"}', Status.ABSTAINED),
        ('{"label": "spam", "applies": false}', Status.ABSTAINED),
    ],
)
def test_what_is_said_of_labels_is_not_guessed(reply, status):
    assert parse_reply(TOLD, reply) == CandidateSet(status=status)


@pytest.mark.parametrize(
    ("reply", "labels"),
    [
        ("outage: no service since Monday", ("outage",)),
        ("outage: none of the routers answers", ("outage",)),
        ("outage: 0.9", ("outage",)),
        ("outage (no service)", ("outage",)),
        ('{"label": "outage", "ambiguous": false}', ("outage",)),
        ('{"label": "outage", "possible": null}', ("outage",)),
        ('{"outage": {"reason": "no service"}}', ("outage",)),
        ('{"outage": "0.2", "slow_speed": "0.8"}', ("slow_speed", "outage")),
        ('{"outage": "20%", "slow_speed": "80%"}', ("slow_speed", "outage")),
    ],
)
def test_a_no_that_is_not_about_the_label_takes_nothing_away(reply, labels):
    assert parse_reply(SPEC, reply).labels == labels


@pytest.mark.parametrize("n_nested", [20, 30, 60, 200])
def test_a_nested_reply_means_the_same_however_deep_in_the_program_it_is_read(n_nested):
    reply = '[{"label":' * n_nested + '"outage"' + "}]" * n_nested

    def below(n_frames: int) -> CandidateSet:
        return below(n_frames - 1) if n_frames else parse_reply(SPEC, reply)

    assert below(sys.getrecursionlimit() - len(inspect.stack()) - 200) == parse_reply(SPEC, reply)


def test_a_cut_name_that_may_be_a_shorter_label_does_not_count():
    spec = TaskSpec(labels=[{"name": "card"}, {"name": "card lost"}, {"name": "refund"}])
    assert parse_reply(spec, "refund\ncard", "length").labels == ("refund",)
    assert parse_reply(spec, "refund\ncard", "stop").labels == ("refund", "card")
    assert parse_reply(spec, "refund\ncard\n", "length").labels == ("refund", "card")
    assert parse_reply(spec, "card\nrefund", "length").labels == ("card", "refund")
    assert parse_reply(spec, '{"candidates": ["refund", "card', "length").labels == ("refund",)


@pytest.mark.parametrize(
    ("names", "reply", "labels"),
    [
        (("C", "C++", "C#"), '["c#", "C++"]', ("C#", "C++")),
        (("C++", "Java"), '["C#", "C", "java"]', ("Java",)),
        (("-1", "0", "+1"), '["1"]', ()),
        (("-1", "0", "+1"), '["-1", 0]', ("-1", "0")),
        (("<5", "5-10"), '[">5", "5 - 10"]', ("5-10",)),
        (("yes", "no"), '{"label": "No."}', ("no",)),
        (("True", "False"), '{"label": true}', ("True",)),
        (("1", "2"), '{"candidates": [2, 1]}', ("2", "1")),
        (("none", "spam"), '{"label": "None"}', ("none",)),
        (
            ("food, drinks", "terms and conditions"),
            "terms and conditions\nfood, drinks",
            ("terms and conditions", "food, drinks"),
        ),
        (("\u0915\u0940", "x"), '["\u0915\u093e"]', ()),
        (("\U0001f44d", "\U0001f44e"), '["\U0001f44e\ufe0f"]', ("\U0001f44e",)),
        (("smoker: no", "smoker: yes"), "Smoker: No", ("smoker: no",)),
        (("smoker", "smoker (no)"), '["smoker (no)"]', ("smoker (no)",)),
        (("yes", "no"), '{"label": "yes", "match": "no"}', ("yes",)),
        (("a_b", "a-b"), '["a-b"]', ("a-b",)),
        (("a_b", "a-b"), '["a b"]', ()),
    ],
)
def test_labels_that_look_alike_keep_apart(names, reply, labels):
    assert parse_reply(TaskSpec(labels=[{"name": name} for name in names]), reply).labels == labels


def test_scores_come_along_when_every_label_has_one():
    reply = '{"candidates": [{"label": "outage", "score": 0.75}, {"label": "slow_speed", "score": 0.25}]}'
    assert parse_reply(SPEC, reply).scores == (0.75, 0.25)
    assert parse_reply(SPEC, '{"candidates": [{"label": "outage", "score": NaN}]}').scores is None
