import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from dataclasses import replace

import polars as pl
import pytest

from candist_core.annotate import annotate
from candist_core.budget import Price, load_prices
from candist_core.edges.chat import ChatWire, quotas_of, retry_after_s
from candist_core.edges.openai_teacher import OpenAITeacher, open_openai_teacher
from candist_core.errors import RateLimitedError, RowError, TeacherError, TransientError
from candist_core.pace import Patience
from candist_core.ports import Quota, Quotas
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import ResponseFormat, TeacherConfig
from tests import fakes
from tests.fakes import ChatServer, MemoryLog, user_text

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))
KEY = "sk-very-secret-0123456789"
HASTE = Patience(base_s=0.001, cap_s=0.002, max_pause_s=5.0)


def config_of(base_url, **settings):
    return TeacherConfig(**({"base_url": base_url, "model": "gpt-4o-mini", "timeout_s": 5.0} | settings))


def ask(base_url, text="hello", price=None, **settings):
    config = config_of(base_url, **settings)

    async def once():
        teacher = OpenAITeacher(config, KEY, price)
        try:
            return await teacher.ask(compile_prompt(SPEC, config).request("d0", text))
        finally:
            await teacher.close()

    return asyncio.run(once())


def label(base_url, *texts, log=None, **settings):
    settings = {"max_in_flight": 8, "max_attempts": 3} | settings
    config = config_of(base_url, **settings)
    frame = pl.DataFrame({"doc_id": [f"d{i}" for i in range(len(texts))], "text": list(texts)})

    async def once():
        teacher = OpenAITeacher(config, KEY, load_prices()["gpt-4o-mini"])
        try:
            return await annotate(
                frame, SPEC, compile_prompt(SPEC, config), teacher, log or MemoryLog(), config, patience=HASTE
            )
        finally:
            await teacher.close()

    return asyncio.run(once())


def texts(n):
    return [f"text {i}" for i in range(n)]


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def test_the_request_holds_model_messages_sampling_and_schema_and_the_key_in_its_header(server):
    ask(server.base_url, 'say "hi" \u2028 ünï', temperature=0.5, max_tokens=77)
    (body,) = server.requests
    assert set(body) == {"model", "messages", "temperature", "max_tokens", "response_format"}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o-mini", 0.5, 77)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert user_text(body) == 'say "hi" \u2028 ünï'
    assert body["response_format"]["json_schema"]["strict"] is True
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["content-type"] == "application/json"


def test_free_text_requests_carry_no_response_format():
    with ChatServer(lambda body: "spam") as server:
        ask(server.base_url, response_format=ResponseFormat.TEXT)
        assert "response_format" not in server.requests[0]


def test_a_reply_has_its_text_its_tokens_and_its_cost():
    with ChatServer(lambda body: "spam", cached_tokens=100) as server:
        reply = ask(server.base_url, price=Price(2.0, 1.0, 8.0))
        prompt_tokens = sum(len(message["content"]) for message in server.requests[0]["messages"])
    assert (reply.reply, reply.finish_reason, reply.doc_id) == ("spam", "stop", "d0")
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (prompt_tokens, 100, 4)
    assert reply.cost_usd == pytest.approx(((prompt_tokens - 100) * 2 + 100 * 1 + 4 * 8) / 1e6)
    assert 0 < reply.latency_s < 5


def test_a_model_without_a_price_gives_replies_without_a_cost(server):
    assert ask(server.base_url).cost_usd is None


def test_a_reply_without_usage_has_no_cost_even_with_a_known_price(server):
    server.script([fakes.raw('{"choices": [{"message": {"content": "spam"}, "finish_reason": "stop"}]}')])
    reply = ask(server.base_url, price=Price(1, 1, 1))
    assert (reply.reply, reply.prompt_tokens, reply.cost_usd) == ("spam", 0, None)


@pytest.mark.parametrize(
    ("usage", "tokens", "cost_usd"),
    [
        ("{}", (0, 0), None),
        ('{"total_tokens": 200}', (0, 0), None),
        ('{"prompt_tokens": 100}', (100, 0), None),
        ('{"prompt_tokens": 100, "total_tokens": 120}', (100, 0), None),
        ('{"prompt_tokens": 0, "completion_tokens": 20}', (0, 20), None),
        ('{"prompt_tokens": 100, "completion_tokens": -1}', (100, 0), None),
        ('{"prompt_tokens": 100, "completion_tokens": true}', (100, 0), None),
        ('{"prompt_tokens": 100, "completion_tokens": 20}', (100, 20), 260e-6),
        # Thoughts that stand in the total alone.
        ('{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 400}', (100, 300), 2500e-6),
        ('{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 7}', (100, 20), 260e-6),
    ],
)
def test_only_a_whole_count_has_a_cost_and_tokens_of_the_total_alone_are_paid(server, usage, tokens, cost_usd):
    server.script([fakes.raw(f'{{"choices": [{{"message": {{"content": "x"}}}}], "usage": {usage}}}')])
    reply = ask(server.base_url, price=Price(1.0, 1.0, 8.0))
    assert (reply.prompt_tokens, reply.completion_tokens) == tokens
    assert reply.cost_usd == (None if cost_usd is None else pytest.approx(cost_usd))


def test_the_finish_reason_is_passed_on(server):
    server.script([fakes.reply("{", finish_reason="length")])
    assert ask(server.base_url).finish_reason == "length"


def test_a_refusal_is_told_by_its_finish_reason(server):
    server.script([fakes.reply("I will not.", finish_reason="refusal")])
    reply = ask(server.base_url)
    assert (reply.reply, reply.finish_reason) == ("I will not.", "refusal")


@pytest.mark.parametrize(
    ("content", "text"), [('"\\ud800spam"', "?spam"), ("null", ""), ("[1]", ""), ('"a\\u0000b"', "a\0b")]
)
def test_odd_content_becomes_a_text_that_a_table_can_hold(server, content, text):
    server.script([fakes.raw(f'{{"choices": [{{"message": {{"content": {content}}}, "finish_reason": null}}]}}')])
    reply = ask(server.base_url)
    assert (reply.reply, reply.finish_reason) == (text, "stop")
    assert pl.Series([reply.reply]).to_list() == [text]


@pytest.mark.parametrize(
    "usage", ['"many"', '{"prompt_tokens": "7"}', '{"prompt_tokens": -1}', '{"prompt_tokens": 1e3}']
)
def test_odd_token_counts_are_none(server, usage):
    server.script([fakes.raw(f'{{"choices": [{{"message": {{"content": "x"}}}}], "usage": {usage}}}')])
    assert ask(server.base_url).prompt_tokens == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0), ({"retry_after": "0.25"}, 0.25),
        ({"retry_after_ms": "120", "retry_after": "7"}, 0.12),
        ({}, None), ({"retry_after": "soon"}, None), ({"retry_after": "-3"}, None), ({"retry_after": "inf"}, None),
    ],
)  # fmt: skip
def test_a_429_is_a_wish_for_a_pause_of_the_length_that_its_headers_give(server, headers, seconds):
    server.script([fakes.status(429, code="rate_limit_exceeded", **headers)])
    with pytest.raises(RateLimitedError) as caught:
        ask(server.base_url)
    assert caught.value.retry_after_s == seconds


def test_a_retry_after_date_is_turned_into_seconds_from_now():
    then = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 50 < retry_after_s({"retry-after": then}) <= 60
    assert retry_after_s({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) == 0.0


@pytest.mark.parametrize("number", [429, 402])
def test_used_up_quota_ends_the_run_with_one_sentence(server, number):
    server.script([fakes.status(number, code="insufficient_quota", message=KEY)])
    with pytest.raises(TeacherError, match="found no quota left, wanted an account with credit"):
        ask(server.base_url)


@pytest.mark.parametrize("number", [401, 403])
def test_a_refused_key_ends_the_run_and_stands_nowhere(server, number, caplog):
    caplog.set_level(logging.DEBUG)
    server.script([fakes.status(number, code="invalid_api_key", message=f"Incorrect API key: {KEY}")])
    with pytest.raises(TeacherError, match="OPENAI_API_KEY") as caught:
        ask(server.base_url)
    error, shown = caught.value, []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert KEY not in " ".join(shown)
    assert KEY not in caplog.text


def flagged(**metadata):
    error = {"message": "flagged", "code": 403, "metadata": metadata}
    return fakes.raw(json.dumps({"error": error}), 403)


@pytest.mark.parametrize("step", [flagged(reasons=["hate"]), flagged(flagged_input="text 3")])
def test_a_text_that_moderation_flags_is_one_reject_and_the_others_are_labelled(step):
    def answer(body):
        return step if user_text(body) == "text 3" else '{"candidates": ["ham"]}'

    with ChatServer(answer) as server:
        result = label(server.base_url, *texts(20))
    assert result.rejects.select("doc_id", "reason").rows() == [("d3", "content_filter")]
    assert result.rejects["detail"][0].startswith("HTTP 403: ")
    assert result.annotations["status"].to_list().count("ok") == 19


def test_a_text_that_a_firewall_stops_is_a_reject_that_a_later_run_asks_again():
    def answer(body):
        return fakes.page(403) if user_text(body) == "text 3" else '{"candidates": ["ham"]}'

    log = MemoryLog()
    with ChatServer(answer) as server:
        first = label(server.base_url, *texts(20), log=log)
        # Now it stands alone.
        again = label(server.base_url, *texts(20), log=log)
        assert len(server.requests) == 21
    assert first.rejects.select("doc_id", "reason").rows() == [("d3", "transient")]
    assert first.rejects["detail"][0] == "HTTP 403: <html>hello</html>"
    assert again.rejects.equals(first.rejects)


@pytest.mark.parametrize("step", [fakes.status(403), fakes.page(403)])
def test_an_endpoint_that_forbids_every_text_ends_the_run(step):
    with ChatServer(lambda body: step) as server:
        with pytest.raises(TeacherError, match=r"a key that is refused \(HTTP 403\)") as caught:
            label(server.base_url, *texts(200))
        # An error that is its own cause cannot cross Dask.
        assert caught.value.__cause__ is None
        assert len(server.requests) <= 8 + 8


def test_a_key_that_is_revoked_in_the_middle_ends_the_run_soon_and_what_was_answered_is_kept():
    log, n_good = MemoryLog(), 50

    def answer(body):
        return '{"candidates": ["ham"]}' if len(server.requests) <= n_good else fakes.status(403)

    with ChatServer(answer) as server, pytest.raises(TeacherError, match="set OPENAI_API_KEY to a valid key"):
        label(server.base_url, *texts(300), log=log)
    assert len(log.kept) == n_good
    assert len(server.requests) <= n_good + 8 + 8


def test_a_first_text_that_is_forbidden_says_nothing_of_the_key():
    def answer(body):
        return fakes.status(403) if user_text(body) == "text 0" else '{"candidates": ["ham"]}'

    with ChatServer(answer) as server:
        result = label(server.base_url, *texts(20), max_in_flight=1)
    assert result.rejects["doc_id"].to_list() == ["d0"]


@pytest.mark.parametrize(
    "error",
    [
        {"code": 400, "type": "BadRequestError", "message": "This model's maximum context length is 4096 tokens."},
        {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds the available context size"},
        {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."},
        {"code": 400, "message": "Provider returned error", "metadata": {"raw": "prompt is too long: 9 tokens > 8"}},
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
    ],
)
@pytest.mark.parametrize("is_bare", [False, True], ids=["in error", "bare"])
def test_a_text_that_is_too_long_is_known_by_the_words_of_servers_that_name_no_code(server, error, is_bare):
    said = error if is_bare and isinstance(error, dict) else {"error": error}
    server.script([fakes.raw(json.dumps(said), 400)])
    with pytest.raises(RowError) as caught:
        ask(server.base_url)
    assert caught.value.reason == "context_length_exceeded"


@pytest.mark.parametrize("number", [404, 405, 302])
def test_a_wrong_path_model_or_redirect_names_endpoint_and_model(server, number):
    server.script([fakes.status(number, location="http://127.0.0.1:9/elsewhere")])
    with pytest.raises(TeacherError) as caught:
        ask(server.base_url)
    assert server.base_url in str(caught.value)
    assert "gpt-4o-mini" in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (400, None, "rejected by the endpoint"), (413, None, "rejected by the endpoint"),
        (422, "x", "rejected by the endpoint"), (400, "context_length_exceeded", "context_length_exceeded"),
        (400, "content_filter", "content_filter"), (418, None, "rejected by the endpoint"),
    ],
)  # fmt: skip
def test_a_rejected_request_is_its_rows_fault(server, number, code, reason):
    server.script([fakes.status(number, code=code, message=f"bad {KEY} " + "x" * 5000)])
    with pytest.raises(RowError) as caught:
        ask(server.base_url)
    assert caught.value.reason == reason
    assert caught.value.detail.startswith(f"HTTP {number}: ")
    assert KEY not in caught.value.detail
    assert len(caught.value.detail) == 2000


def test_a_setting_that_the_model_does_not_take_ends_the_run(server):
    server.script([fakes.status(400, code="unsupported_parameter")])
    with pytest.raises(TeacherError, match="change the teacher's settings"):
        ask(server.base_url)


@pytest.mark.parametrize("number", [408, 409, 500, 502, 503, 529])
def test_server_errors_are_transient_and_pass_their_wish_on(server, number):
    server.script([fakes.status(number, retry_after="2")])
    with pytest.raises(TransientError, match=f"HTTP {number}") as caught:
        ask(server.base_url)
    assert not isinstance(caught.value, RateLimitedError)
    assert caught.value.retry_after_s == 2.0


@pytest.mark.parametrize(
    "step",
    [
        fakes.cut(), fakes.page(), fakes.raw(""), fakes.raw('{"choices": ['), fakes.raw("null"), fakes.raw("[]"),
        fakes.raw("[" * 100_000),
        fakes.raw('{"choices": []}'), fakes.raw('{"choices": [{}]}'), fakes.raw('{"choices": [{"message": "hi"}]}'),
        fakes.raw('{"error": {"message": "overloaded"}}'), fakes.page(502),
    ],
    ids=lambda step: f"{step.kind} {step.text[:12]}",
)  # fmt: skip
def test_answers_that_are_no_completion_are_transient(server, step):
    server.script([step])
    with pytest.raises(TransientError, match=server.base_url):
        ask(server.base_url)


@pytest.mark.parametrize("step", [fakes.hang(), fakes.drip()], ids=["silent", "dripping"])
def test_an_answer_that_does_not_come_in_time_is_transient(server, step):
    server.script([step])
    started_at = time.monotonic()
    with pytest.raises(TransientError):
        ask(server.base_url, timeout_s=0.1)
    assert time.monotonic() - started_at < 2


@pytest.fixture
def closed_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"


def test_a_refused_connection_is_transient_and_says_so_in_words(closed_url):
    with pytest.raises(TransientError) as caught:
        ask(f"{closed_url}?token=hidden")
    assert str(caught.value) == f"{closed_url}: connection refused"


def test_a_wrong_endpoint_ends_in_one_sentence_instead_of_rejecting_the_corpus(closed_url):
    with pytest.raises(TeacherError) as caught:
        label(closed_url, *texts(50), max_in_flight=4, max_attempts=2)
    assert str(caught.value).startswith(
        f"teacher openai:gpt-4o-mini at {closed_url}: found no answer to the first 8 texts in 2 attempts each "
        "(connection refused), wanted an endpoint that answers chat completions; "
    )


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "", "/v1", "https://"])
def test_a_base_url_that_is_none_is_refused_before_anything_is_sent(url):
    with pytest.raises(TeacherError, match=r"teacher\.base_url"):
        open_openai_teacher(TeacherConfig(base_url=url), {})


def test_openais_own_endpoint_wants_a_key(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(TeacherError, match="environment variable MY_KEY: found no value, wanted an API key"):
        open_openai_teacher(TeacherConfig(api_key_env="MY_KEY"), {})


def test_a_server_of_ones_own_wants_no_key(monkeypatch, server):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # Neither the client's own variables nor another's key may come in.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    config = config_of(server.base_url)

    async def once():
        teacher = open_openai_teacher(config, load_prices())
        await teacher.ask(compile_prompt(SPEC, config).request("d0", "x"))
        await teacher.close()
        return teacher

    assert asyncio.run(once()).name == "openai:gpt-4o-mini"
    assert server.headers[0]["authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-ü", "sk a"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(TeacherError) as caught:
        open_openai_teacher(TeacherConfig(), {})
    assert "sk" not in str(caught.value)


def test_blanks_around_a_key_are_dropped(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    teacher = open_openai_teacher(config_of(server.base_url), {})
    assert KEY not in repr(teacher)
    assert teacher._api_key == KEY


@pytest.mark.parametrize(
    ("model", "url", "sampling"),
    [
        ("gpt-4o-mini", None, {"temperature": 0.0, "max_completion_tokens": 256}),
        ("gpt-5-nano", None, {"max_completion_tokens": 256}),
        ("o4-mini", None, {"max_completion_tokens": 256}),
        ("gpt-5-chat-latest", None, {"temperature": 0.0, "max_completion_tokens": 256}),
        ("gpt-5-nano", "http://127.0.0.1:8000/v1", {"temperature": 0.0, "max_tokens": 256}),
    ],
)
def test_openais_models_are_asked_in_the_form_they_take(model, url, sampling):
    config = TeacherConfig(model=model, base_url=url)
    request = compile_prompt(SPEC, config).request("1", "x")
    body = json.loads(ChatWire(config, KEY, None).body(request))
    shared = ("model", "messages", "response_format")
    assert {name: value for name, value in body.items() if name not in shared} == sampling


def test_examples_stand_between_the_system_message_and_the_text():
    config = TeacherConfig(base_url="http://127.0.0.1:8000/v1", logprobs=True)
    request = compile_prompt(SPEC, config).request("1", "x")
    head = replace(request.head, turns=(("a", "A"),))
    body = json.loads(ChatWire(config, KEY, None).body(replace(request, head=head, turns=(("b", "B"),))))
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert [message["content"] for message in body["messages"][1:5]] == ["a", "A", "b", "B"]
    assert body["logprobs"] is True


def test_log_probabilities_are_kept_short_and_odd_ones_dropped():
    config = TeacherConfig(base_url="http://127.0.0.1:8000/v1", logprobs=True)
    wire, request = ChatWire(config, KEY, None), compile_prompt(SPEC, config).request("1", "x")
    tokens = [{"token": "sp", "logprob": -0.5, "top_logprobs": []}, {"token": "am"}, "x", {"token": "!", "logprob": -1}]
    choice = {"message": {"content": "spam!"}, "logprobs": {"content": tokens}}
    assert wire.reply(request, json.dumps({"choices": [choice]}).encode(), 0.1).logprobs == '[["sp",-0.5],["!",-1]]'
    assert wire.reply(request, b'{"choices": [{"message": {"content": "a"}}]}', 0.1).logprobs is None


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("20ms", 0.02), ("1s", 1.0), ("6m0s", 360.0), ("1h2m3.5s", 3723.5), ("7.66", 7.66), ("1d", 86400.0)],
)
def test_resets_are_read_in_every_form(reset, seconds):
    headers = {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": reset,
    }
    assert quotas_of(headers) == Quotas(tokens=Quota(100.0, 7.0, seconds))


@pytest.mark.parametrize("reset", ["soon", "", "nan", "-1"])
def test_a_limit_that_cannot_be_read_is_none(reset):
    headers = {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": reset,
    }
    assert quotas_of(headers) == Quotas()


@pytest.mark.slow
def test_importing_the_teacher_loads_no_client():
    code = "import sys, candist_core.edges.openai_teacher as t; sys.exit(int('openai' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_poison_row_is_one_reject_and_the_others_are_labelled():
    def answer(body):
        return (
            fakes.status(400, message="cannot read this") if user_text(body) == "text 3" else '{"candidates": ["ham"]}'
        )

    with ChatServer(answer) as server:
        result = label(server.base_url, *texts(20))
    assert result.rejects["doc_id"].to_list() == ["d3"]
    assert result.rejects["reason"].to_list() == ["rejected by the endpoint"]
    assert "cannot read this" in result.rejects["detail"][0]
    assert result.annotations["status"].value_counts(sort=True).rows() == [("ok", 19), ("failed", 1)]


def test_no_more_requests_are_under_way_than_configured_and_connections_are_kept():
    with ChatServer(latency_s=0.02) as server:
        result = label(server.base_url, *texts(60), max_in_flight=6)
        assert server.max_in_flight == 6
    assert result.annotations["status"].unique().to_list() == ["ok"]


def test_equal_texts_reach_the_endpoint_once(server):
    label(server.base_url, "same", "same", "other", "same")
    assert sorted(server.counts.values()) == [1, 1]


def test_a_second_run_over_the_same_log_asks_nothing(server):
    log = MemoryLog()
    first = label(server.base_url, *texts(10), log=log)
    n_asked = len(server.requests)
    second = label(server.base_url, *texts(10), log=log)
    assert len(server.requests) == n_asked == 10
    assert second.annotations.equals(first.annotations)
    assert first.usage.cost_usd > 0 == second.usage.cost_usd
    assert second.usage.n_reused == 10


def test_429s_are_waited_out_without_using_up_attempts(server):
    server.script([fakes.status(429, retry_after="0.02")] * 12)
    result = label(server.base_url, *texts(6), max_in_flight=2, max_attempts=1)
    assert result.annotations["status"].unique().to_list() == ["ok"]
    assert len(server.requests) == 18


def test_server_errors_cut_connections_and_html_pages_are_tried_again(server):
    server.script([fakes.status(500), fakes.cut(), fakes.page(), fakes.raw('{"choi')])
    result = label(server.base_url, *texts(4), max_attempts=5)
    assert result.annotations["status"].unique().to_list() == ["ok"]
    assert len(server.requests) == 8


def test_used_up_quota_stops_the_whole_call_at_once():
    asked = []

    def answer(body):
        asked.append(body)
        return fakes.status(429, code="insufficient_quota") if len(asked) > 10 else '{"candidates": ["ham"]}'

    log = MemoryLog()
    with ChatServer(answer) as server, pytest.raises(TeacherError, match="no quota left"):
        label(server.base_url, *texts(300), log=log, max_in_flight=4)
    assert len(asked) <= 18
    assert len(log.kept) == 10


def test_requests_go_through_the_proxy_that_the_environment_names(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    # Nobody listens there; the proxy gets the whole address, and this one answers only its own path.
    reply = ask("http://127.0.0.1:9/v1", "hello")
    assert reply.reply
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TransientError):
        ask("http://127.0.0.1:9/v1", "hello")


def test_a_query_of_the_base_url_stays_behind_the_path(server):
    assert ask(f"{server.base_url}/?api-version=1", "hello").reply
