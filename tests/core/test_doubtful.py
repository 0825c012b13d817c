import polars as pl
import pytest

from candist_core.doubtful import MAX_CANDIDATES, MAX_CHARS, Doubtful
from tests.published_rows import frame, many_rows, row


def shown(*parts, n=300):
    doubtful = Doubtful(max_shown=n)
    for part in parts:
        doubtful.add(part)
    return doubtful.rows


def test_each_label_gives_its_least_sure_rows_in_turn():
    rows = frame(
        *(row(f"a{i}", f"x{i}", "outage", 0.5 + i / 100) for i in range(10)),
        row("b0", "y0", "billing", 0.79),
        row("b1", "y1", "billing", 0.78),
        row("sure", "z", "roaming", 0.95),
    )
    assert shown(rows, n=4)["doc_id"].to_list() == ["a0", "a1", "b1", "b0"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [1, 7, 60])
def test_how_rows_were_cut_into_parts_changes_nothing(seed, length):
    rows = many_rows(400, seed)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    whole = shown(rows, n=20)
    assert whole.height == 20
    assert shown(*rows.iter_slices(length), n=20).equals(whole)
    assert set(shown(*shuffled.iter_slices(length), n=20)["doc_id"]) == set(whole["doc_id"])


def test_equal_texts_are_shown_once_however_far_apart():
    parts = [frame(row("1", "same", confidence=0.5)), frame(row("2", "other", confidence=0.6))]
    assert shown(*parts, frame(row("3", "same", confidence=0.5)))["doc_id"].to_list() == ["1", "2"]


def test_long_texts_and_sets_are_cut_and_say_so():
    names = [f"label {i}" for i in range(20)]
    found = shown(frame(row("1", "é" * (MAX_CHARS + 1), confidence=0.5, candidates=names))).row(0, named=True)
    assert (len(found["text"]), found["is_cut"]) == (MAX_CHARS, True)
    assert (found["candidates"], found["n_candidates"]) == (names[:MAX_CANDIDATES], 20)
    assert not shown(frame(row("1", "é" * MAX_CHARS, confidence=0.5)))["is_cut"][0]


def test_no_more_rows_are_held_than_are_shown():
    doubtful = Doubtful(max_shown=50)
    for part in many_rows(2000).iter_slices(200):
        doubtful.add(part)
        assert doubtful.rows.height <= 50


def test_where_nothing_is_doubtful_nothing_is_shown():
    assert shown(frame(row("1", confidence=0.9))).is_empty()
    assert isinstance(shown(), pl.DataFrame)
