"""Sets as matrices."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from candist_core.candidates import candidate_mask, has_candidates, rank_table

LABELS = ["a", "b", "c"]
sets_of_labels = st.lists(st.lists(st.sampled_from(LABELS), unique=True, max_size=3), min_size=1, max_size=6)


@given(sets_of_labels)
def test_ranks_give_each_set_back_in_order(sets):
    ranks = rank_table(sets, LABELS)
    back = [[LABELS[j] for j in np.argsort(row) if row[j] >= 0] for row in ranks]
    assert back == sets


@given(sets_of_labels)
def test_the_mask_holds_what_the_ranks_hold(sets):
    S = candidate_mask(sets, LABELS)
    assert S.sum(axis=1).tolist() == [len(names) for names in sets]
    assert has_candidates(S).tolist() == [bool(names) for names in sets]


def test_unknown_labels_are_passed_over():
    assert rank_table([["z", "b"]], LABELS).tolist() == [[-1, 1, -1]]


def test_a_polars_column_is_read_like_lists():
    column = pl.Series([["b", "a"], []], dtype=pl.List(pl.String))
    assert rank_table(column, LABELS).tolist() == [[1, 0, -1], [-1, -1, -1]]
