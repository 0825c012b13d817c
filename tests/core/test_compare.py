"""Two versions side by side."""

import pytest

from candist_core.compare import compare_versions
from candist_core.reports import Usage
from tests.versions import frame_of, label_row, publish_rows


def versions(folder, rows, others, labels=("a", "b", "c"), other_labels=("a", "b", "c"), usages=(None, None)):
    first = publish_rows(folder, rows, labels, usage=usages[0])
    second = publish_rows(folder, others, other_labels, usage=usages[1])
    return compare_versions(first, second, frame_of(rows), frame_of(others))


def test_changed_labels_are_counted_by_where_they_went_most_first_with_the_first_of_each(tmp_path):
    rows = [label_row(str(i), f"text {i}", "a") for i in range(8)] + [label_row("8", "x", "b")]
    after = ["b", "b", "b", "b", "c", "a", "a"]
    others = [label_row(str(i), f"text {i}", label) for i, label in enumerate(after)] + [label_row("9", "new", "a")]
    others[4] |= {"source": "reviewed"}
    found = versions(tmp_path, rows, others)
    assert (found.n_both, found.n_only_before, found.n_only_after) == (7, 2, 1)
    assert (found.n_changed, found.n_reviewed) == (5, 1)
    assert [(move.before, move.after, move.n) for move in found.moves] == [("a", "b", 4), ("a", "c", 1)]
    assert [one.doc_id for one in found.moves[0].examples] == ["0", "1", "2"]
    assert found.moves[1].examples[0].source == "reviewed"
    assert sum(move.n for move in found.moves) == found.n_changed


def test_equal_versions_differ_in_nothing(tmp_path):
    rows = [label_row("1", "x", "a")]
    found = versions(tmp_path, rows, rows)
    assert (found.n_changed, found.moves, found.new_labels, found.gone_labels) == (0, (), (), ())
    assert all(one.before == one.after for one in found.metrics)


def test_metrics_cost_and_labels_of_both_stand_side_by_side(tmp_path):
    rows, others = [label_row("1", "x", "a", 0.5)], [label_row("1", "x", "a", 0.75)]
    others[0] |= {"needs_review": False}
    usages = (Usage(n_requests=10, cost_usd=0.5), Usage(n_requests=3, n_reused=10, cost_usd=0.25, reused_usd=0.5))
    found = versions(tmp_path, rows, others, ("a", "b"), ("a", "c"), usages)
    moved = {one.name: (one.before, one.after) for one in found.metrics}
    assert moved["want review"] == (1, 0)
    assert moved["mean confidence"] == (0.5, 0.75)
    assert moved["replies"] == (10, 13)
    assert moved["cost of all replies (USD)"] == (0.5, pytest.approx(0.75))
    assert (found.new_labels, found.gone_labels) == (("c",), ("b",))
    assert found.before.startswith("mails@1 (")
