"""Checks are named, and a wrong name, bound or action is told before anything runs."""

import json
from pathlib import Path

import pytest

from candist_core.checks_config import CHECKS, ChecksConfig, OnFail
from candist_core.config import RunConfig, parse_config
from candist_core.errors import ConfigError
from tests.core.test_config import MINIMAL


def sentence(**checks):
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL | {"checks": checks})
    return str(caught.value)


def test_a_wrong_check_is_refused_with_the_nearest_one():
    said = sentence(on_fail_by_check=[{"check": "annotations.unparsed_rat", "on_fail": "warn"}])
    assert said == (
        "configuration: checks.on_fail_by_check.0: found the unknown check 'annotations.unparsed_rat', "
        "wanted a known one; did you mean 'annotations.unparsed_rate'?"
    )


@pytest.mark.parametrize(
    ("check", "on_fail", "wanted"),
    [
        ("annotations.known_labels", "warn", "wanted fail or quarantine"),
        ("annotations.one_row_per_doc", "quarantine", "wanted fail;"),
        ("labels.review_rate", "quarantine", "wanted fail or warn"),
        ("run.balance", "quarantine", "wanted fail or warn"),
    ],
)
def test_an_action_that_a_check_cannot_take_is_refused(check, on_fail, wanted):
    assert wanted in sentence(on_fail_by_check=[{"check": check, "on_fail": on_fail}])


@pytest.mark.parametrize("check", CHECKS)
def test_without_an_entry_each_check_does_as_the_default_says_as_far_as_it_can(check):
    default = {on_fail: ChecksConfig(on_fail=on_fail).on_fail_of(check) for on_fail in OnFail}
    assert default[OnFail.FAIL] is OnFail.FAIL
    assert all(found in CHECKS[check] for found in default.values())
    if OnFail.WARN in CHECKS[check]:
        assert default[OnFail.WARN] is OnFail.WARN
    else:
        assert set(default.values()) == {OnFail.FAIL}


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"on_fail_by_check": [{"check": "run.balance", "on_fail": "warn"}] * 2}, "'run.balance' twice"),
        ({"min_single_rate": 0.9, "max_single_rate": 0.1}, "min_single_rate 0.9 above max_single_rate 0.1"),
        ({"balance": "prior"}, "balance prior without a prior"),
        (
            {"prior": [{"label": "aa", "share": 0.5}]},
            "'aa' under checks.prior, wanted a label of the task; did you mean",
        ),
        ({"prior": [{"label": "a", "share": 0.9}, {"label": "b", "share": 0.3}]}, "add up to 1.2, wanted 1"),
        ({"prior": [{"label": "a", "share": 0.1}, {"label": "b", "share": 0.3}]}, "add up to 0.4, wanted 1"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(checks, words):
    assert words in sentence(**checks)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"name": "Mine!"}, "name = 'Mine!'"),
        ({"arguments": "column: x"}, "arguments of mine that are no JSON object"),
        ({"arguments": "[1]"}, "arguments of mine that are no JSON object"),
        ({"on": "labels", "on_fail": "quarantine"}, "only rows of annotations can be set aside"),
        ({"on": "texts"}, "on = 'texts'"),
    ],
)
def test_an_expectation_of_ones_own_is_looked_at_as_far_as_can_be(own, words):
    entry = {"name": "mine", "expectation": "ExpectColumnToExist", "arguments": {"column": "doc_id"}} | own
    assert words in sentence(expectations=[entry])


def test_arguments_may_be_a_mapping_in_yaml_and_are_text_in_the_form():
    entry = {"name": "mine", "expectation": "ExpectColumnToExist", "arguments": {"column": "doc_id"}}
    config = parse_config(MINIMAL | {"checks": {"expectations": [entry]}})
    assert json.loads(config.checks.expectations[0].arguments) == {"column": "doc_id"}
    assert parse_config(config.model_dump(mode="json")) == config
    schema = RunConfig.model_json_schema()["$defs"]
    assert schema["OwnExpectation"]["properties"]["arguments"]["type"] == "string"
    assert schema["CheckOnFail"]["properties"]["check"]["enum"] == list(CHECKS)


def test_bounds_on_labels_do_not_make_shards_stale_and_bounds_on_annotations_do():
    plain = ChecksConfig().of_shards()
    assert ChecksConfig(max_psi=1.0, max_review_rate=0.1, max_identical_rate=1.0).of_shards() == plain
    assert ChecksConfig(max_unparsed_rate=0.1).of_shards() != plain
    entries = [{"check": "annotations.set_size", "on_fail": "quarantine"}]
    assert ChecksConfig(on_fail_by_check=entries).of_shards() != plain
    assert ChecksConfig(on_fail_by_check=[{"check": "run.balance", "on_fail": "warn"}]).of_shards() == plain


def test_every_check_and_every_bound_stands_in_the_documentation():
    words = (Path(__file__).parents[2] / "docs/checks.md").read_text(encoding="utf-8")
    assert [name for name in (*CHECKS, *ChecksConfig.model_fields) if name not in words] == []
