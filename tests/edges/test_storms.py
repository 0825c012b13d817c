"""Storms on the way to a teacher, over real sockets: each text gets its own label, and one good answer is paid for.

What one odd answer means stands in `test_openai_teacher.py`; here whole corpora go through endpoints that fail for a
while.
"""

import asyncio
import gzip
import json
import random
import socket
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace

import polars as pl
import pytest
from aiohttp import web

from candist_core.annotate import annotate
from candist_core.edges.openai_teacher import OpenAITeacher
from candist_core.errors import TeacherError, TransientError
from candist_core.pace import Patience
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig
from tests import fakes
from tests.fakes import ChatServer, MemoryLog, user_text

N, IN_FLIGHT = 40, 8
LABELS = ["ham", "spam", "news", "bill", "chat", "job", "love"]
SPEC = TaskSpec(labels=tuple(LabelSpec(name=name) for name in LABELS))
KEY = "sk-very-secret-0123456789"
PATIENCE = Patience(base_s=0.02, cap_s=0.2, max_pause_s=5.0)
# A rate is learned in seconds, so that shorter waits than a run's own would not show how it is.
OWN = Patience(max_pause_s=5.0)
# Many times what any of these takes, and far less than any wait without a bound.
MOST_S = 6.0


def label_of(number):
    """The right label of a text: no two neighbours share it, so that mixed-up answers would show."""
    return LABELS[number % len(LABELS)]


def completion(content):
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


def said(number):
    return json.dumps({"candidates": [label_of(number)]})


class Weather:
    """What a server answers: `bad`, told a text's number and how often it was asked before, or else the right label.

    `asked` counts requests and `good` the right answers, by text.
    """

    def __init__(self, bad=lambda number, n_before: None):
        self._bad = bad
        self.asked, self.good = Counter(), Counter()

    def __call__(self, body):
        number = int(user_text(body).split()[-1])
        step = self._bad(number, self.asked[number])
        self.asked[number] += 1
        if step is None:
            self.good[number] += 1
        return said(number) if step is None else step


def storm(seconds, step):
    """All requests fail so, until some seconds after the first."""
    asked_at = []

    def bad(number, n_before):
        asked_at.append(time.monotonic())
        return step if asked_at[-1] - asked_at[0] < seconds else None

    return Weather(bad)


def first(n, step):
    """Each text's first n requests fail so."""
    return Weather(lambda number, n_before: step if n_before < n else None)


async def labelled(base_url, log=None, n=N, patience=PATIENCE, **settings):
    config = TeacherConfig(
        **{"base_url": base_url, "model": "m", "timeout_s": 5.0, "max_in_flight": IN_FLIGHT} | settings
    )
    frame = pl.DataFrame({"doc_id": [f"d{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)]})
    teacher = OpenAITeacher(config, KEY, None)
    try:
        prompt = compile_prompt(SPEC, config)
        return await annotate(frame, SPEC, prompt, teacher, log or MemoryLog(), config, patience=patience)
    finally:
        await teacher.close()


def label(base_url, **settings):
    return asyncio.run(labelled(base_url, **settings))


@contextmanager
def bounded():
    started_at = time.monotonic()
    yield
    assert time.monotonic() - started_at < MOST_S


def assert_all_labelled(result, good, n=N):
    """Every text has its own label, none is lost, and each was answered well exactly once."""
    assert result.annotations["status"].to_list() == ["ok"] * n
    assert result.annotations["candidates"].to_list() == [[label_of(i)] for i in range(n)]
    assert (result.rejects.height, result.n_left) == (0, 0)
    assert good == Counter(range(n))


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [fakes.status(429), fakes.status(429, retry_after="0.3"), fakes.status(429, retry_after_ms="40")],
    ids=["no wish", "a wish", "a short wish"],
)
def test_a_second_of_refusals_is_waited_out_by_few_requests_and_uses_up_no_attempt(step):
    with ChatServer(weather := storm(1.0, step), latency_s=0.005) as server, bounded():
        result = label(server.base_url, max_attempts=1, patience=OWN)
    assert_all_labelled(result, weather.good)
    assert weather.asked.total() <= N + 3 * IN_FLIGHT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "most"),
    [(fakes.status(500), 30), (fakes.status(503, retry_after="0.3"), 5)],
    ids=["no wish", "a wish"],
)
def test_a_second_of_server_errors_holds_the_same_few_texts_back_and_costs_none(step, most):
    with ChatServer(weather := storm(1.0, step), latency_s=0.005) as server, bounded():
        result = label(server.base_url, max_attempts=40)
    assert_all_labelled(result, weather.good)
    # A slot stays with its text, so the others are asked once.
    assert sum(n > 1 for n in weather.asked.values()) <= IN_FLIGHT
    assert max(weather.asked.values()) <= most


HTML = {"content-type": "text/html"}
BROKEN = {
    "cut in the body": fakes.cut(),
    "a page": fakes.page(),
    "a page from a gateway": fakes.page(502),
    "nothing": fakes.raw(""),
    "nothing from a gateway": fakes.raw("", 504),
    "half of a reply": fakes.raw(completion(said(0))[:60]),
    "no gzip": replace(fakes.raw(completion(said(0))), headers={"content-encoding": "gzip"}),
    "megabytes of a page": fakes.raw("<p>" * 1_000_000),
    "megabytes of an error": fakes.raw("<p>" * 1_000_000, 500),
}


@pytest.mark.parametrize("step", BROKEN.values(), ids=BROKEN)
def test_texts_whose_first_two_answers_are_broken_are_asked_a_third_time_and_no_more(step):
    with ChatServer(weather := first(2, step)) as server, bounded():
        result = label(server.base_url, n=16, max_attempts=3, patience=replace(PATIENCE, base_s=0.001))
    assert_all_labelled(result, weather.good, n=16)
    # Nobody else tries again, such as a client on a connection that was closed.
    assert set(weather.asked.values()) == {3}


@pytest.mark.slow
@pytest.mark.parametrize("step", [fakes.drip(), fakes.hang()], ids=["dripping", "silent"])
def test_answers_beyond_the_timeout_are_given_up_and_never_taken_for_the_next_texts(step):
    with ChatServer(weather := first(1, step)) as server, bounded():
        result = label(server.base_url, n=24, timeout_s=0.2, max_attempts=2)
    assert_all_labelled(result, weather.good, n=24)
    assert set(weather.asked.values()) == {2}


def test_a_wrong_content_type_or_megabytes_around_a_good_answer_do_no_harm():
    def odd(number, n_before):
        weather.good[number] += 1
        if number % 2:
            return replace(fakes.raw(completion(said(number))), headers=HTML)
        return fakes.raw("\n" * 5_000_000 + completion(said(number)))

    with ChatServer(weather := Weather(odd)) as server, bounded():
        result = label(server.base_url, n=12)
    assert_all_labelled(result, weather.good, n=12)
    assert set(weather.asked.values()) == {1}


def test_a_reply_of_megabytes_is_kept_read_and_paid_once():
    contents = ['{"candidates": ["' + "x" * 5_000_000, "[" * 5_000_000, said(2) + " " * 5_000_000]
    log = MemoryLog()
    with ChatServer(Weather(lambda number, n_before: fakes.reply(contents[number]))) as server, bounded():
        result = label(server.base_url, n=3, log=log)
        assert label(server.base_url, n=3, log=log).annotations.equals(result.annotations)
        assert len(server.requests) == 3
    assert result.annotations["status"].to_list() == ["unparsed", "unparsed", "ok"]
    assert sorted(len(reply.reply) for reply in log.kept.values()) == sorted(map(len, contents))


@pytest.fixture
def elsewhere():
    """A place that listens; whether anybody came can be seen."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        place.setblocking(False)
        yield place


def good_until(n, step):
    """A server's answers and its latencies: n right labels, which all arrive, and then such a step every time."""
    weather = Weather(lambda number, n_before: step if weather.good.total() >= n else None)
    return weather, lambda body: 0.02 if weather.good.total() >= n else 0.0


@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_far", [True, False], ids=["to another host", "to itself"])
def test_a_redirect_is_not_followed_and_ends_a_call_that_the_next_one_completes(elsewhere, number, is_far):
    host = f"http://localhost:{elsewhere.getsockname()[1]}" if is_far else ""
    weather, latency_s = good_until(10, fakes.status(number, location=f"{host}/v1/chat/completions"))
    log = MemoryLog()
    with ChatServer(weather, latency_s=latency_s) as server, bounded():
        with pytest.raises(TeacherError, match=rf"\(HTTP {number}\).*check teacher\.base_url") as caught:
            label(server.base_url, log=log)
        assert KEY not in str(caught.value)
    assert weather.asked.total() <= 10 + IN_FLIGHT
    assert max(weather.asked.values()) == 1
    with ChatServer(healed := Weather()) as server, bounded():
        result = label(server.base_url, log=log)
    assert_all_labelled(result, weather.good + healed.good)
    with pytest.raises(BlockingIOError):
        elsewhere.accept()


class ServerAt(ChatServer):
    """A `ChatServer` that answers at a port of one's choice, too."""

    def __init__(self, port, answer):
        super().__init__(answer, latency_s=0.01)
        self._port = port

    async def _serve(self):
        runner = await super()._serve()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        return runner


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_a_server_that_starts_late_is_waited_for(port):
    weather = Weather()

    async def start_late():
        work = asyncio.create_task(labelled(f"http://127.0.0.1:{port}/v1", max_attempts=40))
        await asyncio.sleep(0.5)
        with ServerAt(port, weather):
            return await work

    with bounded():
        assert_all_labelled(asyncio.run(start_late()), weather.good)


@pytest.mark.slow
def test_a_server_that_is_started_anew_is_waited_for_and_asked_again_only_for_what_was_in_flight(port):
    weather = Weather()

    async def restart():
        with ServerAt(port, weather):
            work = asyncio.create_task(labelled(f"http://127.0.0.1:{port}/v1", max_attempts=40))
            while weather.good.total() < 10:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.4)
        assert not work.done()
        with ServerAt(port, weather):
            return await work

    with bounded():
        result = asyncio.run(restart())
    # What was answered while the connections were closed was answered in vain.
    assert N <= weather.good.total() <= N + IN_FLIGHT
    assert_all_labelled(result, Counter(set(weather.good)))


def test_an_outage_beyond_all_attempts_ends_the_call_and_the_next_one_asks_only_the_rest():
    weather, latency_s = good_until(15, fakes.status(500))
    log = MemoryLog()
    silent = pytest.raises(TransientError, match="no answer to 8 texts in a row, last: HTTP 500")
    with ChatServer(weather, latency_s=latency_s) as server, bounded(), silent:
        label(server.base_url, log=log, max_attempts=3, patience=replace(PATIENCE, cap_s=0.01))
    assert max(weather.asked.values()) == 3
    with ChatServer(healed := Weather()) as server, bounded():
        result = label(server.base_url, log=log)
    assert_all_labelled(result, weather.good + healed.good)


def test_an_endpoint_that_wants_to_be_left_alone_for_a_day_ends_the_call_at_once_and_all_that_arrived_is_kept():
    weather, latency_s = good_until(15, fakes.status(429, retry_after="86400"))
    log = MemoryLog()
    refused = pytest.raises(TransientError, match=r"refuses every request for its rate over 5 s")
    with ChatServer(weather, latency_s=latency_s) as server, bounded(), refused:
        label(server.base_url, log=log)
    assert weather.asked.total() <= 15 + 2 * IN_FLIGHT
    assert len(log.kept) == weather.good.total() == 15


GOOD = completion(said(0)).encode()
SENT = {
    "no byte": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "noise": bytes(range(256)) * 10,
    "a status and no more": b"HTTP/1.1 200 OK\r\n",
    "a status in words": b"HTTP/1.1 fine OK\r\nContent-Length: 0\r\n\r\n",
    "no header": GOOD,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\n" + GOOD,
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + GOOD,
    "a length beyond reason": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 10**25 + GOOD,
    "a longer length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(GOOD) + 9) + GOOD,
    "a shorter length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + GOOD,
    "chunks without length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + GOOD,
    "chunks without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GOOD) + GOOD + b"\r\n",
    "half of a gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD)[:40],
    "no brotli": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + GOOD,
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n" + GOOD,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 40_000 + b"\r\n" + GOOD,
    "no utf-8": b'HTTP/1.1 200 OK\r\n\r\n{"choices": [{"message": {"content": "\xe9\xff"}}]}',
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a part of the content": b"HTTP/1.1 206 Partial\r\nContent-Length: 9\r\n\r\n" + GOOD[:9],
    "an unheard-of status": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
}


def test_whatever_bytes_come_instead_of_http_each_text_is_asked_once_more_and_gets_its_own_label():
    asked, good = Counter(), Counter()

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        number = int(user_text(json.loads(await reader.readexactly(length))).split()[-1])
        asked[number] += 1
        if asked[number] > 1:
            good[number] += 1
            body = completion(said(number)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        else:
            writer.write(list(SENT.values())[number])
        # Who hangs up before the end has not done anything wrong.
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def run():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            return await labelled(f"http://{host}:{port}/v1", n=len(SENT), max_attempts=4)

    with bounded():
        assert_all_labelled(asyncio.run(run()), good, n=len(SENT))
    assert set(asked.values()) == {2}


ALL = [
    *BROKEN.values(), fakes.status(500), fakes.status(503, retry_after_ms="20"), fakes.drip(),
    fakes.status(429), fakes.status(429, retry_after_ms="20"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_in_a_storm_of_everything_at_once_each_text_is_labelled_and_paid_once(seed):
    chance = random.Random(seed)
    bad = [chance.choices(ALL, k=chance.randrange(4)) for _ in range(N)]
    weather = Weather(lambda number, n_before: bad[number][n_before] if n_before < len(bad[number]) else None)
    with ChatServer(weather, latency_s=0.005) as server, bounded():
        result = label(server.base_url, timeout_s=0.3, max_attempts=4)
    assert_all_labelled(result, weather.good)
    assert weather.asked == Counter({number: len(steps) + 1 for number, steps in enumerate(bad)})
