"""No reply raises, takes long, or yields anything but known labels, over many thousands of generated ones."""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from candist_core.candidates import CandidateSet, Status
from candist_core.parse import parse_reply
from candist_core.spec import TaskSpec
from tests.core.replies import KINDS, NAMES, SPEC, Generated, replies

IS_FULL = os.environ.get("CANDIST_FULL") == "1"
N_REPLIES = 120_000 if IS_FULL else 3_000
SEED = 20_260_711


def fault_of(given: Generated, found: CandidateSet) -> str | None:
    """What is wrong with a set, whatever the reply."""
    if not isinstance(found.status, Status) or found.status is Status.FAILED:
        return f"status {found.status!r}"
    if not set(found.labels) <= set(NAMES):
        return "an unknown label"
    if len(set(found.labels)) != len(found.labels):
        return "a label twice"
    if (found.status is Status.OK) != bool(found.labels):
        return f"status {found.status} with {len(found.labels)} labels"
    if found.scores is not None and len(found.scores) != len(found.labels):
        return "scores that do not fit"
    if found.scores is not None and not all(abs(score) < float("inf") for score in found.scores):
        return "a score that is no number"
    if given.labels is not None and found.labels != given.labels:
        return f"labels {found.labels} for {given.labels}"
    if given.status is not None and found.status is not given.status:
        return f"status {found.status} for {given.status}"
    return None


def long_replies(n_chars: int) -> Iterator[Generated]:
    """Replies that make a careless reader slow: each about n_chars long."""
    pieces = {
        "open lists": "[", "open objects": '{"a":', "answers without end": '{"label": ', "lists": '["a"],',
        "answers": '["outage"],', "objects": '{"label":"x"} ', "good objects": '{"label":"outage"},', "commas": ",",
        "short pieces": "a,", "short lines": "a\n", "quotes": '"', "keys": '"label": ', "open values": '"label": "',
        "open thoughts": "<think>", "closed thoughts": "</think>", "empty thoughts": "<think></think>", "angles": "<",
        "tags": "<a ", "blanks": " ", "bracket and blanks": "[" + " " * 500, "stars": "*", "marks": "\u0301\u0327",
        "digits": "9", "numbering": "1. ", "open reasoning": '"reasoning": "', "fences": "```", "leads": "answer ",
        "ands": "and or ", "sorry": "i'm sorry", "escapes": '\\"', "surrogates": "\ud800", "labels": "outage\n",
        "numbered labels": "1. outage, ", "open brace": '{"', "channels": "<|channel|>analysis", "zero width": "\u200b",
        "right to left": "\u202eخدمة ", "citations": "[1] ",
    }  # fmt: skip
    for name, piece in pieces.items():
        body = piece * (n_chars // len(piece))
        for before, after in (
            ("", ""),
            ('["', "x"),
            ('{"candidates": [', "]}"),
            ('{"reasoning": "', '", "label": "C"}'),
        ):
            yield Generated(f"{name} after {before!r}", before + body + after, "stop")
    deep_fail = '["a",' * 900
    yield Generated("deep, then long", deep_fail + '"a",' * ((n_chars - len(deep_fail)) // 4), "length")
    yield Generated("whole list", "[" + '"a",' * (n_chars // 4) + '"outage"]', "stop")
    yield Generated("many keys", "{" + ",".join(f'"{i}. outage": 1' for i in range(n_chars // 18)) + "}", "stop")


@pytest.mark.slow
def test_thousands_of_odd_replies_each_give_known_labels_once_and_the_same_each_time():
    faults: list[tuple[str, str, str]] = []
    statuses: Counter[str] = Counter()
    seen: dict[str, set[tuple[str, CandidateSet]]] = defaultdict(set)
    slowest = (0.0, "")
    for given in replies(N_REPLIES, SEED):
        started = time.thread_time()
        found = parse_reply(SPEC, given.reply, given.finish_reason)
        slowest = max(slowest, (time.thread_time() - started, given.kind))
        fault = fault_of(given, found)
        if parse_reply(SPEC, given.reply, given.finish_reason) != found:
            fault = "not the same twice"
        if fault:
            faults.append((given.kind, fault, ascii(given.reply[:300])))
        statuses[found.status] += 1
        seen[given.kind].add((given.reply, found))
    print(f"{N_REPLIES} replies: {dict(statuses)}, the slowest {1000 * slowest[0]:.1f} ms ({slowest[1]})")
    assert not faults, (len(faults), faults[:5])
    assert slowest[0] < 0.5, slowest
    # Generators that always made the same, or a reader that always answers the same, would stand out here.
    assert sum(statuses.values()) == N_REPLIES
    # No reply at all, and a text that nobody was asked about.
    unheard = (Status.FAILED, Status.UNREAD)
    assert all(statuses[status] > 0.02 * N_REPLIES for status in Status if status not in unheard), statuses
    assert 0.4 * N_REPLIES < statuses[Status.OK] < 0.8 * N_REPLIES, statuses
    assert set(seen) == set(KINDS)
    assert {name for name, pairs in seen.items() if len(pairs) < 4} == set()


@pytest.mark.slow
def test_no_long_reply_takes_long():
    times: dict[str, float] = {}
    for given in long_replies(1_000_000 if IS_FULL else 120_000):
        started = time.thread_time()
        found = parse_reply(SPEC, given.reply, given.finish_reason)
        times[given.kind] = time.thread_time() - started
        assert fault_of(given, found) is None, given.kind
    slowest = max(times, key=times.__getitem__)
    print(f"{len(times)} long replies, the slowest {1000 * times[slowest]:.0f} ms ({slowest})")
    # A quadratic search takes minutes.
    assert times[slowest] < 1.5, slowest


@pytest.mark.parametrize(
    "whole",
    [
        {"candidates": ["outage", "C++", "slow_speed", "R&D, other"]},
        {"reasoning": 'outage, or {"label": "C"}? Not "C": ["C"], label: \'C\'', "candidates": ["Größe", "outage"]},
        {"candidates": ["weather", "outage", "料金の問題"], "note": "C"},
        {"reasoning": "C\nC\n", "label": "outage_planned"},
    ],
)
def test_json_cut_anywhere_holds_the_names_that_were_written_whole(whole):
    text = json.dumps(whole, ensure_ascii=False)
    names = whole.get("candidates") or [whole["label"]]
    begin = text.index("candidates" if "candidates" in whole else 'label": "out')
    ends = {name: text.index(f'"{name}"', begin) + len(name) + 2 for name in names if name in NAMES}
    for at in range(len(text)):
        for finish_reason in ("length", "stop"):
            found = parse_reply(SPEC, text[:at], finish_reason)
            assert found.labels == tuple(name for name, end in ends.items() if end <= at), text[:at]
            assert found.status is (Status.OK if found.labels else Status.UNPARSED), text[:at]


def test_bytes_cut_within_a_character_are_read_as_far_as_they_go():
    data = json.dumps({"candidates": ["Größe", "料金の問題"]}, ensure_ascii=False).encode()
    found = [parse_reply(SPEC, data[:at].decode("utf-8", "replace"), "length").labels for at in range(len(data) + 1)]
    assert sorted(set(found), key=len) == [(), ("Größe",), ("Größe", "料金の問題")]
    assert [len(labels) for labels in found] == sorted(len(labels) for labels in found)


def test_a_large_label_set_is_read_as_fast_as_a_small_one():
    spec = TaskSpec(labels=[{"name": f"label number {i}"} for i in range(5_000)])
    parse_reply(spec, "{}")
    started = time.thread_time()
    for i in range(200):
        assert parse_reply(spec, f'{{"candidates": ["Label-Number-{i}"]}}').labels == (f"label number {i}",)
    assert time.thread_time() - started < 0.5
