import polars as pl
import pytest

from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tally import Tally
from tests.published_rows import NAMES, frame, many_rows, row

SPEC = TaskSpec(labels=[LabelSpec(name=name) for name in NAMES])


def tally_of(*parts):
    tally = Tally(SPEC)
    for part in parts:
        tally.add(part)
    return tally


def test_counts_are_those_a_hand_makes():
    tally = tally_of(
        frame(
            row("1", label="outage", confidence=0.5, candidates=["outage", "billing"], gold="billing"),
            row("2", label="outage", confidence=0.75, gold="outage", reason="student and teacher disagree"),
            row("3", label="roaming", confidence=1.0, candidates=[], teacher_label=None, gold="nonsense"),
        )
    )
    assert tally.classes.rows() == [("outage", 2, 2, 1.25), ("roaming", 1, 0, 1.0)]
    assert tally.reasons.rows() == [("low confidence", 1), ("student and teacher disagree", 1)]
    assert tally.sizes.rows() == [(0, 1, 0, 0, 0), (1, 1, 1, 1, 1), (2, 1, 1, 1, 0)]
    assert tally.confusion.rows() == [("billing", "outage", 1), ("outage", "outage", 1)]
    assert tally.confidences.rows() == [
        (499, 1, 1, 0.5, 0.0, 1, 0),
        (749, 1, 1, 0.75, 0.0, 1, 1),
        (999, 1, 0, 1.0, 1.0, 0, 0),
    ]
    assert (tally.n_rows, tally.n_review, tally.n_gold, tally.kept_confidence) == (3, 2, 2, 1.0)


def test_how_rows_were_cut_into_parts_changes_no_count():
    rows = many_rows(500)
    whole, parts = tally_of(rows), tally_of(*rows.iter_slices(37))
    for name in ("classes", "reasons", "sources", "confidences", "sizes", "confusion"):
        left, right = getattr(whole, name), getattr(parts, name)
        masses = [column for column in ("confidence", "kept") if column in left.columns]
        assert left.drop(masses).equals(right.drop(masses))
        for column in masses:
            assert left[column].to_list() == pytest.approx(right[column].to_list())


def test_a_float_that_misses_its_bound_by_rounding_stays_in_its_bin():
    assert tally_of(frame(row("1", confidence=0.8))).confidences["bin"].to_list() == [799]


def test_rows_without_gold_count_none():
    assert tally_of(many_rows(20).drop("gold")).n_gold == 0
    assert tally_of(many_rows(20, has_gold=False)).n_gold == 0


def test_no_rows_are_no_counts():
    tally = tally_of(frame())
    assert (tally.n_rows, tally.n_review, tally.kept_confidence) == (0, 0, None)
    assert isinstance(tally.classes, pl.DataFrame)
