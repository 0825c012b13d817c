import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from io import BytesIO
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.annotate import annotate
from candist_core.config import Location
from candist_core.edges.openai_teacher import open_openai_teacher
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import encode_table, open_store
from candist_core.errors import StoreError, TransientError
from candist_core.ports import Reply
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tables import ANNOTATIONS, REPLIES, check
from candist_core.teacher_config import TeacherConfig
from tests.fakes import ChatServer, ScriptedTeacher


def reply_of(key, text="spam", **fields):
    return Reply(key, f"doc {key}", text, "stop", 10, 4, 2, 0.25, 0.5, **fields)


@pytest.fixture
def store(tmp_path):
    return open_store(Location(uri=str(tmp_path / "store")))


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def open_log(store, spool):
    logs = []

    def open_log(part="00000", teacher_key="teacher", place=store):
        logs.append(StoreReplyLog(place, teacher_key, part, spool))
        return logs[-1]

    yield open_log
    for log in logs:
        log.close()


def chunks(store):
    return store.list_paths("replies")


def spools(spool):
    return sorted(path for path in spool.rglob("*.jsonl"))


def run_and_kill(spool, store, n, tail=""):
    """Append n replies in another process that then kills itself."""
    code = f"""
        import os, signal
        from pathlib import Path
        from candist_core.config import Location
        from candist_core.edges.reply_log import StoreReplyLog
        from candist_core.edges.store import open_store
        from candist_core.ports import Reply
        log = StoreReplyLog(open_store(Location(uri={store.uri!r})), "teacher", "dead", Path({str(spool)!r}))
        for i in range({n}):
            log.append(Reply(f"k{{i}}", f"d{{i}}", f"réply {{i}}", "stop", latency_s=0.5))
        {tail}
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert process.returncode == -signal.SIGKILL


KILL_SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))
KILL_TEXTS = pl.DataFrame({"doc_id": [f"d{i}" for i in range(200)], "text": [f"text {i}" for i in range(200)]})


def annotated(url, store_uri, spool, teacher_key):
    """The bytes of the annotations of `KILL_TEXTS`; also run by the process that is killed."""
    config = TeacherConfig(base_url=url)
    prompt = compile_prompt(KILL_SPEC, config)

    async def work(log):
        teacher = open_openai_teacher(config, {})
        try:
            return await annotate(
                KILL_TEXTS, KILL_SPEC, prompt, teacher, log, TeacherConfig(max_in_flight=4, max_attempts=2)
            )
        finally:
            await teacher.close()

    with closing(StoreReplyLog(open_store(Location(uri=store_uri)), teacher_key, "part", Path(spool))) as log:
        return encode_table(asyncio.run(work(log)).annotations, ANNOTATIONS)


def test_a_reply_comes_back_as_it_was_in_every_field(open_log):
    replies = [reply_of("a"), Reply("b", "d", 'odd "\n\u2028\0 ünï', "length"), reply_of("c", "")]
    log = open_log()
    for reply in replies:
        log.append(reply)
    log.flush()
    assert dict(open_log("00001").lookup(["a", "b", "c"])) == {reply.request_key: reply for reply in replies}


def test_probabilities_come_back_from_spool_and_store_alike(open_log):
    likely = reply_of("a", logprobs='[["spam", -0.25]]')
    log = open_log()
    log.append(likely)
    assert log.lookup(["a"])["a"] == likely
    log.flush()
    assert open_log("00001").lookup(["a"])["a"] == likely


def test_only_the_keys_asked_for_come_back(open_log):
    log = open_log()
    for key in "abc":
        log.append(reply_of(key))
    log.flush()
    assert set(log.lookup(["b", "z"])) == {"b"}
    assert dict(log.lookup([])) == {}


def test_an_empty_log_finds_nothing(open_log):
    log = open_log()
    assert dict(log.lookup(["a"])) == {}
    assert not log.has_any


def test_after_a_lookup_a_log_knows_of_replies_to_other_requests_and_of_no_other_teachers(open_log, store):
    log = open_log()
    log.append(reply_of("a"))
    log.flush()
    # Another store object of no known place stands for another process.
    other, stranger = open_log("00001", place=Wayward(store)), open_log(teacher_key="teacher2")
    assert dict(other.lookup(["b"])) == dict(stranger.lookup(["b"])) == {}
    assert (other.has_any, stranger.has_any) == (True, False)


def test_replies_that_are_not_flushed_yet_are_found_too(open_log):
    log = open_log()
    log.append(reply_of("a"))
    assert log.lookup(["a"])["a"] == reply_of("a")


def test_a_flush_writes_one_chunk_under_the_replies_contract_and_a_second_none(open_log, store):
    log = open_log()
    log.append(reply_of("a"))
    log.append(reply_of("b"))
    log.flush()
    log.flush()
    (path,) = chunks(store)
    assert path.startswith("replies/teacher/00000-000000-")
    assert check(pl.read_parquet(BytesIO(store.read_bytes(path))), REPLIES).height == 2


def test_an_appended_reply_is_in_the_file_before_append_returns(open_log, spool):
    log = open_log()
    log.append(reply_of("a"))
    (path,) = spools(spool)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [asdict(reply_of("a"))]


@pytest.mark.slow
def test_replies_of_a_process_that_was_killed_are_all_found_and_its_spool_is_gone(open_log, store, spool):
    run_and_kill(spool, store, 300)
    assert (len(spools(spool)), chunks(store)) == (1, [])
    found = open_log("00001").lookup([f"k{i}" for i in range(400)])
    assert [found[f"k{i}"].reply for i in range(300)] == [f"réply {i}" for i in range(300)]
    assert len(found) == 300
    assert spools(spool) == []
    assert len(chunks(store)) == 1


@pytest.mark.slow
def test_replies_killed_after_a_flush_are_found_once(open_log, store, spool):
    run_and_kill(spool, store, 5, 'log.flush(); log.append(Reply("late", "d", "x", "stop"))')
    assert len(open_log("00001").lookup(["late", *(f"k{i}" for i in range(5))])) == 6


@pytest.mark.slow
def test_a_killed_annotation_is_taken_up_again_to_equal_bytes_and_pays_no_kept_reply_twice(open_log, store, spool):
    prompt = compile_prompt(KILL_SPEC, TeacherConfig())
    keys = [prompt.request("", text).key for text in KILL_TEXTS["text"]]
    with ChatServer(latency_s=0.01) as server:
        there = (server.base_url, store.uri, str(spool))
        code = f"from {__name__} import annotated; annotated(*{there!r}, 'teacher')"
        with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as process:
            while len(server.requests) < 60:
                assert process.poll() is None
            process.kill()
        n_kept, n_before = len(open_log().lookup(keys)), len(server.requests)
        resumed = annotated(*there, "teacher")
        n_asked = len(server.requests) - n_before
        unbroken = annotated(*there, "another")
    # Of at least 60 requests, four were under way.
    assert 56 <= n_kept < 200
    assert n_asked == 200 - n_kept
    assert resumed == unbroken


def test_two_workers_that_start_again_both_find_the_replies_of_a_dead_one(open_log, store, spool):
    folder = spool / "teacher"
    folder.mkdir(parents=True)
    (folder / "dead-1.jsonl").write_text(json.dumps(asdict(reply_of("a"))) + "\n")
    first, found = Wayward(store), {}
    logs = {"00006": open_log("00006", place=first), "00007": open_log("00007", place=Wayward(store))}

    def look(part):
        found[part] = set(logs[part].lookup(["a"]))

    second = threading.Thread(target=look, args=["00007"])

    def write_slowly():
        second.start()
        # As to a bucket far away: the second one looks before the chunk is there.
        second.join(0.1)

    first.during_write = write_slowly
    look("00006")
    second.join()
    assert found == {"00006": {"a"}, "00007": {"a"}}


@pytest.mark.slow
def test_a_line_that_death_cut_is_dropped_and_the_others_are_kept(open_log, store, spool):
    run_and_kill(spool, store, 3)
    (path,) = spools(spool)
    path.write_bytes(path.read_bytes()[:-20])
    assert set(open_log("00001").lookup(["k0", "k1", "k2"])) == {"k0", "k1"}


def test_a_damaged_line_is_counted_and_does_not_hide_the_lines_after_it(open_log, spool, caplog):
    folder = spool / "teacher"
    folder.mkdir(parents=True)
    good = json.dumps(asdict(reply_of("a")))
    (folder / "dead-1.jsonl").write_text(f'{{"reply": \n{{"reply": "x"}}\n{good}\n')
    assert set(open_log().lookup(["a"])) == {"a"}
    assert caplog.messages[0].startswith("2 lines of the spool")


def test_the_spool_of_a_living_log_is_left_alone(open_log, spool, store):
    living = open_log()
    living.append(reply_of("a"))
    assert dict(open_log("00001").lookup(["a"])) == {}
    assert len(spools(spool)) == 1
    living.flush()
    assert len(open_log("00002").lookup(["a"])) == 1


@pytest.mark.slow
def test_the_spool_of_a_living_process_is_left_alone(open_log, store, spool):
    code = f"""
        import sys
        from pathlib import Path
        from candist_core.config import Location
        from candist_core.edges.reply_log import StoreReplyLog
        from candist_core.edges.store import open_store
        from candist_core.ports import Reply
        log = StoreReplyLog(open_store(Location(uri={store.uri!r})), "teacher", "other", Path({str(spool)!r}))
        log.append(Reply("a", "d", "x", "stop"))
        print("ready", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        assert dict(open_log().lookup(["a"])) == {}
        process.kill()
        process.wait()
        assert set(open_log().lookup(["a"])) == {"a"}


def test_closing_merges_the_parts_own_chunks_and_no_others(open_log, store, spool):
    other = open_log("00000-1")
    other.append(reply_of("other"))
    other.flush()
    log = open_log("00000")
    for key in "abc":
        log.append(reply_of(key))
        log.flush()
    log.append(reply_of("d"))
    log.close()
    assert len(chunks(store)) == 2
    assert len(spools(spool)) == 1
    assert set(open_log("00009").lookup(["a", "b", "c", "d", "other"])) == {"a", "b", "c", "d", "other"}


@pytest.mark.slow
def test_a_part_left_by_a_dead_process_is_merged_by_the_next_one_to_close_it(open_log, store, spool):
    run_and_kill(spool, store, 4, "log.flush()")
    log = open_log("dead")
    log.lookup(["k0"])
    log.append(reply_of("new"))
    log.close()
    assert len(chunks(store)) == 1
    assert len(open_log().lookup(["k0", "k1", "k2", "k3", "new"])) == 5


def test_two_processes_that_close_the_same_part_lose_nothing(open_log, store):
    place = Wayward(store)
    first, second = open_log(), open_log(place=place)
    for key in "ab":
        first.append(reply_of(key))
        first.flush()
    closing_once = threading.Lock()

    def close_first():
        if closing_once.acquire(blocking=False):
            first.close()

    # The second has listed the chunks when the first merges and deletes them.
    place.merge = close_first
    second.close()
    assert set(open_log("00001").lookup(["a", "b"])) == {"a", "b"}


def test_of_two_replies_to_one_request_the_first_counts(open_log, store):
    log = open_log()
    log.append(reply_of("a", "first"))
    log.append(reply_of("a", "second"))
    log.flush()
    log.append(reply_of("a", "third"))
    log.flush()
    assert log.lookup(["a"])["a"].reply == "first"
    log.close()
    assert open_log().lookup(["a"])["a"].reply == "first"


def test_teachers_share_no_replies(open_log):
    log = open_log()
    log.append(reply_of("a"))
    log.flush()
    assert dict(open_log(teacher_key="teacher2").lookup(["a"])) == {}
    assert dict(open_log(teacher_key="teach").lookup(["a"])) == {}


def test_a_log_that_was_closed_can_be_written_again(open_log, spool):
    log = open_log()
    log.append(reply_of("a"))
    log.close()
    assert spools(spool) == []
    log.append(reply_of("b"))
    log.close()
    assert set(open_log().lookup(["a", "b"])) == {"a", "b"}


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x" * 200, "a\n"])
def test_names_that_could_leave_their_folder_are_refused(store, spool, name):
    with pytest.raises(StoreError, match="reply log, part"):
        StoreReplyLog(store, "teacher", name, spool)
    with pytest.raises(StoreError, match="reply log, teacher key"):
        StoreReplyLog(store, name, "part", spool)


class Wayward:
    """A store that fails, or forgets objects, when told to."""

    def __init__(self, store):
        self.store, self.is_down = store, False
        self.merge = self.during_write = lambda: None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def write_table(self, *args):
        if self.is_down:
            raise TransientError("store", "down")
        self.during_write()
        return self.store.write_table(*args)

    def read_bytes(self, path):
        self.merge()
        return self.store.read_bytes(path)


def test_a_flush_that_fails_loses_nothing_and_the_next_one_brings_it_all(open_log, store):
    place = Wayward(store)
    log = open_log(place=place)
    log.append(reply_of("a"))
    place.is_down = True
    with pytest.raises(TransientError):
        log.flush()
    log.append(reply_of("b"))
    place.is_down = False
    log.flush()
    assert set(open_log("00001").lookup(["a", "b"])) == {"a", "b"}


def test_a_log_that_could_not_be_closed_lets_its_replies_go_to_the_next_one_in_the_same_process(open_log, store, spool):
    place = Wayward(store)
    log = StoreReplyLog(place, "teacher", "00000", spool)
    log.append(reply_of("a"))
    place.is_down = True
    with pytest.raises(TransientError):
        log.close()
    assert len(spools(spool)) == 1
    place.is_down = False
    assert set(open_log("00001").lookup(["a"])) == {"a"}
    assert spools(spool) == []


def test_a_log_that_could_not_be_closed_can_be_closed_later(open_log, store):
    place = Wayward(store)
    log = open_log(place=place)
    log.append(reply_of("a"))
    place.is_down = True
    with pytest.raises(TransientError):
        log.close()
    log.append(reply_of("b"))
    place.is_down = False
    log.close()
    assert set(open_log("00001").lookup(["a", "b"])) == {"a", "b"}


def test_an_annotation_tried_again_after_its_store_was_away_asks_nothing_twice(store, spool):
    place, teacher = Wayward(store), ScriptedTeacher()
    place.is_down = True

    def attempt():
        with closing(StoreReplyLog(place, "teacher", "00000", spool)) as log:
            prompt = compile_prompt(KILL_SPEC, TeacherConfig())
            config = TeacherConfig(max_in_flight=4)
            return asyncio.run(annotate(KILL_TEXTS, KILL_SPEC, prompt, teacher, log, config))

    with pytest.raises(TransientError):
        attempt()
    place.is_down = False
    result = attempt()
    assert (result.annotations.height, result.usage.n_reused, result.usage.n_requests) == (200, 200, 0)
    assert sorted(teacher.asked) == sorted(KILL_TEXTS["doc_id"])


def test_chunks_that_their_part_merges_during_a_lookup_are_found_under_their_new_name(open_log, store):
    writer = open_log("writer")
    for key in "abc":
        writer.append(reply_of(key))
        writer.flush()
    place, merged = Wayward(store), threading.Lock()

    def merge_once():
        if merged.acquire(blocking=False):
            writer.close()

    place.merge = merge_once
    assert set(open_log("reader", place=place).lookup(["a", "b", "c"])) == {"a", "b", "c"}


def test_a_chunk_that_cannot_be_read_is_named(open_log, store):
    store.write_bytes("replies/teacher/00000-000000-00000000.parquet", b"PAR1 nonsense")
    with pytest.raises(StoreError, match=r"kept replies replies/teacher/00000-000000-00000000\.parquet"):
        open_log("00001").lookup(["a"])
    store.delete(["replies/teacher/00000-000000-00000000.parquet"])


def test_a_spool_folder_that_cannot_be_made_is_told_in_one_sentence(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    log = StoreReplyLog(store, "teacher", "part", tmp_path / "file")
    with pytest.raises(StoreError, match="spool folder"):
        log.append(reply_of("a"))


def test_appending_while_another_thread_flushes_loses_and_doubles_nothing(open_log, store, spool):
    log, done = open_log(), threading.Event()

    def keep_flushing():
        while not done.is_set():
            log.flush()

    flusher = threading.Thread(target=keep_flushing)
    flusher.start()
    for i in range(500):
        log.append(reply_of(f"k{i}"))
    done.set()
    flusher.join()
    log.close()
    (path,) = chunks(store)
    assert pl.read_parquet(BytesIO(store.read_bytes(path)))["request_key"].to_list() == [f"k{i}" for i in range(500)]


def test_a_spool_keeps_what_was_appended_during_a_flush(open_log, store, spool):
    place = Wayward(store)
    log = open_log(place=place)
    log.append(reply_of("a"))
    place.during_write = lambda: log.append(reply_of("b"))
    log.flush()
    (path,) = spools(spool)
    assert [json.loads(line)["request_key"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_spool_taken_for_a_dead_ones_before_it_was_locked_is_made_anew(open_log, spool, monkeypatch):
    # The time between making and locking is too short to hit, so the lock itself plays the other process.
    lock, taken = fcntl.flock, []

    def take_first(file, operation):
        if not taken:
            taken.extend(spools(spool))
            taken[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", take_first)
    open_log().append(reply_of("a"))
    (path,) = spools(spool)
    assert path not in taken
    assert path.read_text().count("\n") == 1


def test_a_spool_does_not_grow_beyond_what_is_unflushed(open_log, spool):
    log = open_log()
    log.append(reply_of("a"))
    log.flush()
    (path,) = spools(spool)
    assert os.path.getsize(path) == 0
    log.append(reply_of("b"))
    assert path.read_text().count("\n") == 1


class Remote:
    """A store seen from another process: it shares no index with others, and counts what it reads."""

    def __init__(self, store):
        self.store, self.reads = store, Counter()
        self.after_listing = lambda: None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def read_bytes(self, path):
        self.reads[path] += 1
        return self.store.read_bytes(path)

    def list_paths(self, prefix):
        listed = self.store.list_paths(prefix)
        self.after_listing()
        return listed


def write_chunks(open_log, *batches, part="old"):
    """One chunk a batch of keys, by a log that stays open."""
    log = open_log(part)
    for batch in batches:
        for key in batch:
            log.append(reply_of(key))
        log.flush()


def test_the_second_shard_of_a_process_reads_no_old_chunk_that_holds_none_of_its_keys(open_log, store):
    write_chunks(open_log, "abc", "def", "ghi")
    one, two, three = chunks(store)
    place = Remote(store)
    assert set(open_log("00000", place=place).lookup("ax")) == {"a"}
    assert place.reads == {one: 1, two: 1, three: 1}
    assert set(open_log("00001", place=place).lookup("xyz")) == set()
    assert place.reads == {one: 1, two: 1, three: 1}
    assert set(open_log("00002", place=place).lookup("eix")) == {"e", "i"}
    assert place.reads == {one: 1, two: 2, three: 2}


def test_of_what_others_wrote_since_a_process_reads_the_new_chunks_alone(open_log, store):
    write_chunks(open_log, "abc")
    place = Remote(store)
    open_log("00000", place=place).lookup("x")
    before = set(chunks(store))
    write_chunks(open_log, "def", "ghi", part="new")
    place.reads.clear()
    assert set(open_log("00001", place=place).lookup("gx")) == {"g"}
    assert place.reads == dict.fromkeys(set(chunks(store)) - before, 1)


def test_shards_of_one_process_read_nothing_of_what_the_process_wrote_itself(open_log, store):
    place = Remote(store)
    for shard in range(20):
        log = open_log(f"{shard:05d}", place=place)
        keys = [f"{shard}-{i}" for i in range(5)]
        assert dict(log.lookup(keys)) == {}
        for key in keys:
            log.append(reply_of(key))
        log.close()
    assert place.reads == {}
    assert set(open_log("00020", place=place).lookup(["7-3"])) == {"7-3"}
    assert sum(place.reads.values()) == 1


def test_a_table_that_a_process_merged_from_its_own_chunks_is_not_read_again(open_log, store):
    place = Remote(store)
    log = open_log("00000", place=place)
    for key in "abc":
        log.append(reply_of(key))
        log.flush()
    log.close()
    (merged,) = chunks(store)
    assert set(open_log("00001", place=place).lookup("xyz")) == set()
    assert (len(place.reads), merged in place.reads) == (0, False)
    assert set(open_log("00002", place=place).lookup("ab")) == {"a", "b"}
    assert place.reads[merged] == 1


def test_a_lookup_finds_what_a_flush_brings_into_the_store_after_the_listing(open_log, store):
    place = Remote(store)
    log = open_log(place=place)
    log.append(reply_of("a"))
    place.after_listing = log.flush
    assert set(log.lookup(["a"])) == {"a"}


def test_replies_to_one_request_in_chunks_of_several_parts_count_in_the_order_of_their_paths(open_log, store):
    for part, text in (("00001", "second"), ("00000", "first"), ("00002", "third")):
        log = open_log(part)
        log.append(reply_of("a", text))
        log.flush()
    for place in (store, Remote(store)):
        assert open_log("00009", place=place).lookup(["a"])["a"].reply == "first"
    pending = open_log("00003")
    pending.append(reply_of("a", "not in the store yet"))
    assert pending.lookup(["a"])["a"].reply == "first"


KEYS = st.sampled_from("abcdefgh")
LOGS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), LOGS, st.lists(KEYS, min_size=1, max_size=4)),
        st.tuples(st.just("flush"), LOGS, st.none()),
        st.tuples(st.just("close"), LOGS, st.none()),
        st.tuples(st.just("lookup"), LOGS, st.lists(KEYS, max_size=5)),
    ),
    max_size=25,
)
_numbers = count()


def brute_force(store, pending, keys):
    """The first reply to each key, out of all chunks in the order of their paths, then what is not flushed."""
    found = {}
    for path in chunks(store):
        for row in pl.read_parquet(BytesIO(store.read_bytes(path))).iter_rows(named=True):
            found.setdefault(row["request_key"], Reply(**row))
    for key, reply in pending.items():
        found.setdefault(key, reply)
    return {key: found[key] for key in keys if key in found}


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_whatever_two_processes_do_with_two_parts_a_lookup_finds_what_a_search_of_every_chunk_finds(steps):
    store = open_store(Location(uri=f"memory://reply-log-{next(_numbers)}"))
    processes = [Remote(store), Remote(store)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        logs = [
            stack.enter_context(closing(StoreReplyLog(processes[i // 2], "teacher", f"0000{i % 2}", Path(folder))))
            for i in range(4)
        ]
        pending: list[dict[str, Reply]] = [{} for _ in logs]
        for number, (what, i, keys) in enumerate(steps):
            if what == "append":
                for key in keys:
                    logs[i].append(reply := replace(reply_of(key), reply=f"{number}"))
                    pending[i].setdefault(key, reply)
            elif what == "lookup":
                wanted = brute_force(store, pending[i], keys)
                assert logs[i].lookup(keys) == wanted
                for process in processes:
                    process.reads.clear()
                assert logs[i].lookup(keys) == wanted
                # By then every chunk is known: those that hold a wanted key are read, once.
                held = {
                    path
                    for path in chunks(store)
                    if set(pl.read_parquet(BytesIO(store.read_bytes(path)))["request_key"]) & set(keys)
                }
                assert processes[i // 2].reads == dict.fromkeys(held, 1)
            else:
                getattr(logs[i], what)()
                pending[i].clear()


def test_chunks_of_versions_that_knew_fewer_or_more_columns_are_read_and_merged(open_log, store):
    def put(name, frame):
        data = BytesIO()
        frame.write_parquet(data)
        store.write_bytes(f"replies/teacher/{name}.parquet", data.getvalue())

    row = asdict(reply_of("old"))
    del row["logprobs"]
    put("00000-000000-aaaaaaaa", pl.DataFrame([row], schema={name: REPLIES.columns[name] for name in row}))
    later = asdict(reply_of("later")) | {"mood": "good"}
    put("00000-000001-bbbbbbbb", pl.DataFrame([later], schema=REPLIES.columns | {"mood": pl.String()}))
    wanted = {key: reply_of(key) for key in ("old", "later")}
    assert open_log("00001").lookup(wanted) == wanted
    open_log("00000").close()
    assert len(chunks(store)) == 1
    assert open_log("00001").lookup(wanted) == wanted


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"reply": ["spam"]}),
        pl.DataFrame({"request_key": [1]}),
        pl.DataFrame({"request_key": ["a"]}),
        pl.DataFrame([asdict(reply_of("a"))], schema=REPLIES.columns).with_columns(reply=pl.lit(None, pl.String)),
    ],
)
def test_a_chunk_that_is_no_table_of_replies_is_named(open_log, store, frame):
    data = BytesIO()
    frame.write_parquet(data)
    store.write_bytes(path := "replies/teacher/00000-000000-00000000.parquet", data.getvalue())
    with pytest.raises(StoreError, match=path):
        open_log("00001").lookup(["a"])
    store.delete([path])


def test_a_reply_that_found_no_room_in_the_spool_is_brought_into_the_store_by_the_next_flush(open_log, store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    log = StoreReplyLog(store, "teacher", "part", tmp_path / "file")
    with pytest.raises(StoreError, match="spool folder"):
        log.append(reply_of("a"))
    log.flush()
    assert set(open_log().lookup(["a"])) == {"a"}


@pytest.mark.s3
def test_in_a_bucket_too_chunks_that_are_known_are_not_read_again_and_those_merged_away_are_found(bucket, tmp_path):
    store = open_store(bucket.at("work"))
    writer = StoreReplyLog(store, "teacher", "writer", tmp_path)
    for key in "abc":
        writer.append(reply_of(key))
        writer.flush()
    place = Remote(store)
    reader = StoreReplyLog(place, "teacher", "reader", tmp_path)
    assert set(reader.lookup("abz")) == {"a", "b"}
    assert set(reader.lookup("xyz")) == set()
    assert set(place.reads.values()) == {1}
    writer.close()
    assert set(reader.lookup("cab")) == set("abc")
    assert len(place.reads) == 4
