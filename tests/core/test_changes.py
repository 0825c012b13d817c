"""Rows of a version beside those of the one before it."""

import polars as pl

from candist_core.changes import count_changes, row_hashes


def hashes(*rows):
    return row_hashes(pl.DataFrame(rows, schema=["doc_id", "text", "label"], orient="row").lazy())


def test_rows_are_added_changed_removed_or_kept_and_of_the_kept_some_have_another_label():
    before = hashes(("1", "t", "a"), ("2", "u", "a"), ("3", "v", "a"), ("4", "w", "a"))
    after = hashes(("2", "u", "a"), ("3", "v", "b"), ("4", "other", "b"), ("5", "t", "a"), ("6", "x", "a"))
    found = count_changes(3, "0" * 16, before, after)
    assert (found.n_added, found.n_changed, found.n_removed, found.n_kept, found.n_relabelled) == (2, 1, 1, 2, 1)
    assert found.n_kept + found.n_changed + found.n_added == len(after)
    assert found.n_kept + found.n_changed + found.n_removed == len(before)


def test_equal_rows_in_another_order_have_changed_in_nothing():
    rows = [(str(i), f"t{i % 3}", "a") for i in range(9)]
    found = count_changes(1, "0" * 16, hashes(*rows), hashes(*reversed(rows)))
    assert str(found) == "since version 1: 0 added, 0 changed, 0 removed, 9 kept, 0 of them with another label"


def test_hashes_of_a_file_are_those_of_the_frame_that_was_written(tmp_path):
    frame = pl.DataFrame({"doc_id": ["a", "b"], "text": ["t", "é"], "label": ["x", "y"]})
    frame.write_parquet(tmp_path / "f.parquet")
    assert row_hashes(pl.scan_parquet(tmp_path / "f.parquet")).equals(row_hashes(frame.lazy()))
