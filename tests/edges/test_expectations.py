"""Checks by the real Great Expectations, on small frames."""

import json
import logging
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from candist_core.config import ChecksConfig, OnFail
from candist_core.edges.expectations import check_annotations, check_labels, check_summary, failing_rows
from candist_core.edges.judge import Expectation, judge
from candist_core.errors import ContractError, TerminalError
from candist_core.reports import CheckResult
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tables import ANNOTATIONS, LABELS

# The first check of a process imports Great Expectations, for 2 to 4 seconds.
pytestmark = pytest.mark.slow

SPEC = TaskSpec(labels=[LabelSpec(name=name) for name in "abcd"], max_candidates=2)
CHECKS = ChecksConfig()


def annotated(n: int, **odd: tuple[list[str], str]) -> pl.DataFrame:
    """n sound rows d0, d1, ...; `odd` gives some of them other candidates and another status."""
    rows = [(f"d{i}", *odd.get(f"d{i}", (["a", "b"], "ok"))) for i in range(n)]
    filled = [(doc, candidates, None, status, "t", f"key-{doc}") for doc, candidates, status in rows]
    return pl.DataFrame(filled, schema=ANNOTATIONS.columns, orient="row")


def with_status(n: int, n_odd: int, status: str) -> pl.DataFrame:
    return annotated(n, **{f"d{i}": ([], status) for i in range(n_odd)})


def labelled(n: int, **changed: object) -> pl.DataFrame:
    """n sound labels; `changed` replaces whole columns by one value."""
    row = {
        "label": "a",
        "confidence": 0.9,
        "candidates": ["a", "b"],
        "teacher_label": "a",
        "source": "agreed",
        "needs_review": False,
        "reason": None,
    }
    rows = [{"doc_id": f"d{i}"} | row | changed for i in range(n)]
    return pl.DataFrame(rows, schema=LABELS.columns)


def check(frame: pl.DataFrame, n: int | None = None, checks: ChecksConfig = CHECKS) -> dict[str, CheckResult]:
    results = check_annotations(frame, frame.height if n is None else n, SPEC, checks, "t")
    return {result.name.removeprefix("annotations."): result for result in results}


def failed(results: dict[str, CheckResult]) -> list[str]:
    return [name for name, result in results.items() if not result.passed]


def test_a_sound_shard_passes_every_check_by_its_name():
    results = check(annotated(60))
    assert failed(results) == []
    assert list(results) == [
        "one_row_per_doc", "known_status", "known_labels", "unique_labels", "nonempty_when_ok", "teacher",
        "set_size", "unparsed_rate", "failed_rate", "abstained_rate",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "n", "name", "n_unexpected"),
    [
        (pl.concat([annotated(3), annotated(2)]), 5, "one_row_per_doc", 4),
        (annotated(3), 5, "one_row_per_doc", 2),
        (annotated(3, d1=(["a", "zebra"], "ok")), 3, "known_labels", 1),
        (annotated(3, d1=(["a", "a"], "ok")), 3, "unique_labels", 1),
        (annotated(3, d1=([], "ok")), 3, "nonempty_when_ok", 1),
        (annotated(3, d1=(["a"], "failed")), 3, "nonempty_when_ok", 1),
        (annotated(3, d1=([], "puzzled")), 3, "known_status", 1),
        (annotated(3).with_columns(teacher=pl.lit("other")), 3, "teacher", 3),
    ],
)
def test_a_structural_fault_fails_the_run_whatever_on_fail_says(frame, n, name, n_unexpected):
    results = check(frame, n, ChecksConfig(on_fail=OnFail.WARN))
    assert failed(results) == [name]
    assert results[name].n_unexpected == n_unexpected
    assert results[name].on_fail == "fail"


@pytest.mark.parametrize(
    ("name", "status", "bound"),
    [
        ("unparsed_rate", "unparsed", {"max_unparsed_rate": 0.29}),
        ("failed_rate", "failed", {"max_failed_rate": 0.29}),
        ("failed_rate", "refused", {"max_failed_rate": 0.29}),
        ("abstained_rate", "abstained", {"max_abstained_rate": 0.29}),
    ],
)
def test_a_rate_passes_at_its_bound_and_fails_one_row_above(name, status, bound):
    checks = ChecksConfig(on_fail=OnFail.QUARANTINE, **bound)
    assert failed(check(with_status(100, 29, status), checks=checks)) == []
    result = check(with_status(100, 30, status), checks=checks)[name]
    assert not result.passed
    assert (result.n_unexpected, result.n, result.on_fail) == (30, 100, "quarantine")
    assert result.observed.startswith("30 % (30 of 100) ")
    assert result.wanted == "at most 29 %"


def test_set_size_is_a_share_of_the_sets_and_not_of_the_texts():
    big = {f"d{i}": (["a", "b", "c"], "ok") for i in range(3)}
    none = {f"d{i}": ([], "abstained") for i in range(10, 50)}
    result = check(annotated(100, **big, **none), checks=ChecksConfig(max_abstained_rate=1.0))["set_size"]
    assert result.passed
    assert (result.n_unexpected, result.n) == (3, 60)
    assert failed(check(annotated(100, **big, d3=(["b", "c", "d"], "ok"), **none)))[:1] == ["set_size"]


def test_a_small_shard_is_not_judged_by_its_rates_but_by_its_structure():
    results = check(with_status(10, 9, "unparsed"))
    assert failed(results) == []
    assert results["unparsed_rate"].observed == (
        "90 % (9 of 10) replies that name no label, too few rows to judge a rate"
    )
    assert failed(check(annotated(10, d3=(["zebra"], "ok")))) == ["known_labels"]


def test_an_empty_shard_passes_if_it_was_to_be_empty():
    assert failed(check(annotated(0))) == []
    assert {result.observed for result in list(check(annotated(0)).values())[1:]} == {"no rows"}
    assert failed(check(annotated(0), n=3)) == ["one_row_per_doc"]


def test_failing_rows_names_the_rows_of_failed_checks_only():
    frame = annotated(
        100, **{f"d{i}": ([], "unparsed") for i in range(6)}, d7=(["a", "x", "y"], "ok"), d8=([], "failed")
    )
    results = check_annotations(frame, 100, SPEC, CHECKS, "t")
    rows = failing_rows(frame, results, SPEC, CHECKS, "t")
    assert rows.columns == ["doc_id", "check", "value"]
    assert rows.rows() == [
        ("d7", "annotations.known_labels", "x, y"),
        *((f"d{i}", "annotations.unparsed_rate", "unparsed") for i in range(6)),
    ]


def test_failing_rows_names_a_doc_that_stands_twice_and_nothing_when_all_passed():
    twice = pl.concat([annotated(2), annotated(1)])
    assert (
        failing_rows(twice, check_annotations(twice, 3, SPEC, CHECKS, "t"), SPEC, CHECKS, "t").rows()
        == [("d0", "annotations.one_row_per_doc", "stands more than once")] * 2
    )
    sound = annotated(3)
    assert failing_rows(sound, check_annotations(sound, 3, SPEC, CHECKS, "t"), SPEC, CHECKS, "t").is_empty()


@pytest.mark.parametrize(
    ("changed", "checks", "name"),
    [
        ({"label": "zebra"}, {"min_agreement": 0.0}, "known_labels"),
        ({"confidence": float("nan")}, {}, "confidence"),
        ({"confidence": 1.5}, {}, "confidence"),
        ({"needs_review": True}, {}, "review_rate"),
        ({"label": "d"}, {}, "agreement"),
    ],
)
def test_each_fault_of_the_labels_fails_its_check(changed, checks, name):
    results = check_labels(labelled(4, **changed), SPEC, ChecksConfig(**checks), 4)
    assert [result.name for result in results if not result.passed] == [f"labels.{name}"]


def test_sound_labels_pass_and_agreement_is_over_labels_with_candidates():
    frame = pl.concat([labelled(9), labelled(1, doc_id="e", label="d"), labelled(5, candidates=[]).head(0)])
    alone = labelled(1, doc_id="f", candidates=[])
    results = check_labels(pl.concat([frame, alone]), SPEC, ChecksConfig(min_agreement=0.9), 11)
    assert all(result.passed for result in results)
    assert (results[-1].name, results[-1].n, results[-1].n_unexpected) == ("labels.agreement", 10, 1)
    assert results[-1].observed == "90 % (9 of 10) labels among their candidates"


def test_quarantine_of_labels_fails_the_run_and_warn_warns():
    for on_fail, meant in ((OnFail.QUARANTINE, "fail"), (OnFail.WARN, "warn")):
        results = check_labels(labelled(4, needs_review=True), SPEC, ChecksConfig(on_fail=on_fail), 4)
        assert [result.on_fail for result in results if not result.passed] == [meant]


def test_summary_takes_its_rates_over_all_texts_and_not_as_a_mean_of_shards():
    counts = pl.DataFrame([{"n": 1000, "ok": 1000}, {"n": 10, "ok": 5, "unparsed": 5}])
    results = {result.name: result for result in check_summary(counts, CHECKS)}
    assert list(results) == ["run.unparsed_rate", "run.failed_rate", "run.abstained_rate", "run.oversized_rate"]
    assert all(result.passed for result in results.values())
    assert results["run.unparsed_rate"].observed == "0.495 % (5 of 1,010) replies that name no label"


@pytest.mark.parametrize(("n_failed", "is_passed"), [(29, True), (30, False)])
def test_summary_adds_refused_to_failed_and_passes_at_the_bound(n_failed, is_passed):
    counts = pl.DataFrame([{"ok": 100 - n_failed, "failed": n_failed - 9, "refused": 9}])
    results = {result.name: result for result in check_summary(counts, ChecksConfig(max_failed_rate=0.29))}
    assert results["run.failed_rate"].passed is is_passed
    assert results["run.failed_rate"].n_unexpected == n_failed


def test_summary_counts_oversized_sets_among_sets_and_only_warns_in_quarantine():
    counts = pl.DataFrame([{"ok": 10, "abstained": 90, "oversized": 2}])
    checks = ChecksConfig(on_fail=OnFail.QUARANTINE, max_abstained_rate=1.0)
    (result,) = [result for result in check_summary(counts, checks) if not result.passed]
    assert (result.name, result.observed[:17], result.on_fail) == ("run.oversized_rate", "20 % (2 of 10) se", "warn")


def test_summary_of_no_shards_passes():
    assert all(result.passed and result.observed == "no rows" for result in check_summary(pl.DataFrame(), CHECKS))


def test_an_expectation_that_raises_is_an_error_and_no_failed_check():
    broken = Expectation("labels.agreement", "ExpectColumnMeanToBeBetween", {"column": "absent", "max_value": 1})
    with pytest.raises(TerminalError, match=r"check labels\.agreement could not be carried out, which says nothing"):
        judge(pl.DataFrame({"x": [1]}), [broken])


def test_a_frame_of_another_contract_is_refused():
    with pytest.raises(ContractError, match="no column 'candidates'"):
        check(pl.DataFrame({"doc_id": ["d0"]}))


def test_checks_from_several_threads_do_not_take_each_other_s_frames():
    frames = [with_status(100, i, "unparsed") for i in (0, 3, 6, 9) * 3]
    with ThreadPoolExecutor(4) as pool:
        found = [failed(results) for results in pool.map(check, frames)]
    assert found == [[], [], ["unparsed_rate"], ["unparsed_rate"]] * 3


def test_a_check_prints_nothing_logs_nothing_and_keeps_warnings_where_they_were(capfd, caplog):
    showing = warnings.showwarning
    with caplog.at_level(logging.INFO):
        check(with_status(100, 50, "unparsed"))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert warnings.showwarning is showing


def test_a_user_s_own_context_stays_the_current_one():
    import great_expectations
    from great_expectations.data_context.data_context.context_factory import project_manager

    theirs = great_expectations.get_context(mode="ephemeral")
    check(annotated(3))
    assert project_manager.get_current_project() is theirs
    project_manager.set_project(None)


QUIET = """
import json, sys, warnings
before = warnings.showwarning
import polars as pl
from candist_core.config import ChecksConfig
from candist_core.edges.expectations import check_summary
assert "great_expectations" not in sys.modules, "imported too early"
check_summary(pl.DataFrame([{"ok": 3}]), ChecksConfig())
from great_expectations.data_context.data_context.context_factory import project_manager
from great_expectations.exceptions import DataContextRequiredError
try:
    project_manager.get_current_project()
    left = True
except DataContextRequiredError:
    left = False
print(json.dumps([warnings.showwarning is before, left]))
"""


def test_a_first_check_leaves_no_file_no_output_no_context_and_no_captured_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == [True, False]
    assert done.stderr == ""
    assert list(tmp_path.rglob("*")) == []
