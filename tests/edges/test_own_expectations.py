"""Expectations that users add in the configuration: refused in one sentence, or judged as they say."""

import polars as pl
import pytest

from candist_core.edges.own_expectations import (
    check_own,
    check_own_labels,
    check_own_settings,
    own_failing_rows,
)
from candist_core.errors import ConfigError
from candist_core.stages.preflight import preflight
from tests.edges.test_expectations import annotated, configured, labelled
from tests.flows.corpora import demo_config

pytestmark = pytest.mark.slow

LENGTHS = "ExpectColumnValueLengthsToBeBetween"


def own(expectation=LENGTHS, on="annotations", name="mine", **arguments):
    on_fail = arguments.pop("on_fail", None)
    return {"name": name, "on": on, "expectation": expectation, "arguments": arguments, "on_fail": on_fail}


def with_own(*entries, **checks):
    return configured(expectations=entries, **checks)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (own("ExpectColumnValueLengthToBeBetween", column="doc_id"), f"did you mean '{LENGTHS}'?"),
        (own("drop_table", column="doc_id"), "no expectation 'drop_table', wanted one of Great Expectations"),
        (
            own(colum="doc_id"),
            "no argument 'colum' of ExpectColumnValueLengthsToBeBetween, wanted a known one; did you",
        ),
        (own(column="doc_id", meta={}), "no argument 'meta'"),
        (own(column="doc_id", row_condition="@x", condition_parser="pandas"), "no argument 'row_condition'"),
        (own(column="doc_ids", max_value=3), "no column 'doc_ids' in annotations, wanted a known one; did you mean"),
        (own(column="zzz", max_value=3), "there are doc_id, candidates, n_candidates, first_label"),
        (own(max_value=3), "does not take (column: field required)"),
        (own(column="doc_id", max_value=[3]), "arguments that ExpectColumnValueLengthsToBeBetween does not take"),
        (own("ExpectColumnMeanToBeBetween", column="status", max_value=1), "cannot be carried out on annotations"),
        (
            own("ExpectColumnMeanToBeBetween", column="n_candidates", max_value=1, on_fail="quarantine"),
            "no row is at fault",
        ),
    ],
)
def test_what_cannot_be_carried_out_is_one_sentence(entry, words):
    with pytest.raises(ConfigError) as caught:
        check_own_settings(with_own(entry))
    said = str(caught.value)
    assert words in said
    assert said.startswith("checks.expectations.0 (mine): found ")
    assert "\n" not in said


def test_a_wrong_expectation_stops_a_run_before_it_asks_anything(tmp_path):
    config = demo_config(tmp_path, n=20, checks={"expectations": [own("ExpectNothing")]})
    with pytest.raises(ConfigError, match="no expectation 'ExpectNothing'"):
        preflight(config)
    preflight(demo_config(tmp_path, n=20, checks={"expectations": [own(column="doc_id", max_value=40)]}))


@pytest.mark.parametrize(
    ("entry", "passes"),
    [
        (own(column="first_label", min_value=1, max_value=1), True),
        (own(column="doc_id", max_value=2), False),
        (own(column="doc_id", max_value=2, mostly=0.1), True),
        (own("ExpectColumnMeanToBeBetween", column="n_candidates", max_value=2), True),
        (own("ExpectColumnMeanToBeBetween", column="n_candidates", max_value=1.9), False),
        (own("ExpectColumnDistinctValuesToBeInSet", column="first_label", value_set=["b"]), False),
        (own("ExpectTableRowCountToBeBetween", min_value=60, max_value=60), True),
        (own("ExpectColumnPairValuesToBeEqual", column_A="first_label", column_B="status"), False),
    ],
)
def test_an_expectation_on_annotations_passes_or_fails_with_what_was_observed(entry, passes):
    config = with_own(entry)
    check_own_settings(config)
    (result,) = check_own(config, annotated(60))
    assert (result.name, result.passed, result.on_fail, result.n) == ("own.mine", passes, "fail", 60)
    assert result.observed
    assert result.wanted.startswith(entry["expectation"])


def test_rows_at_fault_are_named_with_their_value():
    config = with_own(
        own(column="doc_id", max_value=2, on_fail="quarantine"), own(name="other", column="status", max_value=9)
    )
    frame = annotated(12)
    results = check_own(config, frame)
    assert [result.passed for result in results] == [False, True]
    assert (results[0].observed, results[0].on_fail) == ("16.67 % (2 of 12) rows that break it", "quarantine")
    assert own_failing_rows(config, frame, results).rows() == [("d10", "own.mine", "d10"), ("d11", "own.mine", "d11")]


def test_a_null_breaks_no_claim_about_values_and_no_rows_pass():
    config = with_own(own("ExpectColumnValuesToBeInSet", column="first_label", value_set=["a"]))
    assert check_own(config, annotated(3, d1=([], "abstained")))[0].passed
    assert check_own(config, annotated(0))[0].passed


def test_an_expectation_on_labels_sees_all_shards_at_once_and_cannot_set_rows_aside():
    entries = (
        own("ExpectColumnMinToBeBetween", on="labels", column="confidence", min_value=0.9),
        own("ExpectColumnUniqueValueCountToBeBetween", on="labels", name="labels", column="label", min_value=2),
    )
    config = with_own(*entries, on_fail="quarantine")
    check_own_settings(config)
    shards = [labelled(3), labelled(3, label="b", confidence=0.5).with_columns(doc_id=pl.lit("x") + pl.col("doc_id"))]
    results = check_own_labels(config, iter(shards))
    assert [(result.name, result.passed, result.on_fail) for result in results] == [
        ("own.mine", False, "fail"),
        ("own.labels", True, "fail"),
    ]
    assert results[0].observed == "0.5"
    assert check_own(config, annotated(3)) == ()
