"""Who may spend and send how much: the purse, the window, and the shares of shards on a real Dask cluster."""

import asyncio
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import distributed
import polars as pl
import pytest
from distributed import Client, LocalCluster

from candist_core.annotate import annotate
from candist_core.budget import Allowance, Price
from candist_core.edges.chat import ChatWire
from candist_core.errors import TeacherError, TransientError
from candist_core.ports import Quotas, Reply, Request
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.teacher_config import TeacherConfig
from flows.annotation import Purse
from flows.clusters import make_cluster
from flows.window import Shards, run_window
from tasks.annotate import Grant
from tasks.groups import GroupResult, ShardsError
from tasks.shares import end_run, share_of_run
from tests.fakes import MemoryLog

BROKEN = TransientError("endpoint", "fell silent")
BAD_KEY = TeacherError("key", "a wrong one", "a right one", "set it")


@pytest.fixture(scope="module")
def threads() -> Iterator[LocalCluster]:
    with make_cluster(workers=3, processes=False) as cluster:
        yield cluster


class Piece:
    """What a submitted piece looks like to `run_window`; ends after some looks, or never."""

    def __init__(self, outcome: Any, n_looks: int | None = 1, status: str = "finished") -> None:
        self.outcome, self.n_looks, self.status = outcome, n_looks, status
        self.is_cancelled = False
        self.wrapped_future = self

    def done(self) -> bool:
        if self.n_looks is None:
            return False
        self.n_looks -= 1
        return self.n_looks < 0

    def cancel(self) -> None:
        self.is_cancelled = True

    def result(self, raise_on_failure: bool) -> Any:
        if isinstance(self.outcome, distributed.KilledWorker):
            raise self.outcome
        return self.outcome


# So long that no two of these go into one group.
LONG_S = 1000.0


def result_of(*outcomes: Any, seconds: float = LONG_S) -> GroupResult[Any]:
    """What a group says of its shards."""
    return GroupResult(outcomes, seconds)


@dataclass
class Spending:
    """Shards that cost a dollar a text, run under a purse as `annotate_shards` does."""

    purse: Purse
    n_texts: list[int]
    n_slots: int = 2
    n_done: dict[int, int] = field(default_factory=dict)
    grants: list[tuple[int, float | None]] = field(default_factory=list)

    def run(self) -> int:
        """Texts left."""
        still_open = set(range(len(self.n_texts)))

        def submit(group: Shards) -> Piece | None:
            (i,) = group
            if not self.purse.may_grant:
                return None
            n_expected = min(self.n_slots, len(still_open))
            grant = self.purse.grant(i, n_expected - self.purse.n_granted)
            self.grants.append((i, grant))
            affordable = self.n_texts[i] if grant is None else int(grant + 1e-9)
            return Piece(result_of(min(self.n_texts[i], affordable)), n_looks=1 + i % 3)

        def on_result(group: Shards, result: GroupResult[Any]) -> tuple[int, ...]:
            (i,), (n_done,) = group, result.outcomes
            is_short = n_done < self.n_texts[i]
            self.purse.settle(i, float(n_done), is_short)
            self.n_done[i] = n_done
            if not is_short:
                still_open.discard(i)
            return (i,) if is_short else ()

        run_window(submit, range(len(self.n_texts)), lambda: self.n_slots, on_result)
        return sum(self.n_texts) - sum(self.n_done.values())


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.window._POLL_S", 0.001)


def test_a_cap_is_spent_to_the_last_reply_and_never_passed():
    spending = Spending(Purse(25.0), [10] * 100)
    assert spending.run() == 975
    assert spending.purse.spent_usd == 25.0


def test_shards_that_could_buy_nothing_are_never_started():
    spending = Spending(Purse(25.0), [10] * 100)
    spending.run()
    assert {i for i, _ in spending.grants} <= {0, 1, 2, 3, 4}
    assert len(spending.grants) <= 10


@pytest.mark.parametrize("max_usd", [0.5, 1.0, 3.0, 9.5, 10.0, 99.0, 100.0])
def test_every_whole_dollar_is_used_whatever_the_cap(max_usd):
    spending = Spending(Purse(max_usd), [10] * 10)
    assert spending.run() == 100 - int(max_usd)


def test_a_cap_that_suffices_stops_nothing():
    spending = Spending(Purse(100.0), [10] * 10)
    assert spending.run() == 0
    assert [i for i, _ in spending.grants[:2]] == [0, 1]


def test_without_a_cap_each_shard_runs_once_without_a_bound():
    spending = Spending(Purse(None), [10] * 5)
    assert spending.run() == 0
    assert spending.grants == [(i, None) for i in range(5)]


def test_money_that_earlier_runs_spent_counts_before_anything_starts():
    purse = Purse(5.0)
    purse.settle(7, cost_usd=5.0)
    spending = Spending(purse, [10])
    assert spending.run() == 10
    assert spending.grants == []


def test_what_a_slow_shard_does_not_spend_goes_to_those_that_fell_short():
    purse = Purse(1.0)
    assert purse.grant(0, n_sharers=2) == 0.5
    assert purse.grant(1, n_sharers=1) == 0.5
    purse.settle(0, cost_usd=0.25, is_short=True)
    assert not purse.may_grant  # the other may still spend its half
    purse.settle(1, cost_usd=0.25)
    assert purse.may_grant
    assert purse.grant(0, n_sharers=1) == 0.75


def test_a_part_that_has_proved_too_little_is_not_granted_again():
    purse = Purse(1.0)
    purse.grant(0, n_sharers=2)
    purse.settle(0, cost_usd=0.0, is_short=True)
    assert purse.grant(0, n_sharers=2) == 1.0
    purse.settle(0, cost_usd=0.0, is_short=True)
    assert not purse.may_grant


def test_a_shard_that_failed_may_have_spent_its_whole_grant():
    purse = Purse(1.0)
    purse.grant(0, n_sharers=2)
    purse.forfeit(0)
    assert (purse.spent_usd, purse.free_usd, purse.n_granted) == (0.5, 0.5, 0)


class Gateway:
    """A teacher whose endpoint tells what a request used as some gateways do."""

    name, quotas = "openai:m", Quotas()

    def __init__(self, config: TeacherConfig, price: Price, usage: dict[str, int] | None) -> None:
        self.wire, self.usage = ChatWire(config, "sk-12345678", price), usage
        self.allowance, self.bounds = Allowance(0.0, price), list[float]()

    async def ask(self, request: Request) -> Reply:
        self.bounds.append(self.allowance.bound_usd(request))
        said = {"choices": [{"message": {"content": '{"candidates": ["a"]}'}, "finish_reason": "stop"}]}
        said |= {} if self.usage is None else {"usage": self.usage}
        return self.wire.reply(request, json.dumps(said).encode(), 0.1)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": 200}, {"prompt_tokens": 100}, {"completion_tokens": 9}])
def test_the_cap_holds_over_shards_whose_replies_do_not_tell_what_they_cost(usage):
    spec = TaskSpec(labels=(LabelSpec(name="a"), LabelSpec(name="b")))
    config, price = TeacherConfig(model="m"), Price(1000.0, 1000.0, 1000.0)
    teacher, prompt, log, n_left = Gateway(config, price, usage), compile_prompt(spec, config), MemoryLog(), 0
    # The second time as another run would: its purse is new, and what was kept counts.
    for purse in (Purse(10.0), Purse(10.0)):
        n_left = 0
        for i in range(8):
            texts = pl.DataFrame(
                {"doc_id": [f"{i}-{j}" for j in range(5)], "text": [f"{i} text {j}" for j in range(5)]}
            )
            grant = Grant(purse.grant(i, n_sharers=1) or 0.0, (0.0,))
            work = annotate(texts, spec, prompt, teacher, log, config, allowance=Allowance(grant.bound(0), price))
            result = asyncio.run(work)
            purse.settle(i, result.usage.charged_usd, result.n_left > 0)
            n_left += result.n_left
            report = SimpleNamespace(usage=result.usage)
            assert grant.less(0, report).more_usd == pytest.approx(purse.free_usd)
    assert 8.0 < sum(teacher.bounds) <= 10.0
    assert n_left == 40 - len(teacher.bounds)


def collect(pieces: dict[int, Piece], n_slots: int = 2) -> list[tuple[int, Any]]:
    results: list[tuple[int, Any]] = []
    started: list[int] = []

    def submit(group: Shards) -> Piece:
        (i,) = group
        started.append(i)
        assert len(started) - len(results) <= n_slots + len([p for p in pieces.values() if p.outcome is BROKEN])
        return pieces[i]

    def on_result(group: Shards, result: GroupResult[Any]) -> tuple[int, ...]:
        results.append((group[0], result.outcomes[0]))
        return ()

    run_window(submit, sorted(pieces), lambda: n_slots, on_result)
    return results


def test_a_piece_that_failed_for_a_while_stops_no_other_and_is_named_at_the_end():
    pieces = {i: Piece(BROKEN if i == 1 else result_of(i)) for i in range(4)}
    with pytest.raises(TransientError, match=r"1 of 4 shards failed: shard 1: endpoint: fell silent"):
        collect(pieces)
    assert [piece.is_cancelled for piece in pieces.values()] == [False] * 4


def test_an_error_of_the_whole_run_cancels_what_runs_and_starts_nothing_more():
    pieces = {0: Piece(0, n_looks=None), 1: Piece(BAD_KEY), 2: Piece(result_of(2)), 3: Piece(result_of(3))}
    with pytest.raises(TeacherError, match="a right one"):
        collect(pieces)
    assert pieces[0].is_cancelled
    assert (pieces[2].n_looks, pieces[3].n_looks) == (1, 1)


def test_ctrl_c_cancels_what_runs():
    piece = Piece(0, n_looks=None)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_window(lambda group: piece, [0], lambda: 1, lambda group, result: (), interrupt)
    assert piece.is_cancelled


def test_a_window_grows_with_the_cluster():
    n_running: list[int] = []
    pieces = {i: Piece(result_of(i), n_looks=1 + i) for i in range(6)}
    open_pieces: set[int] = set()

    def submit(group: Shards) -> Piece:
        (i,) = group
        open_pieces.add(i)
        n_running.append(len(open_pieces))
        return pieces[i]

    def on_result(group: Shards, result: GroupResult[Any]) -> tuple[int, ...]:
        open_pieces.discard(group[0])
        return ()

    run_window(submit, sorted(pieces), lambda: 1 if n_running in ([], [1]) else 3, on_result)
    assert max(n_running) == 3


def test_a_shard_that_kills_its_workers_fails_alone():
    killed = distributed.KilledWorker("annotate-1", SimpleNamespace(address="tcp://127.0.0.1:1"), 3)
    pieces = {0: Piece(killed), 1: Piece(result_of(1)), 2: Piece(result_of(2))}
    with pytest.raises(TransientError, match="4 of them died over this work"):
        collect(pieces)
    assert pieces[2].n_looks is not None
    assert pieces[2].n_looks < 0


def test_work_that_the_cluster_lost_ends_the_run_at_once():
    pieces = {0: Piece(None, status="lost"), 1: Piece(None, n_looks=None), 2: Piece(result_of(2))}
    with pytest.raises(TransientError, match="lost the work"):
        collect(pieces)
    assert pieces[1].is_cancelled
    assert pieces[2].n_looks == 1


def test_a_cluster_that_is_gone_hides_no_error(threads):
    client = Client(threads, set_as_default=False)
    futures = [client.submit(time.sleep, 0.1, pure=False) for _ in range(2)]
    client.close()
    with pytest.raises(TransientError, match="lost the work"):
        run_window(
            lambda group: SimpleNamespace(wrapped_future=futures[group[0]]), [0, 1], lambda: 2, lambda group, result: ()
        )


@dataclass
class Shop:
    """Groups of shards that take no time and say what `outcome_of` says of each shard."""

    outcome_of: Any
    seconds: float = 1.0
    groups: list[Shards] = field(default_factory=list)
    done: list[int] = field(default_factory=list)

    def submit(self, group: Shards) -> Piece:
        self.groups.append(group)
        outcomes = self.outcome_of(group)
        if isinstance(outcomes, BaseException):
            return Piece(outcomes)
        result = GroupResult(outcomes, self.seconds * len(outcomes))
        n_failed = sum(isinstance(outcome, TransientError) for outcome in outcomes)
        return Piece(ShardsError(f"{n_failed} failed", "", result) if n_failed else result)

    def on_result(self, group: Shards, result: GroupResult[Any]) -> tuple[int, ...]:
        self.done += [i for i, one in zip(group, result.outcomes, strict=False) if not isinstance(one, TransientError)]
        return ()

    def run(self, n_shards: int, n_slots: int = 2) -> None:
        run_window(self.submit, range(n_shards), lambda: n_slots, self.on_result)


@pytest.mark.parametrize("seconds", [0.01, 1.0, 60.0, 3600.0])
def test_a_hundred_thousand_shards_are_under_a_thousand_tasks_and_each_runs_once(seconds):
    shop = Shop(lambda group: group, seconds)
    shop.run(100_000, n_slots=16)
    assert sorted(shop.done) == list(range(100_000))
    assert len(shop.groups) < 1000


def test_tasks_take_two_minutes_while_there_is_enough_to_do_and_less_towards_the_end():
    shop = Shop(lambda group: group, seconds=2.0)
    shop.run(2000, n_slots=4)
    sizes = [len(group) for group in shop.groups]
    assert sizes[:4] == [3, 3, 3, 3], "before anything is known: as many as keep the number of tasks in bounds"
    assert sizes[4:20] == [60] * 16
    assert max(sizes[-4:]) <= 3
    assert sizes[4:] == sorted(sizes[4:], reverse=True)


def test_shards_that_take_half_an_hour_are_tasks_of_their_own():
    shop = Shop(lambda group: group, seconds=1800.0)
    shop.run(100, n_slots=4)
    assert {len(group) for group in shop.groups} == {1}


def test_a_failed_shard_of_a_group_is_named_and_costs_the_others_nothing():
    shop = Shop(lambda group: tuple(BROKEN if i == 70 else i for i in group))
    with pytest.raises(TransientError, match=r"1 of 200 shards failed: shard 70: endpoint: fell silent"):
        shop.run(200)
    assert sorted(shop.done) == [i for i in range(200) if i != 70]


def test_a_shard_that_kills_its_workers_is_found_out_among_its_group():
    killed = distributed.KilledWorker("annotate-1", SimpleNamespace(address="tcp://127.0.0.1:1"), 3)
    shop = Shop(lambda group: killed if 70 in group else group)
    with pytest.raises(TransientError, match=r"1 of 200 shards failed: shard 70: Dask worker: 4 of them died"):
        shop.run(200)
    assert sorted(shop.done) == [i for i in range(200) if i != 70]


def test_what_a_group_did_not_come_to_goes_into_another():
    shop = Shop(lambda group: group[:2])
    shop.run(50)
    assert sorted(shop.done) == list(range(50))


def test_shards_to_run_again_do_so():
    left = {3: 2, 11: 1}
    seen_again: list[int] = []

    def on_result(group: Shards, result: GroupResult[Any]) -> list[int]:
        again = [i for i in group if left.get(i)]
        for i in again:
            left[i] -= 1
            seen_again.append(i)
        return again

    shop = Shop(lambda group: group)
    run_window(shop.submit, range(20), lambda: 2, on_result)
    assert sorted(seen_again) == [3, 3, 11]


def test_a_group_that_may_not_start_yet_keeps_its_place():
    started: list[Shards] = []
    refusals = [False, True, True]

    def submit(group: Shards) -> Piece | None:
        if started and refusals and refusals.pop(0):
            return None
        started.append(group)
        return Piece(result_of(*group), n_looks=1 if len(started) % 2 else 5)

    run_window(submit, range(8), lambda: 2, lambda group, result: ())
    assert started == [(i,) for i in range(8)]
    assert refusals == []


def test_an_error_of_shards_arrives_whole_from_another_process():
    error = ShardsError("1 of 2 shards failed", "shard 1", GroupResult((BROKEN,), 1.0))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), str(copy.result.outcomes[0])) == (str(error), str(BROKEN))


def test_a_group_shares_one_grant_and_what_it_did_not_spend_comes_back():
    purse = Purse(10.0)
    assert purse.grant(4, n_sharers=2) == 5.0
    purse.settle(4, 1.0, others={5: 1.5, 6: 0.5})
    assert (purse.spent_usd, purse.free_usd) == (3.0, 7.0)


def test_of_a_group_with_a_failed_shard_the_rest_of_the_grant_counts_as_spent():
    purse = Purse(10.0)
    purse.grant(4, n_sharers=2)
    purse.forfeit(4, known={4: 1.0, 5: 1.5})
    assert (purse.spent_usd, purse.free_usd, purse.n_granted) == (5.0, 5.0, 0)


# The functions below run on the cluster's workers, which are threads of this process unless a test says otherwise.
seen: dict[str, list[float]] = {}


def watched_shard(run_id: str, name: str, seconds: float, n_expected: int = 1) -> float:
    """A shard that looks at its share twenty times a second and ends when told, or after some seconds; its last one."""
    shares = seen[name] = []
    deadline = time.monotonic() + seconds
    with share_of_run(run_id, n_expected) as share:
        while time.monotonic() < deadline:
            shares.append(share())
            if not shares[-1]:
                break
            time.sleep(0.05)
    return shares[-1]


def wait_for(claim: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)


@pytest.fixture
def client(threads: LocalCluster) -> Iterator[Client]:
    seen.clear()
    with Client(threads, set_as_default=False) as client:
        yield client
    leases = threads.scheduler.extensions["semaphores"]
    wait_for(lambda: not leases.leases and not leases.max_leases)


def submit(client: Client, name: str, seconds: float = 10.0, run_id: str = "run", **kwargs: Any) -> Any:
    return client.submit(watched_shard, run_id, name, seconds, pure=False, **kwargs)


@pytest.mark.slow
def test_shards_divide_the_limits_and_the_last_one_gets_all(client):
    first = submit(client, "a")
    wait_for(lambda: seen.get("a", [])[-1:] == [1.0])
    second = submit(client, "b", seconds=3.0)
    wait_for(lambda: seen.get("a", [])[-1:] == [1 / 2], 1.5)
    assert set(seen["b"]) == {1 / 2}, "who starts last knows at once"
    assert second.result() == 1 / 2
    wait_for(lambda: seen["a"][-1] == 1.0, 2.5)
    first.cancel()
    end_run(client, "run", 5.0)


@pytest.mark.slow
def test_shards_that_start_together_never_take_more_than_there_is(client):
    futures = [submit(client, name, seconds=1.6, n_expected=3) for name in "abc"]
    client.gather(futures)
    assert {share for shares in seen.values() for share in shares} == {1 / 3}
    end_run(client, "run", 5.0)


@pytest.mark.slow
def test_a_shard_in_place_of_another_changes_nothing_for_the_rest(client):
    lasting = submit(client, "a", seconds=3.5, n_expected=2)
    submit(client, "b", seconds=1.0, n_expected=2).result()
    time.sleep(0.2)
    submit(client, "c", seconds=1.0, n_expected=2).result()
    assert set(seen["a"]) == {1 / 2}
    lasting.result()
    end_run(client, "run", 5.0)


@pytest.mark.slow
def test_two_runs_on_one_cluster_do_not_count_each_other(client):
    futures = [submit(client, name, seconds=1.5, run_id=name) for name in "ab"]
    assert client.gather(futures) == [1.0, 1.0]
    end_run(client, "a", 5.0)
    end_run(client, "b", 5.0)


@pytest.mark.slow
def test_a_cancelled_shard_sees_zero_at_once_and_the_end_of_the_run_waits_for_it(client):
    future = submit(client, "a")
    wait_for(lambda: seen.get("a"))
    future.cancel()
    wait_for(lambda: seen["a"][-1] == 0.0, 1.0)
    started = time.monotonic()
    end_run(client, "run", 5.0)
    assert time.monotonic() - started < 2.0


@pytest.mark.slow
def test_while_the_scheduler_does_not_answer_the_last_share_holds_and_costs_no_wait(client):
    lasting = submit(client, "a", seconds=4.0)
    other = submit(client, "b")
    wait_for(lambda: seen.get("a", [])[-1:] == [1 / 2])
    n_before = len(seen["a"])
    client.run_on_scheduler(time.sleep, 1.5)
    assert len(seen["a"]) - n_before > 15
    assert set(seen["a"][n_before:]) == {1 / 2}
    lasting.cancel()
    other.cancel()


def stubborn_shard(run_id: str, seconds: float) -> None:
    with share_of_run(run_id):
        time.sleep(seconds)


@pytest.mark.slow
def test_a_shard_that_does_not_stop_keeps_nobody_waiting_and_clears_up_itself(client):
    future = client.submit(stubborn_shard, "run", 2.0)
    leases = client.cluster.scheduler.extensions["semaphores"].leases
    wait_for(lambda: any(leases.values()))
    future.cancel()
    started = time.monotonic()
    end_run(client, "run", 0.3)
    assert time.monotonic() - started < 1.0


LONELY_FLOW = """
import sys, time
from distributed import Client
from tests.flows.test_annotation import watched_shard
client = Client(sys.argv[1], set_as_default=False)
future = client.submit(watched_shard, "orphan", "a", 30.0)
print("submitted", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_shards_of_a_killed_flow_stop_and_leave_nothing_on_the_scheduler(client):
    flow = subprocess.Popen([sys.executable, "-c", LONELY_FLOW, client.scheduler.address], stdout=subprocess.PIPE)
    with flow:
        assert flow.stdout is not None
        assert flow.stdout.readline() == b"submitted\n"
        wait_for(lambda: seen.get("a"))
        flow.kill()
    wait_for(lambda: seen["a"][-1] == 0.0)


@pytest.mark.slow
def test_a_shard_on_a_closing_worker_stops():
    seen.clear()
    with make_cluster(workers=1, processes=False) as cluster, Client(cluster, set_as_default=False) as client:
        future = submit(client, "a")
        wait_for(lambda: seen.get("a"))
    wait_for(lambda: seen["a"][-1] == 0.0)
    assert future.status != "finished"


def test_without_a_cluster_a_shard_has_everything():
    with share_of_run("run") as share:
        assert share() == 1.0
