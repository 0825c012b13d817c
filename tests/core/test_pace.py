"""Pacing against endpoints that refuse, queue, break and recover, in virtual time: minutes take milliseconds."""

import asyncio
import heapq
import random
import statistics

import polars as pl
import pytest

from candist_core.annotate import annotate
from candist_core.errors import RateLimitedError, TransientError
from candist_core.pace import Pace
from candist_core.patience import PATIENCE, Patience
from candist_core.ports import Quota, Quotas
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig
from candist_core.window import Window
from tests.clock import run_virtually
from tests.endpoints import Cap, Concurrency, Endpoint, Minute, Outage, Queue, Shaky, spread
from tests.fakes import MemoryLog

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))


def label(endpoint, n=1000, log=None, share=lambda: 1.0, patience=PATIENCE, **settings):
    """Annotate n texts in virtual time."""
    config = TeacherConfig(**{"max_in_flight": 64, "max_tokens": 10} | settings)
    texts = pl.DataFrame({"doc_id": [f"d{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)]})
    prompt = compile_prompt(SPEC, config)
    work = annotate(texts, SPEC, prompt, endpoint, log or MemoryLog(), config, share=share, patience=patience)
    return run_virtually(work)


def most_in(times, seconds):
    """The most of these times within any such span."""
    times, first, most = sorted(times), 0, 0
    for i, at in enumerate(times):
        while at - times[first] > seconds:
            first += 1
        most = max(most, i - first + 1)
    return most


@pytest.mark.parametrize("retry_after_s", [1.0, 0.02, None])
def test_a_cap_of_requests_is_found_out_and_used_to_the_full_with_few_requests_wasted(retry_after_s):
    rates, wasted = [], []
    for seed in range(5):
        endpoint = Endpoint(Cap(50, 50, retry_after_s), latency_s=spread(0.2), seed=seed)
        assert label(endpoint).annotations["status"].to_list() == ["ok"] * 1000
        rates.append(endpoint.per_s())
        wasted.append(endpoint.n_wasted / 1000)
    assert statistics.median(rates) >= 49
    assert statistics.median(wasted) <= 0.03


@pytest.mark.parametrize(("per_s", "burst", "in_flight"), [(50, 5, 16), (50, 500, 64), (200, 200, 64), (50, 50, 16)])
def test_other_caps_are_used_well_too(per_s, burst, in_flight):
    endpoint = Endpoint(Cap(per_s, burst), latency_s=spread(0.2))
    assert label(endpoint, n=3000, max_in_flight=in_flight).rejects.height == 0
    assert endpoint.per_s() >= 0.8 * min(per_s, in_flight / 0.2)
    assert endpoint.n_wasted <= 0.06 * 3000


def test_refusals_by_chance_cost_no_row_and_little_speed():
    for seed in range(10):
        endpoint = Endpoint(Shaky(0.1, 1.0, seed), seed=seed)
        assert label(endpoint, max_attempts=1).annotations["status"].to_list() == ["ok"] * 1000
        assert endpoint.per_s() >= 145, seed


def test_a_cap_of_requests_under_way_is_lived_with():
    endpoint = Endpoint(Concurrency(16), latency_s=spread(0.2))
    assert label(endpoint, n=3000).rejects.height == 0
    assert endpoint.per_s() >= 0.8 * 80
    assert endpoint.n_wasted <= 0.1 * 3000


def test_an_endpoint_closed_for_minutes_gets_few_requests_and_all_rows_are_labelled_after():
    endpoint = Endpoint(Outage(5.0, 125.0), latency_s=spread(0.2))
    assert label(endpoint, n=5000).annotations["status"].to_list() == ["ok"] * 5000
    assert endpoint.n_wasted <= 64 + 40
    begin = endpoint.asked_at[0]
    assert endpoint.per_s(begin + 155, begin + 160) >= 0.8 * 64 / 0.2 or max(endpoint.answered_at) < begin + 160


def test_a_storm_of_errors_passes_and_loses_no_row():
    failing = lambda: TransientError("endpoint", "HTTP 500")  # noqa: E731
    endpoint = Endpoint(Outage(2.0, 12.0, failing), latency_s=spread(0.2))
    assert label(endpoint, n=2000).annotations["status"].to_list() == ["ok"] * 2000


def test_an_endpoint_closed_for_ever_ends_the_shard():
    patience = Patience(base_s=0.5, cap_s=8.0, max_pause_s=100.0)
    endpoint = Endpoint(Outage(0.0, float("inf")))
    with pytest.raises(TransientError, match="over 100 s") as caught:
        label(endpoint, patience=patience)
    assert not isinstance(caught.value, RateLimitedError)
    assert endpoint.n_wasted <= 64 + 30


def test_the_users_limit_of_requests_holds_in_every_minute():
    endpoint = Endpoint()
    label(endpoint, n=2000, max_requests_per_min=600)
    assert most_in(endpoint.asked_at, 60.0) <= 600 + 10 + 1
    assert endpoint.per_s() >= 9.8


def test_the_users_limit_of_tokens_holds_in_every_minute():
    endpoint = Endpoint(tokens=(100, 20))
    label(endpoint, n=2000, max_tokens_per_min=60_000)
    n = most_in(endpoint.asked_at, 60.0)
    assert 450 <= n <= 60_000 / 120 * 1.1


def test_half_a_share_is_half_the_rate_within_a_second():
    endpoint, start = Endpoint(), []

    def share():
        import time

        start.append(time.monotonic())
        return 1.0 if time.monotonic() - start[0] < 30 else 0.5

    label(endpoint, n=1200, share=share, max_requests_per_min=1200)
    before = sum(start[0] + 10 <= at < start[0] + 29 for at in endpoint.asked_at) / 19
    after = sum(start[0] + 31 <= at < start[0] + 50 for at in endpoint.asked_at) / 19
    assert before == pytest.approx(20, rel=0.05)
    assert after == pytest.approx(10, rel=0.05)


def test_a_share_of_nothing_ends_the_call_and_keeps_what_came():
    import time

    endpoint, log, start = Endpoint(latency_s=0.2), MemoryLog(), []

    def share():
        start.append(time.monotonic())
        return 1.0 if time.monotonic() - start[0] < 5 else 0.0

    result = label(endpoint, n=5000, log=log, share=share)
    assert max(endpoint.asked_at) <= start[0] + 6
    assert 0 < result.annotations.height == len(log.kept) == 5000 - result.n_left


@pytest.mark.parametrize("gate", [lambda: Cap(50, 50, is_told=True), lambda: Minute(3000)])
def test_told_limits_are_kept_after_the_first_burst(gate):
    endpoint = Endpoint(gate(), latency_s=spread(0.2))
    assert label(endpoint, n=4000).rejects.height == 0
    # Fewer than what is under way when a limit that nobody could know of is met first.
    assert endpoint.n_wasted <= 20


def test_without_a_bound_requests_under_way_rise_while_that_helps():
    endpoint = Endpoint(Concurrency(400), latency_s=spread(0.2))
    label(endpoint, n=20_000, max_in_flight=None)
    assert endpoint.max_in_flight >= 300
    queue = Endpoint(latency_s=Queue(per_s=100))
    label(queue, n=5000, max_in_flight=None)
    assert queue.max_in_flight <= 64 * 1.5


def test_a_bound_is_never_passed():
    endpoint = Endpoint(latency_s=spread(0.2))
    label(endpoint, n=2000, max_in_flight=10)
    assert endpoint.max_in_flight == 10


def test_rising_latency_halves_what_is_under_way():
    window, now = Window(64), 0.0
    sizes = []
    for i in range(11):
        latency_s = 0.6 if i >= 5 and window.size > 32 else 0.2
        for _ in range(window.size):
            now += latency_s / window.size
            window.left(window.size)
            window.answered(now, latency_s)
        sizes.append(window.size)
    assert sizes[4] == 64
    assert min(sizes) <= 32


def test_a_slow_tail_takes_as_long_as_the_ideal_schedule():
    chance = random.Random(0)
    slow = {f"d{i}": 3.0 if chance.random() < 0.02 else 0.2 for i in range(1000)}

    class Tailed(Endpoint):
        async def ask(self, request):
            self._latency_s = slow[request.doc_id]
            return await super().ask(request)

    slots = [0.0] * 64
    for latency_s in slow.values():
        heapq.heapreplace(slots, slots[0] + latency_s)
    endpoint = Tailed(trip_s=0.0)
    label(endpoint)
    assert max(endpoint.answered_at) - endpoint.asked_at[0] <= max(slots) / 0.98


def test_what_the_endpoint_says_beside_a_refusal_is_heard():
    async def once():
        pace = Pace()
        request = compile_prompt(SPEC, TeacherConfig()).request("d", "text")
        sent = await pace.ready(request)
        pace.refused(sent, RateLimitedError("e", "429", 0.0), Quotas(requests=Quota(100.0, 0.0, 10.0)))
        started_at = asyncio.get_running_loop().time()
        await pace.ready(request)
        return asyncio.get_running_loop().time() - started_at

    assert 0.05 <= run_virtually(once()) <= 0.2


def test_backoff_is_the_same_for_the_same_request_and_differs_between_requests():
    waits = [PATIENCE.backoff_s(key, 3) for key in ("a", "a", "b")]
    assert waits[0] == waits[1] != waits[2]


def test_backoff_stays_below_its_doubling_bound():
    patience = Patience(base_s=1.0, cap_s=8.0, max_pause_s=100.0)
    for n_attempts, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (50, 8.0), (5000, 8.0)]:
        waits = [patience.backoff_s(str(key), n_attempts) for key in range(200)]
        assert bound / 2 < max(waits) <= bound
        assert min(waits) < bound / 4


def test_backoff_waits_no_shorter_than_the_endpoint_asked_and_no_longer_than_patience():
    patience = Patience(base_s=1.0, cap_s=8.0, max_pause_s=100.0)
    assert patience.backoff_s("a", 1, retry_after_s=5.0) == 5.0
    assert patience.backoff_s("a", 1, retry_after_s=5000.0) == 100.0
