"""What people's labels show is found by its name, whatever the students believe; sound labels raise nothing."""

import pytest

from candist_core.measured_findings import find_all, find_measured
from candist_core.metrics import wilson
from candist_core.reports import EvaluateReport, GoldDetails, GoldReport, QualityReport, ReliabilityBin


def judged(final=95, teacher=90, covered=97, n=100, said=None):
    """Labels of n texts, so many of a hundred of them right; `said` is their confidence."""
    shares = [wilson(right * n // 100, n) for right in (teacher, final, covered)]
    nothing = {name: () for name in ("coverage_by_label", "teacher_by_label", "recall", "precision", "confusion")}
    bins = () if said is None else (ReliabilityBin(low=0.9, high=1.0, n=n, confidence=said, accuracy=shares[1]),)
    details = GoldDetails(coverage_by_size={}, risk_coverage=(), reliability=bins, calibration_error=0, **nothing)
    return GoldReport(
        teacher_accuracy=shares[0], final_accuracy=shares[1], macro_f1=0.5, coverage=shares[2],
        kept_accuracy=shares[1], lift=None, details=details,
    )  # fmt: skip


def metrics_of(gold=None, audit=None):
    return EvaluateReport(
        n_rows=9, n_labelled=9, n_review=0, mean_set_size=1, set_sizes={}, statuses={}, class_counts={}, agreement=1,
        mean_confidence=0.9, gold=gold, audit=audit,
    )  # fmt: skip


QUALITY = QualityReport(
    n_sets=500, mean_set_size=1.0, set_sizes={1: 500}, single_share=1.0, identical_share=0.0, entropy=1.0,
    confusable=(), coverage=wilson(470, 500), estimated_coverage=wilson(470, 500), in_set_rate=wilson(490, 500),
    is_audited=False, in_set_entropy=0.5, training_fit=0.97,
)  # fmt: skip


def names(metrics):
    return [found.name for found in find_all(QUALITY, (), metrics)]


def test_sound_labels_raise_nothing_with_gold_or_without():
    assert names(None) == names(metrics_of(judged(said=0.96))) == names(metrics_of(audit=judged(said=0.99))) == []


def test_gold_that_two_of_five_labels_miss_is_a_finding_though_students_see_nothing():
    found = find_measured(judged(final=61, teacher=60))
    assert [one.name for one in found] == ["low-accuracy"]
    assert found[0].evidence.startswith("61.0 % (51.2 to 70.0) of 100 final labels")
    assert names(metrics_of(judged(final=61, teacher=60))) == ["low-accuracy"]
    assert names(metrics_of(audit=judged(final=61, teacher=60))) == ["low-accuracy"]


def test_a_handful_of_texts_raises_nothing_by_chance():
    assert find_measured(judged(final=60, teacher=60, n=5, said=0.85)) == ()


def test_coverage_against_gold_comes_before_the_estimate_and_shows_teacher_and_student_wrong_alike():
    found = {one.name: one for one in find_all(QUALITY, (), metrics_of(judged(covered=70)))}
    assert set(found) == {"weak-coverage", "systematic-teacher-bias"}
    assert "70.0 %" in found["weak-coverage"].evidence
    assert "94" not in found["weak-coverage"].evidence
    stopping = find_all(QUALITY, (), metrics_of(judged(covered=40, final=40, teacher=40)))
    assert (stopping[0].name, stopping[0].severity) == ("weak-coverage", "stop")


@pytest.mark.parametrize(("said", "found"), [(0.93, []), (0.94, ["overconfident"])])
def test_confidence_more_than_five_points_above_what_labels_keep_is_a_finding(said, found):
    # 82 of 100 right: 88.3 % at the upper end.
    assert [one.name for one in find_measured(judged(final=82, teacher=82, said=said))] == found


def test_a_student_that_spoils_the_teacher_s_labels_is_a_finding():
    assert [one.name for one in find_measured(judged(final=80, teacher=95))] == ["worse-than-teacher"]
