"""The gate where a person may let a failed check through."""

import pytest

from candist_core.errors import GateError, RefusedError
from candist_core.reports import CheckResult
from flows.gate import Gate
from flows.progress import pace
from flows.shown import size_plot


def check(name="run.unparsed_rate", *, passed=False, on_fail="fail"):
    return CheckResult(name=name, passed=passed, observed="9 %", wanted="at most 5 %", on_fail=on_fail)


def refuse(what, question):
    raise RefusedError(what, "mend it")


def test_a_no_is_the_gate_s_own_error_with_every_failed_check():
    with pytest.raises(GateError, match=r"a: observed 9 %.*; b: observed 9 %") as caught:
        Gate(refuse).pass_or_stop("labels", [check("a"), check("b"), check("c", passed=True)])
    assert isinstance(caught.value.__cause__, RefusedError)


def test_a_check_let_through_is_not_asked_about_again_and_another_is():
    asked = []

    def ask(what, question):
        asked.append(question)
        return ""

    gate = Gate(ask)
    for _ in range(3):
        (seen,) = gate.pass_or_stop("annotations", [check("a")])
        assert (seen.on_fail, seen.passed, seen.observed) == ("warn", False, "9 %, let through by a person")
    gate.pass_or_stop("annotations", [check("a"), check("b")])
    assert [question.count("observed") for question in asked] == [1, 1]


def test_nobody_is_asked_about_what_passes_or_only_warns():
    checks = [check("a", passed=True), check("b", on_fail="warn"), check("c", on_fail="quarantine")]
    assert Gate(refuse).pass_or_stop("labels", checks) == checks


def test_without_a_person_a_failed_check_ends_the_run():
    with pytest.raises(GateError, match="nothing is published"):
        Gate().pass_or_stop("labels", [check()])


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0, 0, 0, 0.0, 0.0), "annotate: 0 texts"),
        ((60, 100, 0, 5.0, 0.0), "annotate: 60 of 100 texts"),
        ((100, 100, 50, 100.0, 1.5), "annotate: 100 of 100 texts, 0.5 texts/s, $1.5000"),
        ((10, 36_010, 10, 1.0, 0.0), "annotate: 10 of 36,010 texts, 10 texts/s, about 60 min left"),
    ],
)
def test_pace_says_only_what_is_known(numbers, said):
    assert pace("annotate", "texts", *numbers) == said


def test_the_plot_of_an_empty_version_is_an_empty_picture():
    assert size_plot({}).startswith("<svg ")
    assert size_plot({}).count("<rect") == 1
