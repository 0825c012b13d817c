"""The list of what is to be forgotten."""

import polars as pl
import pytest

from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import ContractError
from candist_core.forgotten import (
    Forgotten,
    content_id,
    keep_forgotten,
    open_forgotten,
    read_forgotten,
    with_content_ids,
    with_rows,
)


@pytest.fixture
def store(tmp_path):
    return open_store(Location(uri=str(tmp_path / "work")))


def test_decisions_add_up_and_are_of_runs_of_one_name_alone(store):
    first = open_forgotten(store, "mails")
    keep_forgotten(store, "mails", first, with_rows(first, ids=["a"]))
    second = open_forgotten(store, "mails")
    assert second.key == first.key
    keep_forgotten(store, "mails", second, with_rows(second, ids=["a"], texts=["hello"]))
    kept = read_forgotten(store, "mails")
    rows = pl.DataFrame({"doc_id": ["a", "b", None], "text": ["x", "hello", "hello"]})
    assert kept.is_source_row(rows).to_list() == [True, True, True]
    assert len(store.list_paths("forgotten/mails")) == 3, "a key and two decisions, the second without what was known"
    assert not read_forgotten(store, "others")


def test_the_same_id_has_another_hash_in_another_store(tmp_path):
    lists = []
    for name in ("one", "two"):
        store = open_store(Location(uri=str(tmp_path / name)))
        lists.append(with_rows(open_forgotten(store, "mails"), ids=["a"]).ids)
    assert lists[0].isdisjoint(lists[1])


def test_tables_are_searched_for_more_ids_than_the_corpus():
    forgotten = with_rows(Forgotten(b"k"), texts=["hello"], also=["first"])
    ids = pl.Series(["first", "second", content_id("hello"), f"{content_id('hello')}-3", content_id("bye")])
    assert forgotten.is_id(ids).to_list() == [True, False, True, True, False]
    rows = pl.DataFrame({"doc_id": ["first", "second"], "text": ["x", "hello"]})
    assert forgotten.is_source_row(rows).to_list() == [False, True]


def test_an_id_made_of_a_text_names_the_text_and_any_other_word_names_none():
    forgotten = with_content_ids(Forgotten(b"k"), [f"{content_id('hello')}-2", "row-7"])
    assert forgotten.is_text(pl.Series(["hello", "row-7"])).to_list() == [True, False]


def test_a_list_of_a_later_candist_is_refused_rather_than_passed_over(store):
    open_forgotten(store, "mails")
    store.write_bytes("forgotten/mails/1.json", b'{"contract": "forgotten/2"}')
    with pytest.raises(ContractError, match="forgotten/2"):
        read_forgotten(store, "mails")
