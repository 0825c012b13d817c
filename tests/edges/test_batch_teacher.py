import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from candist_core.annotate import annotate
from candist_core.batch import BatchPace, read_results
from candist_core.budget import Price
from candist_core.config import Location
from candist_core.edges.batch_teacher import BatchTeacher, open_batch_teacher
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import open_store
from candist_core.errors import RowError, TeacherError, TransientError
from candist_core.pace import Patience
from candist_core.ports import Quotas, Reply
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig
from tests import fakes
from tests.batch_server import BatchServer, Plan, lost, missing, unfinished
from tests.fakes import first_label, user_text

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))
KEY = "sk-very-secret-0123456789"
HASTE = BatchPace(quiet_s=0.01, poll_s=0.002, max_poll_s=0.01, settle_s=0.05, max_silence_s=2.0)
SPAM = '{"candidates": ["spam"]}'


def config_of(base_url):
    return TeacherConfig(base_url=base_url, model="gpt-4o-mini", mode="batch", timeout_s=5.0, max_attempts=5)


def requests_of(base_url, texts):
    prompt = compile_prompt(SPEC, config_of(base_url))
    return [prompt.request(text, text) for text in texts]


def teacher_of(base_url, folder, *, name="shard-0", price=None, pace=HASTE, **settings):
    store = open_store(Location(uri=str(folder)))
    return BatchTeacher(config_of(base_url), KEY, price, store, name, pace=pace, **settings)


def ask(base_url, folder, texts, *, until=None, **settings):
    """Replies and errors by text; with `until` the run is interrupted as soon as that is true."""

    async def once():
        teacher = teacher_of(base_url, folder, **settings)
        asked = {text: asyncio.create_task(teacher.ask(request)) for text, request in
                 zip(texts, requests_of(base_url, texts), strict=True)}  # fmt: skip
        try:
            while until and not until():
                await asyncio.sleep(0.002)
            if not until:
                await asyncio.wait(asked.values())
            for task in asked.values():
                task.cancel()
            found = await asyncio.gather(*asked.values(), return_exceptions=True)
        finally:
            await teacher.close()
        return dict(zip(texts, found, strict=True))

    return asyncio.run(once())


def is_polled(server):
    """Whether a batch has been looked at twice."""
    return lambda: server.calls["retrieve"] >= 2


def label(base_url, folder, texts, *, name="shard-0", before_close=lambda: None, **settings):
    """The whole way: annotate over a store's reply log; statuses by text."""
    frame = pl.DataFrame({"doc_id": texts, "text": texts})

    async def once():
        teacher = teacher_of(base_url, folder, name=name, **settings)
        prompt = compile_prompt(SPEC, config_of(base_url))
        log = StoreReplyLog(open_store(Location(uri=str(folder))), prompt.head.fingerprint, name, folder / "spool")
        try:
            try:
                result = await annotate(
                    frame, SPEC, prompt, teacher, log, TeacherConfig(mode="batch", max_attempts=5),
                    patience=Patience(base_s=0.001, cap_s=0.002, max_pause_s=5.0),
                )  # fmt: skip
            finally:
                log.close()
            before_close()
        finally:
            await teacher.close()
        return result

    return asyncio.run(once())


def texts_of(n, start=0):
    return [f"text {i}" for i in range(start, start + n)]


def records(folder):
    return sorted(Path(folder).glob("batches/*/*/*.json"))


def kept_records(server, folder):
    """Every record as it stood when a batch was last looked at, by path; filled while runs go on."""
    kept = {}

    def keep(when):
        kept.update({path: path.read_bytes() for path in records(folder)})

    server.hooks["retrieve"] = keep
    return kept


def keys_of(server, texts):
    return {request.key for request in requests_of(server.base_url, texts)}


@pytest.fixture
def server():
    with BatchServer() as server:
        yield server


def test_requests_asked_together_travel_as_one_batch_and_each_gets_its_own_reply(tmp_path):
    def answer(body):
        return json.dumps({"candidates": [user_text(body)]})

    with BatchServer(answer, cached_tokens=100) as server:
        found = ask(server.base_url, tmp_path, texts_of(20), price=Price(2.0, 1.0, 8.0))
        assert server.sizes == [20]
        assert server.calls["upload"] == server.calls["create"] == 1
        bodies = list(server.bodies.values())
    for text, reply in found.items():
        assert reply.reply == json.dumps({"candidates": [text]})
        assert (reply.doc_id, reply.finish_reason, reply.cached_tokens) == (text, "stop", 100)
        usd = ((reply.prompt_tokens - 100) * 2 + 100 * 1 + len(reply.reply) * 8) / 1e6
        assert reply.cost_usd == pytest.approx(usd)
        assert reply.latency_s == 90.0
    assert {body["model"] for body in bodies} == {"gpt-4o-mini"}
    assert not records(tmp_path)


def test_the_custom_ids_are_the_request_keys_and_the_key_stands_in_the_header_alone(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    ask(server.base_url, tmp_path, ["one secret text"])
    assert set(server.created) == keys_of(server, ["one secret text"])
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in caplog.text
    assert "one secret text" not in caplog.text


def test_the_teacher_has_the_live_teachers_name_and_no_quotas(tmp_path):
    teacher = teacher_of("http://127.0.0.1:9/v1", tmp_path)
    assert (teacher.name, teacher.quotas) == ("openai:gpt-4o-mini", Quotas())


def test_a_batch_holds_no_more_requests_than_it_may(server, tmp_path):
    found = ask(server.base_url, tmp_path, texts_of(7), max_requests=3)
    assert server.sizes == [3, 3, 1]
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert max(server.created.values()) == 1


def test_a_batch_holds_no_more_bytes_than_it_may(server, tmp_path, monkeypatch):
    ask(server.base_url, tmp_path, texts_of(1))
    line_bytes = len(server.files["file-0"])
    monkeypatch.setattr("candist_core.edges.batch_teacher._MAX_BYTES", 2 * line_bytes)
    ask(server.base_url, tmp_path, texts_of(5, start=1))
    assert server.sizes == [1, 2, 2, 1]


def test_a_request_that_comes_before_the_quiet_time_is_over_joins_the_batch(server, tmp_path):
    async def once():
        teacher = teacher_of(server.base_url, tmp_path, pace=replace(HASTE, quiet_s=0.1))
        first, second = requests_of(server.base_url, ["first", "second"])
        one = asyncio.create_task(teacher.ask(first))
        await asyncio.sleep(0.05)
        await asyncio.gather(one, teacher.ask(second), teacher.ask(second))
        await teacher.close()

    asyncio.run(once())
    assert server.sizes == [2]


@pytest.mark.parametrize("route", ["retrieve", "content"])
def test_a_request_given_up_and_asked_anew_waits_for_the_batch_it_is_in(server, tmp_path, route):
    server.plans.append(Plan(["validating", *["in_progress"] * 5, "completed"]))

    async def once():
        teacher = teacher_of(server.base_url, tmp_path)
        (request,) = requests_of(server.base_url, ["one"])
        one = asyncio.create_task(teacher.ask(request))
        while server.calls["retrieve"] < 2:
            await asyncio.sleep(0.005)
        one.cancel()
        while server.calls[route] < 1:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        again = await teacher.ask(request)
        await teacher.close()
        return again

    assert isinstance(asyncio.run(once()), Reply)
    assert server.sizes == [1]
    assert not records(tmp_path)


def test_a_request_given_up_before_its_collection_closes_is_not_submitted(server, tmp_path):
    ask(server.base_url, tmp_path, texts_of(2), until=lambda: True, pace=replace(HASTE, quiet_s=0.1))

    async def once():
        teacher = teacher_of(server.base_url, tmp_path, pace=replace(HASTE, quiet_s=0.1))
        given_up, kept = (asyncio.create_task(teacher.ask(r)) for r in requests_of(server.base_url, texts_of(2)))
        await asyncio.sleep(0.02)
        given_up.cancel()
        await kept
        await teacher.close()

    asyncio.run(once())
    assert server.sizes == [1]


def test_requests_of_two_models_travel_in_two_files(server, tmp_path):
    requests = requests_of(server.base_url, texts_of(4))
    other = replace(requests[0].head, model="gpt-4.1-nano", fingerprint="f" * 32)
    requests = [replace(request, head=other) if i % 2 else request for i, request in enumerate(requests)]

    async def once():
        teacher = teacher_of(server.base_url, tmp_path)
        await asyncio.gather(*(teacher.ask(request) for request in requests))
        await teacher.close()

    asyncio.run(once())
    assert server.sizes == [2, 2]
    assert Counter(body["model"] for body in server.bodies.values()) == {"gpt-4o-mini": 2, "gpt-4.1-nano": 2}


def test_close_cancels_whoever_still_waits(server, tmp_path):
    async def once():
        teacher = teacher_of(server.base_url, tmp_path, pace=replace(HASTE, quiet_s=60.0))
        asked = asyncio.create_task(teacher.ask(requests_of(server.base_url, ["one"])[0]))
        await asyncio.sleep(0.01)
        await teacher.close()
        await asyncio.wait([asked], timeout=1)
        return asked.cancelled()

    assert asyncio.run(once())
    assert not server.calls


def test_an_expired_batch_gives_what_it_finished_and_only_the_rest_is_asked_again(server, tmp_path):
    server.plans.append(
        Plan(("validating", "in_progress", "expired"), lambda i, body: [None, unfinished(), missing()][i % 3])
    )
    result = label(server.base_url, tmp_path, texts_of(9))
    assert result.annotations["status"].to_list() == ["ok"] * 9
    assert server.sizes == [9, 6]
    assert set(server.paid.values()) == {1}
    assert result.usage.n_requests == 9
    assert not records(tmp_path)


@pytest.mark.parametrize(
    "states", [("validating", "cancelled"), ("validating", "cancelling", "cancelled"), ("failed",)]
)
def test_a_batch_that_ends_without_results_is_asked_again(server, tmp_path, states):
    server.plans.append(Plan(states, lambda i, body: unfinished()))
    assert label(server.base_url, tmp_path, texts_of(3)).annotations["status"].to_list() == ["ok"] * 3
    assert server.sizes == [3, 3]


def test_a_batch_cancelled_by_hand_gives_what_it_finished(server, tmp_path):
    server.plans.append(Plan(("validating", "in_progress"), lambda i, body: unfinished() if i else None))

    def cancel(when):
        if when == "before" and server.calls["retrieve"] == 3:
            server.batches["batch_0"].plan = Plan(("cancelled",), server.batches["batch_0"].plan.line)

    server.hooks["retrieve"] = cancel
    result = label(server.base_url, tmp_path, texts_of(4))
    assert result.annotations["status"].to_list() == ["ok"] * 4
    assert server.sizes == [4, 3]
    assert set(server.paid.values()) == {1}


def test_a_line_that_is_refused_rejects_its_row_and_no_other(server, tmp_path):
    refused = fakes.status(400, code="context_length_exceeded", message=f"too long {KEY}")
    server.plans.append(Plan(line=lambda i, body: refused if i == 1 else None))
    found = ask(server.base_url, tmp_path, texts_of(3))
    error = found["text 1"]
    assert isinstance(error, RowError)
    assert error.reason == "context_length_exceeded"
    assert KEY not in str(error)
    assert isinstance(found["text 0"], Reply)
    assert isinstance(found["text 2"], Reply)
    assert not records(tmp_path)


@pytest.mark.parametrize("step", [fakes.status(500), fakes.status(429, code="rate_limit_exceeded"), fakes.raw("{oh"),
                                  fakes.raw('{"custom_id": 7, "response": []}'), fakes.raw("[" * 100_000)])  # fmt: skip
def test_a_line_that_failed_for_a_while_or_cannot_be_read_is_asked_again(server, tmp_path, step):
    server.plans.append(Plan(line=lambda i, body: step if i == 0 else None))
    result = label(server.base_url, tmp_path, texts_of(3))
    assert result.annotations["status"].to_list() == ["ok"] * 3
    assert server.sizes == [3, 1]
    assert not records(tmp_path)


@pytest.mark.parametrize("step", [fakes.status(429, code="rate_limit_exceeded"), fakes.status(503), unfinished()])
def test_a_request_that_was_not_done_asks_for_another_attempt_and_not_for_a_pause(server, tmp_path, step):
    server.plans.append(Plan(line=lambda i, body: step))
    (error,) = ask(server.base_url, tmp_path, ["one"]).values()
    assert type(error) is TransientError


def test_results_under_foreign_keys_or_a_second_time_change_nothing(server, tmp_path):
    (request,) = requests_of(server.base_url, ["text 1"])
    body = {"choices": [{"message": {"content": "evil"}}]}
    lines = [json.dumps({"custom_id": key, "response": {"status_code": 200, "body": body}})
             for key in ("no-such-key", request.key)]  # fmt: skip
    # The server writes its lines backwards: the last of these stands behind the good one.
    server.plans.append(
        Plan(line=lambda i, body: fakes.raw(lines[i]) if i < 2 and user_text(body) != "text 1" else None)
    )
    found = ask(server.base_url, tmp_path, ["text 9", "text 8", "text 1"])
    assert found["text 1"].reply == SPAM
    assert isinstance(found["text 9"], TransientError)


def test_results_are_read_for_the_keys_of_their_batch_alone():
    line = b'{"custom_id": "%s", "response": {"status_code": 200, "body": {}}}\n'
    assert set(read_results(line % b"a" + b"\n[]\n7\n\xff\n" + line % b"b", {"b"})) == {"b"}


def test_quota_used_up_inside_a_batch_ends_the_run_and_what_is_paid_is_kept(server, tmp_path):
    spent = fakes.status(429, code="insufficient_quota")
    server.plans.append(Plan(line=lambda i, body: spent if i < 5 else None))
    with pytest.raises(TeacherError, match="no quota left"):
        label(server.base_url, tmp_path, texts_of(20))
    assert label(server.base_url, tmp_path, texts_of(20)).usage.n_reused == 15
    assert server.sizes == [20, 5]
    assert set(server.paid.values()) == {1}


def test_a_batch_that_fails_its_validation_ends_the_run_with_the_providers_words_cut_short(server, tmp_path):
    told = [("invalid_body", f"no such model {KEY} " + 1000 * "x")]
    server.plans.append(Plan(("validating", "failed"), errors=told))
    with pytest.raises(TeacherError, match=r"invalid_body: no such model \[key\]") as caught:
        label(server.base_url, tmp_path, texts_of(3))
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert not records(tmp_path)
    # Whatever was wrong may be mended: the next run tries anew.
    assert label(server.base_url, tmp_path, texts_of(3)).annotations["status"].to_list() == ["ok"] * 3


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (401, "invalid_api_key", "OPENAI_API_KEY"), (403, None, "OPENAI_API_KEY"), (404, None, "teacher.mode to live"),
        (405, None, "teacher.mode to live"), (302, None, "teacher.mode to live"), (402, None, "no quota left"),
        (429, "insufficient_quota", "no quota left"), (400, "model_not_found", "model_not_found"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["upload", "create"])
def test_a_refusal_for_good_ends_the_run_at_once_and_leaves_no_record(server, tmp_path, route, number, code, words):
    server.faults[route].append(fakes.status(number, code=code, message=f"no {KEY}", location="http://127.0.0.1:9/x"))
    with pytest.raises(TeacherError, match=words) as caught:
        label(server.base_url, tmp_path, texts_of(3))
    shown = [text for error in chain_of(caught.value) for text in (str(error), repr(error))]
    assert KEY not in " ".join(shown)
    assert server.calls[route] == 1
    assert not server.created
    assert not records(tmp_path)


def test_a_batch_that_is_forbidden_is_no_fault_of_its_texts_however_few_they_are(server, tmp_path):
    label(server.base_url, tmp_path, texts_of(5))
    server.faults["create"].append(fakes.status(403))
    with pytest.raises(TeacherError, match="OPENAI_API_KEY"):
        label(server.base_url, tmp_path, texts_of(6))


@pytest.mark.parametrize("step", [fakes.status(500), fakes.status(429), fakes.cut(), fakes.page(502), fakes.page(),
                                  fakes.raw("{}"), fakes.raw("[1]")])  # fmt: skip
@pytest.mark.parametrize("route", ["upload", "create", "retrieve"])
def test_passing_troubles_of_any_call_are_waited_out(server, tmp_path, route, step):
    server.faults[route].extend([step, step])
    found = ask(server.base_url, tmp_path, texts_of(3))
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert set(server.created.values()) == {1}
    assert not records(tmp_path)


@pytest.mark.parametrize("step", [fakes.status(500), fakes.status(429), fakes.cut()])
def test_passing_troubles_of_a_download_are_waited_out(server, tmp_path, step):
    server.faults["content"].extend([step, step])
    assert isinstance(ask(server.base_url, tmp_path, texts_of(1))["text 0"], Reply)
    assert server.calls["content"] == 3


def test_retry_after_is_obeyed(server, tmp_path):
    server.faults["retrieve"].append(fakes.status(429, retry_after="0.2"))
    started_at = time.monotonic()
    ask(server.base_url, tmp_path, texts_of(1))
    assert time.monotonic() - started_at > 0.2


@pytest.mark.parametrize(("step", "words"), [(fakes.status(503), "HTTP 503"), (fakes.cut(), "")])
def test_an_endpoint_that_stays_silent_fails_the_requests_and_their_batch_is_taken_up_when_it_speaks(
    server, tmp_path, step, words
):
    server.faults["retrieve"].extend([step] * 30)
    pace = replace(HASTE, max_silence_s=0.05)

    async def once():
        teacher = teacher_of(server.base_url, tmp_path, pace=pace)
        (request,) = requests_of(server.base_url, ["one"])
        with pytest.raises(TransientError, match=rf"no success for 0\.05 s, last: {words}") as caught:
            await teacher.ask(request)
        # What the client raised may quote the key.
        assert {type(error) for error in chain_of(caught.value)} == {TransientError}
        server.faults["retrieve"].clear()
        reply = await teacher.ask(request)
        await teacher.close()
        return reply

    assert isinstance(asyncio.run(once()), Reply)
    assert server.sizes == [1]


def test_a_create_whose_answer_is_lost_makes_one_batch_only(server, tmp_path):
    server.faults["create"].append(lost())
    found = ask(server.base_url, tmp_path, texts_of(4))
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert server.sizes == [4]
    assert server.calls["upload"] == 1
    assert not records(tmp_path)


def test_a_lost_create_is_found_again_also_when_the_list_fails_for_a_while_and_has_many_pages(tmp_path):
    with BatchServer(page=2) as server:
        for i in range(5):
            ask(server.base_url, tmp_path / "other", texts_of(1, start=100 + i))
        server.faults["create"].append(lost())
        server.hooks["create"] = lambda when: make_others(server) if when == "after" else None
        server.faults["list"].extend([fakes.status(500), fakes.cut()])
        ask(server.base_url, tmp_path, texts_of(4))
        assert server.created.total() == 9
        # Two that failed, then three pages of two: five newer batches stand before it.
        assert server.calls["list"] == 2 + 3
    assert not records(tmp_path)


def make_others(server):
    """Batches of someone else, newer than any."""
    for i in range(5):
        other = replace(next(iter(server.batches.values())), id=f"other_{i}", metadata={})
        server.batches[other.id] = other


def test_a_full_queue_is_waited_for_until_batches_of_ones_own_are_done(tmp_path):
    with BatchServer(queue_limit=4) as server:
        server.plans.append(Plan(["validating", *["in_progress"] * 5, "completed"]))
        found = ask(server.base_url, tmp_path, texts_of(8), max_requests=4)
        assert set(server.sizes) == {4}
        assert len(server.sizes) > 2
        assert server.created.total() == 8
        assert server.calls["upload"] == 2
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert not records(tmp_path)


def test_a_batch_too_large_for_an_empty_queue_is_cut_smaller(tmp_path):
    with BatchServer(queue_limit=3) as server:
        found = ask(server.base_url, tmp_path, texts_of(8))
        assert server.sizes[:4] == [8, 8, 4, 2]
        assert set(server.created.values()) == {1}
        assert len(server.created) == 8
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert not records(tmp_path)


def test_batches_grow_again_once_the_queue_has_room(tmp_path):
    async def once(server):
        teacher = teacher_of(server.base_url, tmp_path)
        requests = requests_of(server.base_url, texts_of(100))
        await asyncio.gather(*(teacher.ask(request) for request in requests[:8]))
        server.queue_limit, n_before = None, len(server.sizes)
        await asyncio.gather(*(teacher.ask(request) for request in requests[8:]))
        await teacher.close()
        return server.sizes[n_before:]

    with BatchServer(queue_limit=1) as server:
        sizes = asyncio.run(once(server))
    assert sum(sizes) == 92
    assert len(sizes) < 10


def test_a_full_queue_seen_after_a_silence_is_waited_for_too(server, tmp_path):
    full = [("token_limit_exceeded", "Enqueued token limit reached")]
    server.plans.append(Plan(("validating", "failed"), errors=full))
    server.faults["retrieve"].extend([fakes.status(503)] * 30)
    server.hooks["retrieve"] = lambda when: server.faults["retrieve"].clear() if server.calls["retrieve"] > 5 else None
    pace = replace(HASTE, max_silence_s=0.02)
    result = label(server.base_url, tmp_path, texts_of(2), pace=pace)
    assert result.annotations["status"].to_list() == ["ok"] * 2
    assert server.sizes == [2, 2]


def test_a_queue_too_small_for_one_request_fails_it_for_a_while(tmp_path):
    with BatchServer(queue_limit=0) as server:
        found = ask(server.base_url, tmp_path, texts_of(1))
    assert isinstance(found["text 0"], TransientError)
    assert not records(tmp_path)


def test_an_interrupted_run_leaves_its_batch_to_the_next_whatever_its_shard_is_called(server, tmp_path):
    server.plans.append(Plan(["validating", *["in_progress"] * 15, "completed"]))
    found = ask(server.base_url, tmp_path, texts_of(10), until=is_polled(server))
    assert all(isinstance(error, asyncio.CancelledError) for error in found.values())
    assert len(records(tmp_path)) == 1
    # The shards are cut anew: half of the old one, and something else.
    result = label(server.base_url, tmp_path, texts_of(10, start=5), name="other-0")
    assert result.annotations["status"].to_list() == ["ok"] * 10
    assert server.sizes == [10, 5]
    # The other half has been delivered to nobody.
    assert len(records(tmp_path)) == 1
    ask(server.base_url, tmp_path, texts_of(5), name="other-1")
    assert server.sizes == [10, 5]


def test_results_that_a_run_asks_for_only_later_are_not_submitted_again(server, tmp_path):
    server.plans.append(Plan(["validating", *["in_progress"] * 10, "completed"]))
    ask(server.base_url, tmp_path, texts_of(2), until=is_polled(server))

    async def once():
        teacher = teacher_of(server.base_url, tmp_path)
        replies = [await teacher.ask(request) for request in requests_of(server.base_url, texts_of(2))]
        await teacher.close()
        return replies

    assert all(isinstance(reply, Reply) for reply in asyncio.run(once()))
    assert server.sizes == [2]
    assert not records(tmp_path)


def test_a_record_of_another_endpoint_or_in_another_form_is_left_alone(server, tmp_path):
    with BatchServer(plans=[Plan(["validating", "in_progress"])]) as elsewhere:
        ask(elsewhere.base_url, tmp_path, texts_of(2), until=is_polled(elsewhere))
        (path,) = records(tmp_path)
    (path.parent / "odd.json").write_text('{"keys": "all"}')
    found = ask(server.base_url, tmp_path, texts_of(2))
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert records(tmp_path) == sorted([path, path.parent / "odd.json"])


@pytest.mark.parametrize("old_name", ["a.json", "z.json"])
def test_a_request_in_two_records_waits_for_the_later_batch(server, tmp_path, old_name):
    kept = kept_records(server, tmp_path)
    server.plans.append(Plan(("validating", "expired"), lambda i, body: None if i else unfinished()))
    label(server.base_url, tmp_path, texts_of(2))
    assert server.sizes == [2, 1]
    old, new = sorted(kept.items(), key=lambda pair: json.loads(pair[1])["created_at"])
    folder = tmp_path / "next" / old[0].parent.relative_to(tmp_path)
    folder.mkdir(parents=True)
    (folder / old_name).write_bytes(old[1])
    (folder / "m.json").write_bytes(new[1])
    server.batches["batch_1"].plan, server.batches["batch_1"].n_looks = Plan([*["in_progress"] * 9, "completed"]), 0
    found = ask(server.base_url, tmp_path / "next", texts_of(2))
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert server.sizes == [2, 1]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(line=lambda i, body: fakes.status(429, code="insufficient_quota") if i < 5 else None),
        Plan(("validating", "failed"), errors=[("billing_hard_limit_reached", "no")]),
    ],
)
def test_what_an_account_was_refused_before_a_crash_is_tried_again_after_it(server, tmp_path, plan):
    kept = kept_records(server, tmp_path)
    server.plans.append(plan)
    with pytest.raises(TeacherError):
        label(server.base_url, tmp_path, texts_of(20))
    for path, data in kept.items():
        path.write_bytes(data)
    assert label(server.base_url, tmp_path, texts_of(20)).annotations["status"].to_list() == ["ok"] * 20
    assert set(server.paid.values()) == {1}
    assert len(server.sizes) == 2


def test_a_batch_that_is_not_yet_known_a_moment_after_its_making_is_not_given_up(server, tmp_path):
    server.faults["retrieve"].extend([fakes.status(404)] * 2)
    assert isinstance(ask(server.base_url, tmp_path, ["one"], pace=replace(HASTE, settle_s=5.0))["one"], Reply)
    assert server.sizes == [1]


def test_a_batch_that_the_provider_knows_no_more_is_asked_again(server, tmp_path):
    server.plans.append(Plan(["validating", "in_progress"]))
    ask(server.base_url, tmp_path, texts_of(2), until=is_polled(server))
    server.batches.clear()
    assert label(server.base_url, tmp_path, texts_of(2)).annotations["status"].to_list() == ["ok"] * 2
    assert server.sizes == [2, 2]
    assert not records(tmp_path)


def test_records_beyond_the_life_of_a_batch_are_removed(server, tmp_path):
    server.plans.append(Plan(["validating", "in_progress"]))
    ask(server.base_url, tmp_path, texts_of(2), until=is_polled(server))
    (path,) = records(tmp_path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"created_at": record["created_at"] - 36 * 86_400}))
    ask(server.base_url, tmp_path, texts_of(1, start=7))
    assert not records(tmp_path)


def test_the_record_stands_before_the_batch_and_names_it_after(server, tmp_path):
    seen = []

    def look(when):
        seen.extend(json.loads(path.read_text()) for path in records(tmp_path))

    server.hooks["create"] = look
    server.hooks["retrieve"] = look
    ask(server.base_url, tmp_path, texts_of(2))
    assert [record["batch_id"] for record in seen[:3]] == [None, None, "batch_0"]
    assert set(seen[0]["keys"]) == keys_of(server, texts_of(2))
    assert server.batches["batch_0"].metadata == {"candist": seen[0]["intent"]}
    assert KEY not in json.dumps(seen)


def chain_of(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unsure_record(server, folder, texts, **fields):
    """A record as of a process that has asked for a batch and not yet heard of it."""
    (request, *_) = requests = requests_of(server.base_url, texts)
    record = {
        "intent": "i" * 32, "endpoint": server.base_url, "input_sha256": "", "created_at": time.time(),
        "keys": [request.key for request in requests],
    }  # fmt: skip
    path = folder / "batches" / request.head.fingerprint / "elsewhere" / "i.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | fields))
    return path


def test_a_process_at_work_on_other_requests_is_not_waited_for(server, tmp_path):
    path = unsure_record(server, tmp_path, texts_of(2, start=50))
    started_at = time.monotonic()
    ask(server.base_url, tmp_path, texts_of(2), pace=replace(HASTE, settle_s=30.0))
    assert time.monotonic() - started_at < 2
    assert records(tmp_path) == [path]


def test_a_process_about_to_submit_the_same_requests_is_waited_for_and_its_batch_shared(server, tmp_path):
    ask(server.base_url, tmp_path, texts_of(2))
    path = unsure_record(server, tmp_path, texts_of(2))

    async def once():
        teacher = teacher_of(server.base_url, tmp_path, pace=replace(HASTE, settle_s=0.3))
        asked = asyncio.gather(*(teacher.ask(request) for request in requests_of(server.base_url, texts_of(2))))
        await asyncio.sleep(0.15)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"batch_id": "batch_0"}))
        await asked
        await teacher.close()

    asyncio.run(once())
    assert server.sizes == [2]
    assert server.calls["list"] == 0
    assert not records(tmp_path)


def test_a_record_without_a_batch_is_dropped_and_its_requests_are_free(server, tmp_path):
    unsure_record(server, tmp_path, texts_of(3))
    assert all(isinstance(reply, Reply) for reply in ask(server.base_url, tmp_path, texts_of(2)).values())
    assert server.sizes == [2]
    assert server.calls["list"] == 1
    assert not records(tmp_path)


def test_a_batch_whose_record_lacks_its_id_is_found_by_name_and_gives_what_it_has(server, tmp_path):
    ask(server.base_url, tmp_path / "before", texts_of(2))
    unsure_record(server, tmp_path, texts_of(2), intent=server.batches["batch_0"].metadata["candist"])
    found = ask(server.base_url, tmp_path, texts_of(3))
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert server.sizes == [2, 1]


class TroubledStore:
    """A store of which the n-th write fails for a while."""

    def __init__(self, store, n):
        self._store, self._n_left = store, n

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write_bytes(self, path, data):
        self._n_left -= 1
        if not self._n_left:
            raise TransientError("store", "gone for a while")
        self._store.write_bytes(path, data)


@pytest.mark.parametrize("n", [1, 2])
def test_a_store_that_fails_for_a_while_makes_no_second_batch(server, tmp_path, n):
    async def once():
        store = TroubledStore(open_store(Location(uri=str(tmp_path))), n)
        teacher = BatchTeacher(config_of(server.base_url), KEY, None, store, "shard-0", pace=HASTE)
        reply = await teacher.ask(requests_of(server.base_url, ["one"])[0])
        await teacher.close()
        return reply

    assert isinstance(asyncio.run(once()), Reply)
    assert server.sizes == [1]
    assert not records(tmp_path)


WORK = """
import json, sys, time
from pathlib import Path
from tests.edges.test_batch_teacher import label, texts_of
label(sys.argv[1], Path(sys.argv[2]), texts_of(int(sys.argv[3])), before_close=lambda: time.sleep(float(sys.argv[4])))
"""


def start(base_url, folder, n, sleep_s=0.0):
    command = [sys.executable, "-c", WORK, base_url, str(folder), str(n), str(sleep_s)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "when", "n_batches"),
    [
        ("upload", "after", 1), ("create", "before", 1), ("create", "after", 1), ("retrieve", "before", 1),
        ("content", "before", 1), ("content", "after", 1),
    ],
)  # fmt: skip
def test_a_process_killed_at_any_moment_submits_nothing_twice_and_loses_nothing(
    server, tmp_path, route, when, n_batches
):
    process = None

    def kill(moment):
        if moment == when:
            server.hooks.clear()
            process.kill()
            process.wait()

    server.hooks[route] = kill
    process = start(server.base_url, tmp_path, 50)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -9, said.decode()
    result = label(server.base_url, tmp_path, texts_of(50))
    assert result.annotations["status"].to_list() == ["ok"] * 50
    assert len(server.sizes) == n_batches
    assert Counter(server.paid.values()) == {1: 50}
    assert not records(tmp_path)


@pytest.mark.slow
def test_a_process_killed_between_the_replies_and_the_close_leaves_a_record_and_nothing_to_ask(server, tmp_path):
    process = start(server.base_url, tmp_path, 50, sleep_s=60)
    server.wait_for("content")
    while not list(tmp_path.glob("replies/*/*.parquet")) or list(tmp_path.glob("spool/*/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert len(records(tmp_path)) == 1
    assert label(server.base_url, tmp_path, texts_of(50)).usage.n_reused == 50
    assert server.sizes == [50]


def test_the_same_annotations_come_of_batches_as_of_live_requests(server, tmp_path):
    from candist_core.edges.openai_teacher import OpenAITeacher

    batched = label(server.base_url, tmp_path / "batch", texts_of(5))
    with fakes.ChatServer(first_label) as live:
        (request, *_) = requests_of(server.base_url, texts_of(5))

        async def once():
            teacher = OpenAITeacher(config_of(live.base_url), KEY, None)
            try:
                return await teacher.ask(request)
            finally:
                await teacher.close()

        reply = asyncio.run(once())
    (again,) = (reply for reply in ask(server.base_url, tmp_path / "again", ["text 0"]).values())
    assert replace(again, latency_s=0.0) == replace(reply, latency_s=0.0)
    assert batched.annotations["teacher"].unique().to_list() == ["openai:gpt-4o-mini"]


def test_a_teacher_is_opened_with_the_live_teachers_checks(tmp_path, monkeypatch):
    store = open_store(Location(uri=str(tmp_path)))
    with pytest.raises(TeacherError, match="an http or https URL"):
        open_batch_teacher(TeacherConfig(base_url="127.0.0.1/v1"), None, store, "shard-0")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TeacherError, match="OPENAI_API_KEY"):
        open_batch_teacher(TeacherConfig(), None, store, "shard-0")
    assert open_batch_teacher(TeacherConfig(), None, store, "shard-0", "sk-1").name == "openai:gpt-4o-mini"
