import asyncio

import pytest

from candist_core.errors import RateLimitedError, TransientError
from candist_core.pace import Pace, Patience

PATIENCE = Patience(base_s=1.0, cap_s=8.0, max_pause_s=100.0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def pace(time):
    return Pace(PATIENCE, clock=lambda: time.now, sleep=time.sleep)


def refusal(retry_after_s=None):
    return RateLimitedError("endpoint", "HTTP 429", retry_after_s)


def test_without_a_refusal_nobody_waits(pace, time):
    assert asyncio.run(pace.ready("a")) == 1000.0
    assert time.slept == []


def test_a_refusal_makes_everyone_wait_at_least_as_long_as_asked(pace, time):
    pace.refused(1000.0, refusal(retry_after_s=3.0))
    assert 1003.0 <= asyncio.run(pace.ready("a")) <= 1003.0 + 1.5


def test_slots_set_out_at_different_times_after_a_pause():
    starts = set()
    for key in "abcdefgh":
        time = Time()
        pace = Pace(PATIENCE, clock=lambda time=time: time.now, sleep=time.sleep)
        pace.refused(1000.0, refusal(4.0))
        starts.add(asyncio.run(pace.ready(key)))
    assert len(starts) == 8
    assert all(1004.0 <= start <= 1006.0 for start in starts)


def test_refusals_of_requests_sent_before_the_pause_do_not_lengthen_it(pace, time):
    for _ in range(50):
        pace.refused(1000.0, refusal())
    assert asyncio.run(pace.ready("a")) <= 1000.0 + 1.0 + 0.5


def test_pauses_double_while_nothing_is_answered_and_start_small_after_an_answer(pace, time):
    pauses = []
    for _ in range(5):
        sent_at = asyncio.run(pace.ready("a"))
        pace.refused(sent_at, refusal())
        pauses.append(pace._resume_at - time.now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
    pace.answered()
    sent_at = asyncio.run(pace.ready("a"))
    pace.refused(sent_at, refusal())
    assert pace._resume_at - time.now == 1.0


def test_an_endpoint_that_refuses_everything_for_too_long_ends_the_shard(pace, time):
    def refuse_for_ever():
        while True:
            pace.refused(asyncio.run(pace.ready("a")), refusal())

    with pytest.raises(TransientError, match="over 100 s"):
        refuse_for_ever()
    assert 1080.0 < time.now <= 1100.0


def test_a_wish_to_be_spared_longer_than_our_patience_is_not_waited_for(pace, time):
    with pytest.raises(TransientError) as caught:
        pace.refused(1000.0, refusal(retry_after_s=3600.0))
    assert caught.value.retry_after_s == 3600.0
    assert not isinstance(caught.value, RateLimitedError)
    assert time.slept == []


def test_backoff_is_the_same_for_the_same_request_and_differs_between_requests():
    waits = [PATIENCE.backoff_s(key, 3) for key in ("a", "a", "b")]
    assert waits[0] == waits[1] != waits[2]


def test_backoff_stays_below_its_doubling_bound():
    for n_attempts, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (50, 8.0), (5000, 8.0)]:
        waits = [PATIENCE.backoff_s(str(key), n_attempts) for key in range(200)]
        assert bound / 2 < max(waits) <= bound
        assert min(waits) < bound / 4


def test_backoff_waits_no_shorter_than_the_endpoint_asked_and_no_longer_than_patience():
    assert PATIENCE.backoff_s("a", 1, retry_after_s=5.0) == 5.0
    assert PATIENCE.backoff_s("a", 1, retry_after_s=5000.0) == 100.0
