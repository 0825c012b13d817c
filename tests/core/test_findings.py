"""Each failure is planted and found by its name; clean corpora raise nothing.

A planted corpus has six labels. The teacher is right nine times of ten and adds the truth, or a likely wrong label,
where it is unsure; the student is right nine times of ten by itself.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from candist_core.checks_config import ChecksConfig
from candist_core.findings import as_checks, find_failures
from candist_core.quality import QualityCounts
from candist_core.reports import EpochReport
from candist_core.spec import LabelSpec, TaskSpec
from tests.core.test_quality import tables

K = 6
NAMES = "abcdef"


@dataclass(frozen=True)
class Case:
    """truth (n,), first and second labels (n,), -1 for no second one, belief (n, k)."""

    truth: np.ndarray
    first: np.ndarray
    second: np.ndarray
    P: np.ndarray
    final: np.ndarray | None = None
    audit: int = 0
    accuracies: tuple[float, ...] = (0.7, 0.9, 0.95, 0.952)
    fit: float = 0.97


def drawn(rng, y, right, likely=3):
    """The truth by chance, else one of the next few labels."""
    return np.where(rng.random(len(y)) < right, y, (y + rng.integers(1, likely + 1, len(y))) % K)


def clean(n=1500, seed=0) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.integers(K, size=n)
    first = drawn(rng, truth, 0.9)
    unsure = (first != truth) | (rng.random(n) < 0.15)
    second = np.where(first != truth, drawn(rng, truth, 0.8), drawn(rng, truth, 0.0))
    return Case(truth, first, np.where(unsure & (second != first), second, -1), belief(rng, truth))


def belief(rng, truth, right=0.92):
    """Seven tenths on the student's choice, most of the rest on the labels that come next."""
    choice, P = drawn(rng, truth, right), np.full((len(truth), K), 0.01)
    rows = np.arange(len(truth))
    for step, mass in ((0, 0.7), (1, 0.12), (2, 0.09), (3, 0.07)):
        P[rows, (choice + step) % K] = mass
    return P / P.sum(axis=1, keepdims=True)


def found(case: Case, names: str = NAMES, n_audited: int = 0):
    """The findings of a case, by name."""
    sets = [names[a] + (names[b] if b >= 0 else "") for a, b in zip(case.first, case.second, strict=True)]
    final = case.first if case.final is None else case.final
    counts = QualityCounts(TaskSpec(labels=[LabelSpec(name=name) for name in names]))
    reviewed = {str(i): names[case.truth[i]] for i in range(n_audited)}
    P = case.P if case.P.shape[1] == len(names) else np.pad(case.P, ((0, 0), (0, len(names) - K)))
    counts.add(*tables(sets, P.tolist(), finals=[names[j] for j in final]), reviewed)
    epochs = tuple(
        EpochReport(epoch=i, loss=1, in_set_rate=case.fit, approximate_accuracy=a, kept_rate=1, reliable_rate=0)
        for i, a in enumerate(case.accuracies)
    )
    return {each.name: each for each in find_failures(counts.report(epochs), epochs)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1500, 400])
def test_a_clean_corpus_raises_nothing(n, seed):
    assert found(clean(n, seed), n_audited=100) == {}


@pytest.mark.parametrize("n", [1, 10, 60, 150])
def test_a_small_clean_corpus_stops_nothing(n):
    assert [each for each in found(clean(n)).values() if each.severity == "stop"] == []


@pytest.mark.parametrize(("share", "severity"), [(0.3, "warn"), (0.9, "stop")])
def test_one_set_for_many_texts_is_identical_sets(share, severity):
    case = clean()
    same = np.random.default_rng(1).random(1500) < share
    planted = replace(case, first=np.where(same, 0, case.first), second=np.where(same, 1, case.second))
    finding = found(planted)["identical-sets"]
    assert finding.severity == severity
    observed = float(
        ((planted.first == 0) & (planted.second == 1) | (planted.first == 1) & (planted.second == 0)).mean()
    )
    assert f"{100 * observed:.0f} % of 1,500 sets" in finding.evidence


def test_a_partner_that_never_changes_is_correlated_sets():
    case = clean()
    assert "1.0 different labels" in found(replace(case, second=case.first ^ 1))["correlated-sets"].evidence


def test_second_labels_drawn_by_chance_are_uninformative_sets():
    case, rng = clean(), np.random.default_rng(1)
    planted = replace(case, second=(case.first + rng.integers(1, K, 1500)) % K)
    finding = found(planted)["uninformative-sets"]
    # Students that are mostly right where the teacher is leave a little more for the labels that come next.
    assert float(finding.evidence.split(" times")[0].split()[-1]) == pytest.approx(1.0, abs=0.15)


def test_a_student_that_fits_little_or_still_rises_is_too_small():
    case = clean()
    assert "in 50 % of the sets" in found(replace(case, fit=0.5))["student-too-small"].evidence
    steep = found(replace(case, accuracies=(0.6, 0.8)))["student-too-small"]
    assert "rose by 20.0 points in the last of 2 epochs" in steep.evidence
    assert "larger" not in steep.remedy
    assert "student-too-small" not in found(replace(case, accuracies=(0.6,)))


def test_two_labels_that_no_text_tells_apart_are_not_separated():
    case, rng = clean(), np.random.default_rng(1)
    is_twin = case.truth < 2
    toss = rng.integers(0, 2, 1500)
    P = case.P.copy()
    P[is_twin] = [0.46, 0.46, 0.02, 0.02, 0.02, 0.02]
    planted = replace(
        case, first=np.where(is_twin, toss, case.first), second=np.where(is_twin, 1 - toss, -1), P=P
    )  # fmt: skip
    finding = found(planted)["refinery-does-not-separate"]
    assert "'a' and 'b'" in finding.evidence
    assert "refinery-does-not-separate" not in found(replace(planted, fit=0.5))


def test_sets_that_miss_the_truth_with_a_student_that_agrees_are_systematic_bias():
    case, rng = clean(), np.random.default_rng(1)
    # Labels d, e and f are taken for a, b and c, by the teacher and by whoever learns from it.
    seen = case.truth % 3
    planted = replace(case, first=seen, second=np.full(1500, -1), P=belief(rng, seen))
    names = found(planted, n_audited=100)
    assert "systematic-teacher-bias" in names
    assert names["weak-coverage"].severity == "stop"
    # Nothing but the audit shows it, save that labels are gone.
    assert set(found(planted)) == {"missing-class"}


def test_labels_that_vanish_from_the_final_ones_are_class_collapse():
    case = clean()
    gone = found(replace(case, final=np.where(case.first > 3, 0, case.first)))["class-collapse"]
    assert (gone.severity, gone.evidence.endswith("'e', 'f'")) == ("warn", True)
    all_gone = found(replace(case, final=np.zeros(1500, int)))["class-collapse"]
    assert (all_gone.severity, "'a' holds 100 %" in all_gone.evidence) == ("stop", True)


def test_a_corpus_that_is_of_one_class_indeed_has_not_collapsed():
    case = clean()
    mostly = np.where(np.arange(1500) % 20 == 0, case.truth, 0)
    rng = np.random.default_rng(1)
    planted = Case(mostly, drawn(rng, mostly, 0.98), np.full(1500, -1), belief(rng, mostly))
    assert "class-collapse" not in found(planted)


def test_a_label_in_no_set_is_a_missing_class():
    assert "'g'" in found(clean(), names="abcdefg")["missing-class"].evidence
    # Of 60 texts some of seven labels may be absent by chance.
    assert "missing-class" not in found(clean(60), names="abcdefg")


def test_answers_mixed_up_are_weak_coverage():
    case, rng = clean(), np.random.default_rng(1)
    rows = np.flatnonzero(rng.random(1500) < 0.5)
    dealt = rng.permutation(rows)
    first, second = case.first.copy(), case.second.copy()
    first[rows], second[rows] = case.first[dealt], case.second[dealt]
    planted = replace(case, first=first, second=second)
    names = found(planted)
    assert names["weak-coverage"].severity == "warn"
    assert "candist audit" in names["weak-coverage"].remedy
    # Such answers fit no student, so that a low fit says nothing of its size.
    assert "student-too-small" not in found(replace(planted, fit=0.7))


@pytest.mark.parametrize(("share", "names"), [(0.3, []), (0.7, ["identical-sets"])])
def test_the_one_set_that_two_labels_can_make_is_told_of_late_and_stops_nothing(share, names):
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=1000)
    P = np.where(np.arange(2) == truth[:, None], 0.95, 0.05)
    case = Case(truth, truth, np.where(rng.random(1000) < share, 1 - truth, -1), P)
    findings = found(case, names="ab")
    assert list(findings) == names
    assert all(finding.severity == "warn" for finding in findings.values())


@pytest.mark.parametrize(
    ("settings", "effect"),
    [
        ({"on_fail": "fail"}, "fail"),
        ({"on_fail": "warn"}, "warn"),
        # No rows could be set aside.
        ({"on_fail": "quarantine"}, "fail"),
        ({"on_fail_by_check": [{"check": "quality.identical-sets", "on_fail": "warn"}]}, "warn"),
    ],
)
def test_only_what_stops_becomes_a_failed_check(settings, effect):
    case = clean()
    planted = replace(case, first=np.zeros(1500, int), second=np.ones(1500, int))
    findings = found(planted)
    checks = as_checks(findings.values(), ChecksConfig(**settings))
    assert {check.name for check in checks} == {f"quality.{f.name}" for f in findings.values() if f.severity == "stop"}
    assert all(not check.passed and check.on_fail == effect for check in checks)
    assert "quality.identical-sets: observed 100 %" in str(checks[0])
