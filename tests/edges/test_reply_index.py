"""The index of a reply log: what it names, what it reads, what it forgets, how much it holds."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.config import Location
from candist_core.edges.reply_index import ReplyIndex, index_of
from candist_core.edges.store import open_store


def keys(*names):
    return pl.Series(names, dtype=pl.String)


class Folder:
    """Chunks in memory; counts how often the keys of each are read."""

    def __init__(self, chunks):
        self.chunks, self.reads = dict(chunks), Counter()

    def paths(self):
        return sorted(self.chunks)

    def read(self, path):
        self.reads[path] += 1
        return self.chunks.get(path)


def refreshed(folder):
    index = ReplyIndex()
    index.refresh(folder.paths, folder.read)
    return index


def test_every_chunk_that_holds_any_of_the_keys_is_named_and_no_other():
    index = refreshed(Folder({"c": keys("k1", "k2"), "a": keys("k2"), "b": keys("k3")}))
    assert index.find(keys("k2", "k9")) == ["a", "c"]
    assert index.find(keys("k3", "k1")) == ["b", "c"]
    assert index.find(keys("k9")) == []
    assert index.find(keys()) == []


def test_a_chunk_is_read_once_however_often_the_index_is_refreshed():
    folder = Folder({"a": keys("k1"), "b": keys("k2")})
    index = refreshed(folder)
    folder.chunks["c"] = keys("k3")
    for _ in range(3):
        index.refresh(folder.paths, folder.read)
    assert folder.reads == {"a": 1, "b": 1, "c": 1}
    assert index.find(keys("k3")) == ["c"]


def test_a_chunk_that_was_added_is_not_read():
    folder = Folder({"a": keys("k1")})
    index = ReplyIndex()
    index.add("a", keys("k1"))
    index.refresh(folder.paths, folder.read)
    assert folder.reads == {}
    assert index.find(keys("k1")) == ["a"]


def test_a_chunk_that_is_added_twice_is_held_once():
    index = ReplyIndex()
    for _ in range(2):
        index.add("a", keys("k1", "k2"))
    assert (index.n_entries, index.find(keys("k1"))) == (2, ["a"])


def test_a_chunk_that_is_no_longer_listed_is_no_longer_named():
    folder = Folder({"a": keys("k1"), "b": keys("k1", "k2")})
    index = refreshed(folder)
    del folder.chunks["b"]
    index.refresh(folder.paths, folder.read)
    assert index.find(keys("k1", "k2")) == ["a"]


def test_a_chunk_that_goes_between_listing_and_reading_is_passed_over_and_found_again_when_it_returns():
    folder = Folder({"a": keys("k1")})
    index = ReplyIndex()
    index.refresh(lambda: ["a", "b"], folder.read)
    assert (index.find(keys("k1", "k2")), folder.reads["b"]) == (["a"], 1)
    folder.chunks["b"] = keys("k2")
    index.refresh(folder.paths, folder.read)
    assert (index.find(keys("k2")), folder.reads["b"]) == (["b"], 2)


def test_a_chunk_that_is_added_during_a_listing_that_misses_it_is_kept():
    folder, index = Folder({}), ReplyIndex()

    def list_and_write():
        listed = folder.paths()
        folder.chunks["new"] = keys("k1")
        index.add("new", keys("k1"))
        return listed

    index.refresh(list_and_write, folder.read)
    assert index.find(keys("k1")) == ["new"]
    index.refresh(folder.paths, folder.read)
    assert folder.reads == {}


def test_a_chunk_without_keys_is_known_and_never_named():
    folder = Folder({"a": keys()})
    index = refreshed(folder)
    index.refresh(folder.paths, folder.read)
    assert (index.n_entries, folder.reads["a"], index.find(keys("k1"))) == (0, 1, [])


def test_a_chunk_that_cannot_be_read_stops_the_refresh_and_leaves_the_others_in():
    folder = Folder({"a": keys("k1"), "b": keys("k2")})

    def read(path):
        if path == "b":
            raise ValueError(path)
        return folder.read(path)

    index = ReplyIndex()
    with pytest.raises(ValueError, match="b"):
        index.refresh(folder.paths, read)
    assert index.find(keys("k1", "k2")) == ["a"]


# Few keys and short runs, so that runs merge, fill up and lose chunks within a handful of steps.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sets(st.integers(0, 30), max_size=9)),
        st.tuples(st.just("delete"), st.integers(0, 99)),
        st.tuples(st.just("merge"), st.integers(0, 99)),
        st.tuples(st.just("find"), st.sets(st.integers(0, 35), max_size=9)),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([1, 8, 2**20]))
def test_whatever_is_written_merged_and_deleted_the_index_names_what_a_search_of_all_chunks_names(steps, longest_run):
    index, chunks = ReplyIndex(longest_run), dict[str, set[str]]()
    for number, (what, value) in enumerate(steps):
        path, there = f"{random.Random(number).randrange(10):02d}-{number}", sorted(chunks)
        if what == "write":
            chunks[path] = {f"k{i}" for i in value}
            index.add(path, keys(*chunks[path]))
        elif what == "delete" and there:
            gone = there[value % len(there)]
            del chunks[gone]
            index.forget([gone, "never there"])
        elif what == "merge" and there:
            merged = there[: value % len(there) + 1]
            union = set[str]().union(*(chunks.pop(one) for one in merged))
            index.add(path, keys(*union))
            index.forget(merged)
            chunks[path] = union
        elif what == "find":
            wanted = {f"k{i}" for i in value}
            assert index.find(keys(*wanted)) == sorted(path for path, held in chunks.items() if held & wanted)
    assert index.n_entries <= sum(map(len, chunks.values())) / (1 - 1 / 8)


def test_runs_are_few_and_none_merged_beyond_the_longest():
    index = ReplyIndex(longest_run=1024)
    for i in range(1000):
        index.add(f"{i:04d}", keys(*(f"{i}-{j}" for j in range(10))))
    sizes = [len(run.hashes) for run in index._runs]
    assert sum(sizes) == 10_000
    assert max(sizes) <= 1024
    # Two neighbours that fit into one are merged, so every pair is more than half full.
    assert len(sizes) <= 2 * 10_000 / 1024 + 10
    assert all(one >= 2 * two or one + two > 1024 for one, two in pairwise(sizes))
    assert index.find(keys("0-0", "500-9", "999-5", "1000-0")) == ["0000", "0500", "0999"]


def test_a_reply_takes_twelve_bytes():
    index = ReplyIndex()
    for i in range(40):
        index.add(f"{i}", keys(*(f"{i}-{j}" for j in range(500))))
    assert sum(run.hashes.nbytes + run.numbers.nbytes for run in index._runs) == 12 * 20_000


def test_threads_that_add_refresh_and_find_at_once_see_every_chunk_that_stood_before():
    folder, index = Folder({f"a{i}": keys(f"k{i}") for i in range(50)}), ReplyIndex(8)

    def write(start):
        for i in range(start, start + 50):
            index.add(f"b{i}", keys(f"k{i}"))
            folder.chunks[f"b{i}"] = keys(f"k{i}")

    def look(_):
        n_missed = 0
        for i in range(50):
            index.refresh(folder.paths, folder.read)
            n_missed += f"a{i}" not in index.find(keys(f"k{i}"))
        return n_missed

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, start) for start in (0, 50, 100)]
        assert sum(pool.map(look, range(3))) == 0
        for writer in writers:
            writer.result()
    index.refresh(folder.paths, folder.read)
    assert index.find(keys(*(f"k{i}" for i in range(150)))) == folder.paths()
    assert {folder.reads[f"a{i}"] for i in range(50)} == {1}


def test_a_process_has_one_index_for_a_place_however_its_store_is_opened_and_in_whatever_thread(tmp_path):
    def opened():
        return index_of(open_store(Location(uri=str(tmp_path / "a"))), "replies/t")

    with ThreadPoolExecutor(4) as pool:
        found = {id(index) for index in pool.map(lambda _: opened(), range(20))}
    assert found == {id(opened())}
    assert index_of(open_store(Location(uri=f"file://{tmp_path}/a")), "replies/t") is opened()
    assert index_of(open_store(Location(uri=str(tmp_path / "a"))), "replies/u") is not opened()
    assert index_of(open_store(Location(uri=str(tmp_path / "b"))), "replies/t") is not opened()


def test_one_bucket_name_at_two_endpoints_has_two_indexes(aws_environment):
    one, two = (open_store(Location(uri="s3://b/x", endpoint_url=f"http://127.0.0.1:{port}")) for port in (1, 2))
    again = open_store(Location(uri="s3://b/x", endpoint_url="http://127.0.0.1:1"))
    assert index_of(one, "replies/t") is index_of(again, "replies/t")
    assert index_of(one, "replies/t") is not index_of(two, "replies/t")
