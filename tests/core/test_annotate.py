import asyncio
import logging
import threading
import time

import polars as pl
import pytest

from candist_core.annotate import annotate
from candist_core.budget import Allowance, Price
from candist_core.errors import ContractError, RateLimitedError, RowError, TeacherError, TransientError
from candist_core.pace import Patience
from candist_core.ports import Reply
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig
from tests.fakes import MemoryLog, ScriptedTeacher

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))
PROMPT = compile_prompt(SPEC, TeacherConfig(max_tokens=10))
HASTE = Patience(base_s=0.001, cap_s=0.002, max_pause_s=0.5)
FAILING = TransientError("endpoint", "HTTP 500")


def texts_of(*texts):
    return pl.DataFrame({"doc_id": [f"d{i}" for i in range(len(texts))], "text": list(texts)})


def many(n):
    return texts_of(*(f"text {i}" for i in range(n)))


def run(texts, teacher, log=None, **settings):
    asked = {"max_in_flight": 4, "max_attempts": 3, "max_tokens": 10, "temperature": 0.5}
    asked |= {name: settings.pop(name) for name in tuple(settings) if name in TeacherConfig.model_fields}
    settings = {"patience": HASTE} | settings
    return asyncio.run(annotate(texts, SPEC, PROMPT, teacher, log or MemoryLog(), TeacherConfig(**asked), **settings))


def bound_usd(price, text="text 0"):
    return Allowance(1.0, price).bound_usd(PROMPT.request("d0", text))


def test_candidates_keep_the_teachers_order_and_rows_that_of_the_texts():
    def answer(request):
        return '{"candidates": ["ham", "spam"]}' if request.text == "b" else '{"candidates": ["spam"]}'

    result = run(texts_of("a", "b", "c"), ScriptedTeacher(answer))
    assert result.annotations.to_dicts() == [
        {"doc_id": f"d{i}", "candidates": found, "scores": None, "status": "ok", "teacher": "scripted:1",
         "request_key": PROMPT.request("x", text).key}
        for i, (text, found) in enumerate([("a", ["spam"]), ("b", ["ham", "spam"]), ("c", ["spam"])])
    ]  # fmt: skip
    assert result.rejects.height == 0
    assert result.n_left == 0


def test_each_status_of_a_reply_reaches_its_row_and_only_failed_rows_are_rejects():
    replies = {
        "abstains": '{"candidates": []}', "rambles": "well, who knows",
        "refuses": "I'm sorry, I cannot help with that", "scores": '{"candidates": {"ham": 0.75}}',
    }  # fmt: skip
    script = {"d4": [RowError("rejected by the endpoint", "HTTP 400: bad")]}
    result = run(texts_of(*replies, "poison"), ScriptedTeacher(lambda request: replies[request.text], script))
    assert result.annotations["status"].to_list() == ["abstained", "unparsed", "refused", "ok", "failed"]
    assert result.annotations["candidates"].to_list() == [[], [], [], ["ham"], []]
    assert result.annotations["scores"].to_list() == [None, None, None, [0.75], None]
    assert result.rejects.rows() == [("d4", "annotate", "rejected by the endpoint", "HTTP 400: bad")]


def test_no_more_requests_are_under_way_than_slots_and_all_slots_are_used():
    teacher = ScriptedTeacher(latency_s=0.005)
    run(many(40), teacher, max_in_flight=7)
    assert teacher.max_in_flight == 7


def test_a_slow_request_does_not_hold_up_the_other_slots():
    class OneSlow(ScriptedTeacher):
        async def ask(self, request):
            if request.doc_id == "d0":
                self.asked.append("d0 begins")
                while len(self.asked) < 20:
                    await asyncio.sleep(0.001)
                reply = await super().ask(request)
                self.asked.append("d0 ends")
                return reply
            return await super().ask(request)

    teacher = OneSlow()
    # In batches of two, the first batch would wait for d0 while d0 waits for the nineteen others.
    assert run(many(20), teacher, max_in_flight=2).annotations.height == 20
    assert teacher.asked[-1] == "d0 ends"


def test_a_shard_larger_than_memory_for_tasks_never_has_more_tasks_than_slots():
    peak = 0

    class Counting(ScriptedTeacher):
        async def ask(self, request):
            nonlocal peak
            peak = max(peak, len(asyncio.all_tasks()))
            return await super().ask(request)

    run(many(300), Counting(), max_in_flight=5)
    # Five slots, the flusher and the one that looks whether to stop, their waits, and the call itself.
    assert peak <= 10


def test_equal_texts_are_asked_once_and_each_keeps_its_row():
    teacher = ScriptedTeacher()
    result = run(texts_of("same", "same", "other", "same"), teacher)
    assert teacher.asked == ["d0", "d2"]
    assert result.annotations["doc_id"].to_list() == ["d0", "d1", "d2", "d3"]
    assert result.annotations["request_key"].n_unique() == 2
    assert result.usage.n_requests == 2


def test_the_detail_of_a_reject_is_clipped():
    teacher = ScriptedTeacher(script={"d0": [RowError("rejected by the endpoint", "x" * 9999)]})
    assert run(texts_of("a"), teacher).rejects["detail"].str.len_chars().to_list() == [2000]


def test_every_row_of_a_text_that_fails_is_a_reject():
    teacher = ScriptedTeacher(script={"d0": [RowError("rejected by the endpoint", "no")]})
    result = run(texts_of("same", "same"), teacher)
    assert result.rejects["doc_id"].to_list() == ["d0", "d1"]


def test_kept_replies_are_reused_and_cost_nothing():
    log = MemoryLog()
    first = run(many(6), ScriptedTeacher(cost_usd=0.5), log)
    teacher = ScriptedTeacher(lambda request: '{"candidates": ["ham"]}')
    second = run(many(8), teacher, log)
    assert teacher.asked == ["d6", "d7"]
    assert second.annotations.head(6).equals(first.annotations)
    assert (first.usage.n_requests, first.usage.cost_usd) == (6, 3.0)
    assert (second.usage.n_requests, second.usage.n_reused, second.usage.cost_usd) == (2, 6, 0.0)


def test_annotations_are_the_same_whatever_the_slots_the_retries_and_the_restarts():
    plain = run(many(30), ScriptedTeacher(), max_in_flight=1)
    log = MemoryLog()
    stumbling = ScriptedTeacher(
        script={"d3": [FAILING], "d9": [RateLimitedError("endpoint")], "d20": [TeacherError("t", "f", "w", "n")]}
    )
    with pytest.raises(TeacherError):
        run(many(30), stumbling, log, max_in_flight=8)
    assert run(many(30), ScriptedTeacher(), log, max_in_flight=3).annotations.equals(plain.annotations)


def test_tokens_and_costs_are_summed_and_replies_without_a_price_counted():
    usage = run(many(3), ScriptedTeacher(cost_usd=0.25)).usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (30, 12, 6)
    assert (usage.cost_usd, usage.n_unpriced) == (0.75, 0)
    usage = run(many(3), ScriptedTeacher(cost_usd=None)).usage
    assert (usage.cost_usd, usage.n_unpriced) == (0.0, 3)


def test_a_transient_error_is_tried_again():
    teacher = ScriptedTeacher(script={"d1": [FAILING, FAILING]})
    result = run(many(3), teacher)
    assert teacher.asked.count("d1") == 3
    assert result.annotations["status"].to_list() == ["ok"] * 3


def test_a_row_without_attempts_left_fails_and_the_others_go_on():
    teacher = ScriptedTeacher(script={"d1": [FAILING] * 9})
    result = run(many(6), teacher)
    assert teacher.asked.count("d1") == 3
    assert result.rejects.rows() == [("d1", "annotate", "transient", "endpoint: HTTP 500")]
    assert result.annotations["status"].to_list() == ["ok", "failed", "ok", "ok", "ok", "ok"]


def test_a_refusal_for_the_rate_uses_up_no_attempt():
    teacher = ScriptedTeacher(script={"d1": [RateLimitedError("endpoint")] * 7})
    result = run(many(3), teacher, max_attempts=1)
    assert teacher.asked.count("d1") == 8
    assert result.annotations["status"].to_list() == ["ok"] * 3


def test_attempts_lost_to_errors_are_counted_apart_from_refusals_for_the_rate():
    steps = [FAILING, RateLimitedError("endpoint"), RateLimitedError("endpoint"), FAILING]
    result = run(many(2), ScriptedTeacher(script={"d1": steps}), max_attempts=3)
    assert result.annotations["status"].to_list() == ["ok"] * 2


def test_a_refused_request_waits_as_long_as_asked_and_its_slot_goes_on():
    times = {}

    class Timed(ScriptedTeacher):
        async def ask(self, request):
            times.setdefault(request.doc_id, []).append(asyncio.get_running_loop().time())
            return await super().ask(request)

    teacher = Timed(script={"d0": [RateLimitedError("endpoint", "HTTP 429", 0.08)]}, latency_s=0.002)
    run(many(12), teacher, max_in_flight=1)
    first, second = times["d0"]
    assert second - first >= 0.08
    assert max(when for doc_id, (when, *_) in times.items() if doc_id != "d0") < second


def test_a_storm_of_refusals_ends_in_a_transient_error_for_the_whole_shard():
    teacher = ScriptedTeacher(script={f"d{i}": [RateLimitedError("endpoint")] * 9999 for i in range(3)})
    patience = Patience(base_s=0.01, cap_s=0.02, max_pause_s=0.1)
    with pytest.raises(TransientError, match=r"over 0\.1 s") as caught:
        run(many(3), teacher, patience=patience)
    assert not isinstance(caught.value, RateLimitedError)


def test_a_terminal_error_stops_at_once_and_keeps_the_replies_that_arrived():
    stop = TeacherError("teacher", "no quota left", "credit", "pay")
    log, teacher = MemoryLog(), ScriptedTeacher(script={"d5": [stop]}, latency_s=0.001)
    with pytest.raises(TeacherError, match="no quota left"):
        run(many(500), teacher, log, max_in_flight=2)
    assert len(teacher.asked) < 12
    assert len(log.kept) >= 4
    assert not log.pending


def test_an_endpoint_that_never_answers_ends_in_one_sentence_about_the_endpoint():
    teacher = ScriptedTeacher(
        script={f"d{i}": [TransientError("http://127.0.0.1:1/v1", "connection refused")] * 9 for i in range(400)}
    )
    with pytest.raises(TeacherError) as caught:
        run(many(400), teacher)
    assert str(caught.value) == (
        "teacher scripted:1 at http://127.0.0.1:1/v1: found no answer to the first 8 texts in 3 attempts each "
        "(connection refused), wanted an endpoint that answers chat completions; "
        "check that it runs and that teacher.base_url is right, then run again"
    )
    assert len(teacher.asked) <= (8 + 4) * 3


def elsewhere():
    """A log that holds a reply of another shard."""
    return MemoryLog([Reply(PROMPT.request("x", "elsewhere").key, "x", '{"candidates": ["spam"]}', "stop")])


def test_an_outage_at_the_start_of_a_shard_is_no_wrong_endpoint_once_another_shard_was_answered():
    teacher = ScriptedTeacher(script={f"d{i}": [FAILING] * 9 for i in range(400)})
    with pytest.raises(TransientError, match="no answer"):
        run(many(400), teacher, elsewhere())


def test_an_outage_that_ends_is_waited_out_by_a_shard_that_begins_in_it():
    up_at = time.monotonic() + 0.2

    class Rising(ScriptedTeacher):
        async def ask(self, request):
            if time.monotonic() < up_at:
                self.asked.append(request.doc_id)
                raise FAILING
            return await super().ask(request)

    patience = Patience(base_s=0.02, cap_s=0.1, max_pause_s=5.0)
    teacher = Rising()
    result = run(many(100), teacher, elsewhere(), max_in_flight=32, max_attempts=5, patience=patience)
    assert result.annotations["status"].unique().to_list() == ["ok"]
    # Once the window has failed, only probes leave.
    assert len(teacher.asked) <= 100 + 32 + 10


def test_one_text_that_always_fails_alone_in_a_shard_is_a_reject_once_another_shard_was_answered():
    result = run(many(1), ScriptedTeacher(script={"d0": [FAILING] * 9}), elsewhere())
    assert result.rejects.select("doc_id", "reason").rows() == [("d0", "transient")]


def test_with_one_request_under_way_a_first_text_that_always_fails_says_nothing_of_the_endpoint():
    result = run(many(50), ScriptedTeacher(script={"d0": [FAILING] * 9}), max_in_flight=1)
    assert result.rejects["doc_id"].to_list() == ["d0"]
    assert result.annotations["status"].to_list().count("ok") == 49


def test_the_samples_of_one_text_that_always_fails_are_not_taken_for_many_texts():
    def always(request):
        raise FAILING

    class Poisoned(ScriptedTeacher):
        async def ask(self, request):
            return always(request) if request.doc_id == "d0" else await super().ask(request)

    result = run(many(20), Poisoned(), samples=10, temperature=0.5, max_in_flight=1)
    assert result.rejects["doc_id"].to_list() == ["d0"]


def test_an_endpoint_that_refused_for_the_rate_is_no_wrong_endpoint():
    teacher = ScriptedTeacher(script={"d0": [RateLimitedError("endpoint"), *[FAILING] * 9]})
    result = run(many(1), teacher)
    assert result.rejects["reason"].to_list() == ["transient"]


def test_many_failing_rows_with_answers_between_them_are_rejects():
    script = {f"d{i}": [FAILING] * 9 for i in range(1, 60, 2)}
    result = run(many(60), ScriptedTeacher(script=script), max_in_flight=1)
    assert result.rejects.height == 30


def test_an_endpoint_that_falls_silent_later_is_a_transient_error_and_rejects_nothing_for_good():
    log = MemoryLog()
    teacher = ScriptedTeacher(script={f"d{i}": [FAILING] * 9 for i in range(20, 400)})
    with pytest.raises(TransientError, match="no answer to 8 texts in a row"):
        run(many(400), teacher, log)
    assert len(log.kept) == 20


def test_a_few_rows_that_always_fail_on_a_restart_are_rejects_and_not_a_wrong_endpoint():
    log = MemoryLog()
    poison = {"d2": [FAILING] * 99}
    first = run(many(4), ScriptedTeacher(script=poison), log)
    second = run(many(4), ScriptedTeacher(script=poison), log)
    assert second.annotations.equals(first.annotations)
    assert second.rejects.equals(first.rejects)


def test_an_error_that_nobody_foresaw_is_not_taken_for_a_bad_row():
    with pytest.raises(ZeroDivisionError):
        run(many(9), ScriptedTeacher(script={"d4": [ZeroDivisionError()]}))


class OneEndsTheRun(ScriptedTeacher):
    """The key is refused at d3 while twenty are under way; d7 never comes back."""

    n_begun = 0

    async def ask(self, request):
        self.n_begun += 1
        if request.doc_id == "d7":
            await asyncio.Event().wait()
        while request.doc_id == "d3" and self.n_begun < 20:
            await asyncio.sleep(0)
        await asyncio.sleep(0.0 if request.doc_id == "d3" else 0.05)
        return await super().ask(request)


def test_an_error_that_ends_the_run_leaves_replies_under_way_time_to_come_back_and_asks_nothing_more(monkeypatch):
    # Five seconds in earnest; a test need not last that long.
    monkeypatch.setattr("candist_core.asking._GRACE_S", 0.2)
    price, log = Price(1.0, 1.0, 1.0), MemoryLog()
    allowance = Allowance(1.0, price)
    teacher = OneEndsTheRun(script={"d3": [TeacherError("teacher", "a refusal", "a key", "set one")]}, cost_usd=1e-6)
    with pytest.raises(TeacherError, match="a refusal"):
        run(many(400), teacher, log, max_in_flight=20, allowance=allowance)
    assert teacher.n_begun == 20
    assert {reply.doc_id for reply in log.kept.values()} == {f"d{i}" for i in range(20)} - {"d3", "d7"}
    assert allowance.reserved_usd == pytest.approx(0.0)
    assert allowance.spent_usd == pytest.approx(18e-6)


@pytest.mark.slow
def test_requests_that_wait_for_another_attempt_do_not_hold_up_the_end_of_a_failed_run():
    script = {f"d{i}": [FAILING] * 9 for i in range(3)} | {"d3": [TeacherError("teacher", "a", "b", "c")]}
    started_at = time.monotonic()
    with pytest.raises(TeacherError):
        run(many(4), ScriptedTeacher(script=script, latency_s=0.01), patience=Patience(base_s=600.0, cap_s=600.0))
    assert time.monotonic() - started_at < 3.0


def test_replies_under_way_while_the_store_is_away_are_kept(monkeypatch):
    monkeypatch.setattr("candist_core.asking.FLUSH_REPLIES", 4)

    class Away(MemoryLog):
        def flush(self):
            if self.pending and len(self.pending) < 20:
                raise TransientError("store", "HTTP 503")
            super().flush()

    log = Away()

    def latency(request):
        return 0.01 if int(request.doc_id[1:]) < 4 else 0.1

    class Teacher(ScriptedTeacher):
        async def ask(self, request):
            await asyncio.sleep(latency(request))
            return await super().ask(request)

    with pytest.raises(TransientError, match="HTTP 503"):
        run(many(400), Teacher(), log, max_in_flight=20)
    assert 20 <= len(log.kept) < 30


def test_the_allowance_is_never_overspent_though_many_slots_spend_at_once():
    price = Price(1.0, 1.0, 1.0)
    bound = bound_usd(price)
    allowance = Allowance(10.5 * bound, price)
    seen = []

    class Watching(ScriptedTeacher):
        async def ask(self, request):
            seen.append(allowance.spent_usd + allowance.reserved_usd)
            return await super().ask(request)

    log, teacher = MemoryLog(), Watching(latency_s=0.001, cost_usd=bound)
    result = run(many(100), teacher, log, max_in_flight=64, allowance=allowance)
    assert max(seen) <= 10.5 * bound
    assert (len(teacher.asked), result.annotations.height, result.n_left) == (10, 10, 90)
    assert result.usage.cost_usd == pytest.approx(10 * bound)
    assert len(log.kept) == 10


def test_a_slot_without_allowance_waits_for_replies_under_way_instead_of_ending():
    price = Price(1.0, 1.0, 1.0)
    bound = bound_usd(price)
    teacher = ScriptedTeacher(latency_s=0.001, cost_usd=0.0)
    run(many(60), teacher, max_in_flight=8, allowance=Allowance(2.5 * bound, price))
    # Two bounds fit at a time; six slots wait, and take over whenever one is given back.
    assert (len(teacher.asked), teacher.max_in_flight) == (60, 2)


def test_what_replies_cost_less_than_their_bound_pays_for_further_texts():
    price = Price(1.0, 1.0, 1.0)
    bound = bound_usd(price)
    teacher = ScriptedTeacher(latency_s=0.001, cost_usd=bound / 10)
    result = run(many(100), teacher, max_in_flight=64, allowance=Allowance(3.05 * bound, price))
    # The last request needs a whole bound: 21 tenths are spent when less than that is left.
    assert result.annotations.height == 21
    assert teacher.max_in_flight == 3


def test_a_reply_without_a_cost_uses_up_its_whole_bound():
    price = Price(1.0, 1.0, 1.0)
    teacher = ScriptedTeacher(cost_usd=None)
    result = run(many(20), teacher, allowance=Allowance(5.5 * bound_usd(price), price))
    assert result.annotations.height == 5
    assert (result.usage.total_usd, result.usage.n_unpriced) == (0.0, 5)
    assert result.usage.charged_usd == pytest.approx(sum(bound_usd(price, f"text {i}") for i in range(5)))


def test_a_kept_reply_without_a_cost_counts_as_its_whole_bound():
    price, log = Price(1.0, 1.0, 1.0), MemoryLog()
    run(many(5), ScriptedTeacher(cost_usd=None), log)
    result = run(many(10), ScriptedTeacher(cost_usd=None), log, allowance=Allowance(7.5 * bound_usd(price), price))
    usage = result.usage
    assert (usage.n_reused, usage.n_requests, usage.n_unpriced, result.n_left) == (5, 2, 7, 3)
    assert usage.charged_usd == pytest.approx(7 * bound_usd(price))


def test_kept_replies_count_towards_the_allowance():
    price = Price(1.0, 1.0, 1.0)
    bound = bound_usd(price)
    log, teacher = MemoryLog(), ScriptedTeacher(cost_usd=bound)
    assert run(many(5), teacher, log).usage.cost_usd == pytest.approx(5 * bound)
    result = run(many(20), teacher, log, allowance=Allowance(7.5 * bound, price))
    assert result.usage.n_reused == 5
    assert result.usage.reused_usd == pytest.approx(5 * bound)
    assert result.usage.n_requests == 2
    assert result.n_left == 13


def test_failed_requests_give_their_allowance_back():
    price = Price(1.0, 1.0, 1.0)
    bound = bound_usd(price)
    teacher = ScriptedTeacher(script={"d0": [RowError("rejected by the endpoint", "")]}, cost_usd=bound)
    result = run(many(9), teacher, max_in_flight=1, allowance=Allowance(2.5 * bound, price))
    assert result.annotations["doc_id"].to_list() == ["d0", "d1", "d2"]


def test_reused_replies_need_no_allowance():
    log = MemoryLog()
    run(many(5), ScriptedTeacher(), log)
    result = run(many(5), ScriptedTeacher(), log, allowance=Allowance(1e-12, Price(1, 1, 1)))
    assert (result.annotations.height, result.n_left) == (5, 0)


def test_an_equal_text_that_was_not_asked_counts_among_those_left():
    result = run(texts_of("a", "a", "b"), ScriptedTeacher(), allowance=Allowance(1e-12, Price(1, 1, 1)))
    assert (result.annotations.height, result.n_left) == (0, 3)
    assert result.rejects.height == 0


class Batches(ScriptedTeacher):
    """What is asked together travels together; of the first batch only so many requests have a result."""

    def __init__(self, n_first=None):
        super().__init__()
        self.n_first, self.sizes = n_first, []
        self.waiting, self.sending = [], None

    async def ask(self, request):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        if self.sending is None or self.sending.done():
            self.sending = asyncio.create_task(self.send())
        await future
        return await super().ask(request)

    async def send(self):
        n = 0
        while len(self.waiting) > n:
            n = len(self.waiting)
            await asyncio.sleep(0.05)
        batch, self.waiting = self.waiting, []
        self.sizes.append(len(batch))
        n_answered = len(batch) if self.n_first is None or len(self.sizes) > 1 else self.n_first
        for i, future in enumerate(batch):
            expired = TransientError("endpoint", "a batch that is expired")
            future.set_result(None) if i < n_answered else future.set_exception(expired)


def test_a_shard_among_others_sends_all_of_its_requests_in_one_batch():
    teacher = Batches()
    result = run(many(100), teacher, mode="batch", share=lambda: 0.25)
    assert (teacher.sizes, result.annotations.height) == ([100], 100)


def test_a_shard_that_is_stopped_sends_no_batch():
    teacher = Batches()
    assert run(many(10), teacher, mode="batch", share=lambda: 0.0).n_left == 10
    assert teacher.sizes == []


def test_what_a_batch_left_without_a_result_goes_into_one_other():
    teacher = Batches(n_first=40)
    result = run(many(100), teacher, mode="batch")
    assert teacher.sizes == [100, 60]
    assert result.annotations["status"].to_list() == ["ok"] * 100


def test_the_256th_reply_starts_a_flush_beside_the_event_loop_and_the_end_another():
    log = MemoryLog()

    class Waiting(ScriptedTeacher):
        async def ask(self, request):
            # Beyond 256 replies and the slots, none comes before the flush: well before two seconds are over.
            started_at = time.monotonic()
            while len(self.asked) > 300 and not log.flushed:
                assert time.monotonic() - started_at < 1.5
                await asyncio.sleep(0.001)
            return await super().ask(request)

    run(many(600), Waiting(), log, max_in_flight=32)
    assert 256 <= log.flushed[0] <= 300 + 32
    assert sum(log.flushed) == 600
    assert threading.get_ident() not in log.flush_threads


def test_replies_wait_no_longer_for_their_flush_than_they_may(monkeypatch):
    # Two seconds in earnest; a test need not last that long.
    monkeypatch.setattr("candist_core.asking.FLUSH_AFTER_S", 0.05)
    log = MemoryLog()

    async def watch():
        work = asyncio.create_task(
            annotate(
                many(2),
                SPEC,
                PROMPT,
                ScriptedTeacher(latency_s=0.2),
                log,
                TeacherConfig(max_in_flight=1, max_attempts=1),
            )
        )
        await asyncio.sleep(0.3)
        assert (len(log.kept), work.done()) == (1, False)
        await work

    asyncio.run(watch())


def test_a_cancelled_call_keeps_the_replies_that_arrived():
    log = MemoryLog()

    async def cancel():
        teacher = ScriptedTeacher(latency_s=0.002)
        work = asyncio.create_task(
            annotate(many(1000), SPEC, PROMPT, teacher, log, TeacherConfig(max_in_flight=2, max_attempts=1))
        )
        await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return teacher

    teacher = asyncio.run(cancel())
    assert 2 <= len(teacher.asked) - 2 <= len(log.kept) <= len(teacher.asked) < 1000
    assert not log.pending


def test_a_reply_is_kept_before_it_is_read():
    events = []

    class Noting(MemoryLog):
        def append(self, reply):
            events.append("kept")
            super().append(reply)

    class Unreadable(str):
        __slots__ = ()

        def __getattribute__(self, name):
            if name != "__class__":
                events.append("read")
            return str.__getattribute__(self, name)

    run(texts_of("a"), ScriptedTeacher(lambda request: Unreadable("spam")), Noting())
    assert events[:2] == ["kept", "read"]


def test_a_log_that_cannot_keep_replies_stops_the_call():
    class Full(MemoryLog):
        def append(self, reply):
            raise OSError(28, "no space left")

    teacher = ScriptedTeacher()
    with pytest.raises(OSError, match="no space left"):
        run(many(100), teacher, Full())
    assert len(teacher.asked) <= 8


def test_no_texts_give_empty_tables_and_ask_nothing():
    teacher = ScriptedTeacher()
    result = run(texts_of().cast(pl.String), teacher)
    assert (result.annotations.height, result.rejects.height, result.n_left, teacher.asked) == (0, 0, 0, [])


def test_a_frame_that_is_no_texts_table_is_refused():
    with pytest.raises(ContractError, match="texts/1"):
        run(pl.DataFrame({"doc_id": ["a"]}), ScriptedTeacher())


def test_progress_is_told_at_the_start_and_at_the_end():
    told = []
    run(many(10), ScriptedTeacher(cost_usd=0.5), on_progress=told.append, part="00007")
    assert (told[0].done, told[0].total, told[0].part) == (0, 10, "00007")
    assert (told[-1].done, told[-1].total, told[-1].cost_usd) == (10, 10, 5.0)


def test_a_shard_leaves_one_log_line_with_numbers_and_no_text(caplog):
    replies = {"spam offer": '{"candidates": []}'}
    with caplog.at_level(logging.INFO, logger="candist_core"):
        run(texts_of("spam offer"), ScriptedTeacher(lambda request: replies[request.text]), part="00007")
    (line,) = caplog.messages
    assert line.startswith("annotated 1 rows of 00007, 1 abstained, 0 left, 0 reused replies, 12 tokens, $0.0000")
    assert "offer" not in line


def test_a_kept_reply_is_read_by_todays_parser():
    request = PROMPT.request("d0", "a")
    log = MemoryLog([Reply(request.key, "elsewhere", "Label: HAM", "stop")])
    assert run(texts_of("a"), ScriptedTeacher(), log).annotations["candidates"].to_list() == [["ham"]]
