"""Limits in Redis hold for all clients together, survive a lost server, and never show the password."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from fakeredis import TcpFakeServer
from redis import Redis

from candist_core.edges import redis_limit
from candist_core.edges.redis_limit import RedisLimit, open_redis_limit
from candist_core.errors import TeacherError, TransientError
from candist_core.teacher_config import TeacherConfig

T = TypeVar("T")


def start(port: int = 0) -> TcpFakeServer:
    server = TcpFakeServer(("127.0.0.1", port))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def stop(server: TcpFakeServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpFakeServer]:
    server = start()
    monkeypatch.setenv("LIMITS", url_of(server))
    yield server
    stop(server)


def url_of(server: TcpFakeServer) -> str:
    return f"redis://127.0.0.1:{server.server_address[1]}/0"


def config(**changes: Any) -> TeacherConfig:
    return TeacherConfig(**{"limits_redis_env": "LIMITS", "model": "m", "base_url": "http://a/v1"} | changes)


def opened(**changes: Any) -> RedisLimit:
    limit = open_redis_limit(config(**changes))
    assert limit is not None
    return limit


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def take_at_once(limit: RedisLimit, n_tokens: int = 0) -> int:
    """How many takes the limit bears without a wait."""
    n = 0
    while await limit.take(n_tokens) == 0.0:
        n += 1
    return n


@pytest.mark.slow
def test_two_clients_at_once_take_no_more_than_the_limit_and_nearly_all_of_it(server):
    taken: list[float] = []

    async def draw(seconds: float) -> None:
        limit = opened(max_requests_per_min=1260)  # 20 a second and 60 at once
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if wait_s := await limit.take(0):
                await asyncio.sleep(wait_s)
            else:
                taken.append(time.monotonic())
        await limit.close()

    began = time.monotonic()
    clients = [threading.Thread(target=run, args=(draw(2.0),)) for _ in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    borne = 60 + 20 * (taken[-1] - began)
    assert 0.9 * borne < len(taken) <= borne + 1


@pytest.mark.parametrize(("per_min", "at_once"), [(1, 1), (10, 1), (21, 1), (210, 10), (2100, 100)])
def test_a_burst_is_three_seconds_worth_or_one_request(server, per_min, at_once):
    async def work() -> tuple[int, float]:
        limit = opened(max_requests_per_min=per_min)
        n, wait_s = await take_at_once(limit), await limit.take(0)
        await limit.close()
        return n, wait_s

    n, wait_s = run(work())
    # A slow run of this test may see some flow in.
    assert at_once <= n <= at_once * 1.2
    assert wait_s == pytest.approx(max(63 / per_min, 0.01), rel=0.3, abs=0.02)
    assert n + 60 * per_min / 63 < per_min * 1.2 + 1


def test_tokens_bind_where_requests_do_not(server):
    async def work() -> int:
        limit = opened(max_requests_per_min=100_000, max_tokens_per_min=2100)  # 100 tokens at once
        n = await take_at_once(limit, n_tokens=40)
        await limit.close()
        return n

    assert run(work()) == 2


def test_one_refused_bucket_leaves_the_other_untouched(server):
    async def work() -> float:
        limit = opened(max_requests_per_min=1, max_tokens_per_min=2100)
        await limit.take(10)
        for _ in range(20):
            assert await limit.take(10) > 0
        await limit.close()
        other = opened(max_tokens_per_min=2100)
        wait_s = await other.take(90)
        await other.close()
        return wait_s

    assert run(work()) == 0.0


def test_a_request_larger_than_the_bucket_goes_when_it_is_full_and_the_next_waits_for_it(server):
    async def work() -> tuple[float, float]:
        limit = opened(max_tokens_per_min=6300)  # 100 a second, 300 at once
        waits = await limit.take(1300), await limit.take(1)
        await limit.close()
        return waits

    first, second = run(work())
    assert first == 0.0
    assert second == pytest.approx(10.0, abs=0.2)


def test_what_a_reply_needed_more_or_less_counts_for_all_clients(server):
    async def work() -> tuple[float, float, float]:
        limit, other = opened(max_tokens_per_min=6300), opened(max_tokens_per_min=6300)
        await limit.take(300)
        limit.settle(200)
        more = await limit.take(1)
        limit.settle(-500)
        await limit.close()
        less = await other.take(250)
        other.settle(-1_000_000)
        await other.take(300)
        never_fuller = await other.take(300)
        await other.close()
        return more, less, never_fuller

    more, less, never_fuller = run(work())
    assert more == pytest.approx(2.0, abs=0.2)
    assert less == 0.0
    assert never_fuller == pytest.approx(3.0, abs=0.2)


def test_runs_share_by_endpoint_and_model(server):
    async def waits(**changes: Any) -> float:
        limit = opened(max_requests_per_min=1, **changes)
        wait_s = await limit.take(0)
        await limit.close()
        return wait_s

    assert run(waits()) == 0.0
    assert run(waits(base_url="http://a/v1/")) > 0
    assert run(waits(base_url="http://b/v1")) == 0.0
    assert run(waits(model="n")) == 0.0


def test_buckets_are_gone_once_they_would_be_full(server):
    async def work() -> None:
        limit = opened(max_requests_per_min=63, max_tokens_per_min=6300)
        await limit.take(150)
        await limit.close()

    run(work())
    with Redis.from_url(url_of(server)) as client:
        lives_ms = sorted(client.pttl(key) for key in client.keys("*"))
    assert lives_ms == [pytest.approx(2000, abs=150), pytest.approx(2500, abs=150)]


def test_a_server_lost_on_the_way_lets_nothing_through_and_a_returned_one_goes_on(server, monkeypatch):
    again: list[TcpFakeServer] = []

    async def work() -> None:
        limit = opened(max_requests_per_min=10_000, max_tokens_per_min=6300)
        assert await limit.take(10) == 0.0
        limit.settle(10)
        await asyncio.to_thread(lose, server)
        assert [await limit.take(10) for _ in range(3)] == [1.0] * 3
        again.append(await asyncio.to_thread(start, server.server_address[1]))
        assert await limit.take(280) == 0.0
        assert await limit.take(20) == pytest.approx(0.1, abs=0.09), "what was owed is not forgotten"
        await limit.close()

    try:
        run(work())
    finally:
        for server in again:
            stop(server)


def lose(server: TcpFakeServer) -> None:
    """End the server and cut its connections."""
    stop(server)
    for client in list(server.clients.values()):
        # One that is still being greeted has none.
        if hasattr(client, "writer"):
            client.writer.close()


def test_a_server_lost_for_long_is_told(server, monkeypatch):
    async def work() -> None:
        limit = opened(max_requests_per_min=10)
        await asyncio.to_thread(lose, server)
        monkeypatch.setattr(redis_limit, "_MAX_OUTAGE_S", 0.1)
        assert await limit.take(1) == 1.0
        await asyncio.sleep(0.15)
        with pytest.raises(TransientError, match=r"Redis at 127\.0\.0\.1:\d+: no answer for 0\.1 s"):
            await limit.take(1)
        await limit.close()

    run(work())


def test_a_run_that_was_answered_before_does_not_need_the_server_to_start(monkeypatch):
    monkeypatch.setenv("LIMITS", "redis://127.0.0.1:9/0")

    async def work() -> float:
        limit = open_redis_limit(config(max_requests_per_min=10), must_answer=False)
        assert limit is not None
        wait_s = await limit.take(1)
        await limit.close()
        return wait_s

    assert run(work()) == 1.0


def test_no_name_of_a_variable_no_limit(monkeypatch):
    assert open_redis_limit(TeacherConfig(max_requests_per_min=10)) is None


@pytest.mark.parametrize(
    ("url", "limits", "words"),
    [
        ("", {"max_requests_per_min": 1}, "environment variable LIMITS: found no value"),
        ("redis://:geheim@127.0.0.1:9/0", {"max_requests_per_min": 1}, "no answer at 127.0.0.1:9"),
        ("http://u:geheim@host", {"max_requests_per_min": 1}, "another kind of URL"),
        ("redis://:geheim@host:port", {"max_requests_per_min": 1}, "no URL"),
        ("redis://:geheim@127.0.0.1:9/0?db=x", {"max_requests_per_min": 1}, "odd settings"),
        ("geheim", {"max_requests_per_min": 1}, "another kind of URL"),
        ("redis://:geheim@127.0.0.1:9/0", {}, "no limit beside it"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_sentence_without_the_password(monkeypatch, url, limits, words):
    monkeypatch.setenv("LIMITS", url)
    with pytest.raises(TeacherError) as caught:
        open_redis_limit(config(**limits))
    assert words in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert "geheim" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_the_password_does_not_show_in_the_repr(monkeypatch):
    monkeypatch.setenv("LIMITS", "redis://:geheim@127.0.0.1:9/0")
    limit = open_redis_limit(config(max_requests_per_min=10), must_answer=False)
    assert repr(limit) == "RedisLimit('127.0.0.1:9', {'requests': 10.0})"
