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

from candist_core.balance import Expected
from candist_core.config import RunConfig, parse_config
from candist_core.edges.expectations import (
    LabelCounts,
    check_annotations,
    check_labels,
    check_run,
    failing_rows,
    sum_up,
)
from candist_core.edges.ids import IdCounter
from candist_core.edges.judge import Expectation, judge
from candist_core.errors import TerminalError
from candist_core.reports import AnnotateReport, CheckResult, Usage
from candist_core.tables import ANNOTATIONS, LABELS, TableRef

# The first check of a process imports Great Expectations, for 2 to 4 seconds.
pytestmark = pytest.mark.slow


def configured(strategy: str = "ca_add", **checks: object) -> RunConfig:
    """Four labels, two in a set at most."""
    labels = [{"name": name} for name in "abcd"]
    task = {"labels": labels, "max_candidates": 2, "strategy": strategy}
    return parse_config({"name": "x", "task": task, "source": {"uri": "x.csv"}, "checks": checks})


CONFIG = configured()
TEACHERS = ("t",)


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


def check(frame: pl.DataFrame, n: int | None = None, config: RunConfig = CONFIG) -> dict[str, CheckResult]:
    results = check_annotations(frame, frame.height if n is None else n, config, TEACHERS)
    return {result.name.removeprefix("annotations."): result for result in results}


def failed(results: dict[str, CheckResult]) -> list[str]:
    return [name for name, result in results.items() if not result.passed]


def test_a_sound_shard_passes_every_check_by_its_name():
    results = check(annotated(60))
    assert failed(results) == []
    assert list(results) == [
        "schema", "one_row_per_doc", "known_status", "known_labels", "unique_labels", "nonempty_when_ok", "teacher",
        "strategy", "set_size", "unparsed_rate", "failed_rate", "abstained_rate",
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
    results = check(frame, n, configured(on_fail="warn"))
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
    config = configured(on_fail="quarantine", **bound)
    assert failed(check(with_status(100, 29, status), config=config)) == []
    result = check(with_status(100, 30, status), config=config)[name]
    assert not result.passed
    assert (result.n_unexpected, result.n, result.on_fail) == (30, 100, "quarantine")
    assert result.observed.startswith("30 % (30 of 100) ")
    assert result.wanted == "at most 29 %"


def test_set_size_is_a_share_of_the_sets_and_not_of_the_texts():
    big = {f"d{i}": (["a", "b", "c"], "ok") for i in range(3)}
    none = {f"d{i}": ([], "abstained") for i in range(10, 50)}
    result = check(annotated(100, **big, **none), config=configured(max_abstained_rate=1.0))["set_size"]
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
    assert {result.observed for result in list(check(annotated(0)).values())[2:]} == {"no rows"}
    assert failed(check(annotated(0), n=3)) == ["one_row_per_doc"]


def test_failing_rows_names_the_rows_of_failed_checks_only():
    frame = annotated(
        100, **{f"d{i}": ([], "unparsed") for i in range(6)}, d7=(["a", "x", "y"], "ok"), d8=([], "failed")
    )
    results = check_annotations(frame, 100, CONFIG, TEACHERS)
    rows = failing_rows(frame, results, CONFIG, TEACHERS)
    assert rows.columns == ["doc_id", "check", "value"]
    assert rows.rows() == [
        ("d7", "annotations.known_labels", "x, y"),
        *((f"d{i}", "annotations.unparsed_rate", "unparsed") for i in range(6)),
    ]


def test_failing_rows_names_a_doc_that_stands_twice_and_nothing_when_all_passed():
    twice = pl.concat([annotated(2), annotated(1)])
    assert (
        failing_rows(twice, check_annotations(twice, 3, CONFIG, TEACHERS), CONFIG, TEACHERS).rows()
        == [("d0", "annotations.one_row_per_doc", "stands more than once")] * 2
    )
    sound = annotated(3)
    assert failing_rows(sound, check_annotations(sound, 3, CONFIG, TEACHERS), CONFIG, TEACHERS).is_empty()


def test_a_table_without_a_column_or_with_a_null_fails_the_schema_alone():
    missing = check(annotated(3).drop("candidates"))
    assert failed(missing) == ["schema"]
    assert missing["schema"].observed == "no column 'candidates'"
    null = annotated(3).with_columns(status=pl.lit(None, pl.String))
    assert check(null)["schema"].observed == "3 nulls in 'status'"


@pytest.mark.parametrize(("strategy", "found"), [("sa", ["strategy"]), ("ca_add", []), ("ca_all", [])])
def test_only_the_strategy_of_single_labels_forbids_sets_of_two(strategy, found):
    config = configured(strategy)
    assert failed(check(annotated(60), config=config)) == found
    assert check(annotated(60, **{f"d{i}": (["a"], "ok") for i in range(57)}), config=config)["strategy"].passed


def test_one_check_may_be_named_to_do_otherwise_than_the_rest():
    entries = [
        {"check": "annotations.unparsed_rate", "on_fail": "quarantine"},
        {"check": "annotations.known_labels", "on_fail": "quarantine"},
    ]
    frame = annotated(100, **{f"d{i}": ([], "unparsed") for i in range(9)}, d20=(["a", "zebra"], "ok"))
    results = check(frame, config=configured(on_fail="warn", on_fail_by_check=entries, max_abstained_rate=0))
    assert {name: result.on_fail for name, result in results.items() if name in failed(results)} == {
        "known_labels": "quarantine",
        "unparsed_rate": "quarantine",
    }
    assert results["abstained_rate"].on_fail == "warn"
    assert results["teacher"].on_fail == "fail"


def label_results(
    *frames: pl.DataFrame, n: int | None = None, expected: Expected | None = None, **checks: object
) -> dict[str, CheckResult]:
    counts = LabelCounts(configured(**checks))
    for frame in frames:
        counts.add(frame)
    n_expected = sum(frame.height for frame in frames) if n is None else n
    return {result.name: result for result in check_labels(counts, n_expected, expected)}


@pytest.mark.parametrize(
    ("changed", "checks", "name"),
    [
        ({"label": "zebra"}, {"max_out_of_set_rate": 1.0}, "known_labels"),
        ({"confidence": float("nan")}, {}, "confidence"),
        ({"confidence": 1.5}, {}, "confidence"),
        ({"confidence": 0.4}, {"min_mean_confidence": 0.5}, "mean_confidence"),
        ({"needs_review": True}, {}, "review_rate"),
        ({"label": "d"}, {}, "out_of_set_rate"),
        ({"source": "student"}, {}, "agreement"),
    ],
)
def test_each_fault_of_the_labels_fails_its_check(changed, checks, name):
    assert failed(label_results(labelled(40, **changed), max_absent_rate=1.0, **checks)) == [f"labels.{name}"]


def test_sound_labels_pass_in_any_number_of_shards_by_these_names():
    whole, alone = labelled(39), labelled(1, doc_id="f", candidates=[])
    outside = labelled(1, doc_id="e", label="d", source="student")
    bounds = {"min_agreement": 0.975, "max_out_of_set_rate": 0.025, "max_absent_rate": 1.0}
    results = label_results(whole, outside, alone, **bounds)
    assert failed(results) == []
    assert [name.removeprefix("labels.") for name in results] == [
        "schema", "one_row_per_doc", "known_labels", "confidence", "review_rate", "agreement", "out_of_set_rate",
        "mean_confidence", "class_presence", "balance",
    ]  # fmt: skip
    agreement = results["labels.agreement"]
    assert (agreement.n, agreement.n_unexpected, agreement.value) == (40, 1, 0.975)
    assert results["labels.out_of_set_rate"].observed == "2.5 % (1 of 40) labels outside their candidates"
    assert "nothing to compare with" in results["labels.balance"].observed


def test_a_label_that_stands_in_two_shards_or_is_missing_fails():
    assert failed(label_results(labelled(3), labelled(1))) == ["labels.one_row_per_doc"]
    assert failed(label_results(labelled(3), n=4)) == ["labels.one_row_per_doc"]
    assert failed(label_results(labelled(3).drop("source"), n=0)) == ["labels.schema"]


def test_labels_that_no_text_got_fail_once_there_are_enough_texts():
    assert label_results(labelled(39), max_absent_rate=0.5)["labels.class_presence"].passed
    result = label_results(labelled(40), max_absent_rate=0.5)["labels.class_presence"]
    assert (result.passed, result.observed) == (False, "75 % (3 of 4) labels that no text got, such as b")
    assert label_results(labelled(40), max_absent_rate=0.75)["labels.class_presence"].passed


def test_a_student_of_few_texts_need_not_agree_with_its_teacher():
    assert failed(label_results(labelled(39, source="student"))) == []
    assert "labels.agreement" in failed(label_results(labelled(40, source="student")))


def test_quarantine_of_labels_fails_the_run_and_warn_warns():
    for on_fail, meant in (("quarantine", "fail"), ("warn", "warn")):
        results = label_results(labelled(4, needs_review=True), on_fail=on_fail)
        assert [results[name].on_fail for name in failed(results)] == [meant]


def test_balance_says_its_number_and_the_label_that_moved_most():
    frame = pl.concat([labelled(900), labelled(1000, label="b", doc_id=None)]).with_columns(
        doc_id=pl.int_range(1900).cast(pl.String)
    )
    even = Expected("the stated prior", {"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0})
    assert label_results(frame, expected=even)["labels.balance"].passed
    skewed = Expected("version 3", {"a": 0.9, "b": 0.1, "c": 0.0, "d": 0.0}, n=2000)
    result = label_results(frame, expected=skewed)["labels.balance"]
    assert not result.passed
    # a: 0.474 for 0.9, b: 0.526 for 0.1: (0.426 ln 1.9) + (0.426 ln 5.26) = 0.98, a little less by smoothing.
    assert result.value == pytest.approx(0.98, abs=0.01)
    assert "against version 3, most by a: 47.37 % instead of 90 %" in result.observed
    assert result.wanted == "at most 0.25"


def test_balance_against_few_texts_allows_what_chance_makes():
    frame = labelled(100).with_columns(label=pl.Series(["a", "b"] * 50), doc_id=pl.int_range(100).cast(pl.String))
    # Between 100 and 40 texts with 3 degrees of freedom: 16.27 * (1/100 + 1/40) = 0.569.
    few = Expected("the audit of 40 texts", {"a": 0.75, "b": 0.25, "c": 0.0, "d": 0.0}, n=40)
    result = label_results(frame, expected=few, max_psi=0.1)["labels.balance"]
    assert result.at_most == pytest.approx(0.569, abs=1e-3)
    assert result.passed
    assert "which chance alone reaches" in result.wanted


def report(sizes: dict[int, int], checks: tuple[CheckResult, ...] = (), **counts: object) -> AnnotateReport:
    """A shard with these sets; other statuses by keyword."""
    table = TableRef("x", "annotations/1", sum(sizes.values()), "0", 1)
    fields = {name: counts.pop(name) for name in ("first_labels", "frequent_sets") if name in counts}
    statuses = {"ok": sum(n for size, n in sizes.items() if size)} | counts
    return AnnotateReport(
        annotations=table, rejects=table, usage=Usage(), statuses=statuses, set_sizes=sizes, checks=checks, **fields
    )


def run_results(
    *reports: AnnotateReport, expected: Expected | None = None, n: int | None = None, **checks: object
) -> dict[str, CheckResult]:
    ids = IdCounter()
    ids.add(pl.int_range(sum(one.annotations.rows for one in reports) if n is None else n, eager=True).cast(pl.String))
    return {result.name: result for result in check_run(reports, configured(**checks), expected, ids)}


def test_a_run_is_judged_over_all_texts_and_not_by_a_mean_of_shards():
    results = run_results(report({1: 500, 2: 500}), report({1: 5, 0: 5}, unparsed=5))
    assert list(results) == [
        "run.one_row_per_doc", "run.unparsed_rate", "run.failed_rate", "run.abstained_rate", "run.oversized_rate",
        "run.single_rate", "run.identical_rate", "run.balance",
    ]  # fmt: skip
    assert failed(results) == []
    assert results["run.unparsed_rate"].observed == "0.495 % (5 of 1,010) replies that name no label"


@pytest.mark.parametrize(("n_failed", "is_passed"), [(29, True), (30, False)])
def test_a_run_adds_refused_to_failed_and_passes_at_the_bound(n_failed, is_passed):
    one = report({1: 100 - n_failed}, failed=n_failed - 9, refused=9)
    result = run_results(one, max_failed_rate=0.29)["run.failed_rate"]
    assert (result.passed, result.n_unexpected) == (is_passed, n_failed)


def test_a_run_counts_oversized_sets_among_sets_and_only_warns_in_quarantine():
    one = report({2: 8, 3: 2, 0: 90}, abstained=90)
    results = run_results(one, on_fail="quarantine", max_abstained_rate=1.0)
    assert failed(results) == ["run.oversized_rate"]
    result = results["run.oversized_rate"]
    assert (result.observed[:17], result.on_fail) == ("20 % (2 of 10) se", "warn")


@pytest.mark.parametrize(
    ("band", "is_passed"),
    [({"min_single_rate": 0.9}, True), ({"min_single_rate": 0.91}, False), ({"max_single_rate": 0.89}, False)],
)
def test_the_share_of_single_label_sets_has_to_lie_within_its_band(band, is_passed):
    assert run_results(report({1: 90, 2: 10, 0: 5}, abstained=5), **band)["run.single_rate"].passed is is_passed


def test_a_teacher_that_gives_one_set_to_every_text_is_stopped():
    usual = report({2: 60}, frequent_sets={"a | b": 60})
    result = run_results(usual, report({2: 40}, frequent_sets={"a | b": 39, "a | c": 1}))["run.identical_rate"]
    assert not result.passed
    assert result.observed == "99 % (99 of 100) sets that are the most frequent one, a | b"
    assert result.wanted == "at most 98 %"
    assert run_results(report({2: 49}, frequent_sets={"a | b": 49}))["run.identical_rate"].passed, "too few rows"
    varied = report({2: 100}, frequent_sets={"a | b": 10})
    assert failed(run_results(varied, min_identical_rate=0.2)) == ["run.identical_rate"]


def test_the_balance_of_a_run_is_that_of_the_first_labels():
    even = Expected("the stated prior", {name: 0.25 for name in "abcd"})
    one = report({1: 1000}, first_labels={"a": 970, "b": 10, "c": 10, "d": 10})
    assert failed(run_results(one, expected=even)) == ["run.balance"]
    assert run_results(report({1: 1000}, first_labels={name: 250 for name in "abcd"}), expected=even)[
        "run.balance"
    ].passed
    warned = run_results(one, expected=even, on_fail_by_check=[{"check": "run.balance", "on_fail": "warn"}])
    assert warned["run.balance"].on_fail == "warn"


def test_a_row_too_few_over_all_shards_fails_the_run():
    assert failed(run_results(report({1: 10}), n=9)) == ["run.one_row_per_doc"]


def test_a_run_of_no_shards_passes():
    assert failed(run_results()) == []


def test_the_checks_of_all_shards_become_one_each_and_fail_where_one_does():
    sound, broken = (check_annotations(with_status(100, n, "unparsed"), 100, CONFIG, TEACHERS) for n in (0, 9))
    results = {result.name: result for result in sum_up([report({1: 100}, checks) for checks in (sound, broken)])}
    assert failed(results) == ["annotations.unparsed_rate"]
    rate = results["annotations.unparsed_rate"]
    assert (rate.n_unexpected, rate.n) == (9, 200)
    assert rate.observed == "9 % (9 of 100) replies that name no label in the worst of 2 shards, 1 failed"


def test_an_expectation_that_raises_is_an_error_and_no_failed_check():
    broken = Expectation("labels.agreement", "ExpectColumnMeanToBeBetween", {"column": "absent", "max_value": 1})
    with pytest.raises(TerminalError, match=r"check labels\.agreement could not be carried out, which says nothing"):
        judge(pl.DataFrame({"x": [1]}), [broken])


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
from candist_core.edges.judge import Expectation, judge
assert "great_expectations" not in sys.modules, "imported too early"
judge(pl.DataFrame({"x": [1]}), [Expectation("a", "ExpectColumnMaxToBeBetween", {"column": "x"})])
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
