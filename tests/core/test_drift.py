"""Drift without gold: what each measure counts, and that like beside like raises no alarm."""

import numpy as np
import polars as pl
import pytest

from candist_core.drift import DriftReport, TextCounts, auc_by_chance, count_texts, drift_checks, two_sample_auc
from candist_core.incremental_config import IncrementalConfig

LABELS = ("a", "b")
OLD = TextCounts(n=1000, n_answered=1000, n_out_of_set=20, n_unsure=100, n_disagreeing=50, labels={"a": 500, "b": 500})


def judged(**changes):
    """The checks of 200 new texts like the old ones but for these changes, by name without its head."""
    new = {"n": 200, "n_answered": 200, "n_out_of_set": 4, "n_unsure": 20, "n_disagreeing": 10} | {
        name: value for name, value in changes.items() if name not in ("auc", "config")
    }
    new.setdefault("labels", {"a": 100, "b": 100})
    report = DriftReport(new=TextCounts(**new), old=OLD, auc=changes.get("auc", 0.5), n_embedded=200, m_embedded=1000)
    checks = drift_checks(report, changes.get("config", IncrementalConfig()), LABELS)
    return {check.name.removeprefix("drift."): check for check in checks}


def test_texts_like_the_old_ones_pass_every_measure():
    checks = judged()
    assert list(checks) == ["out_of_set_rate", "low_confidence_rate", "disagreement", "balance", "embedding"]
    assert all(check.passed for check in checks.values())
    assert all(check.value == pytest.approx(0.0, abs=0.51) for check in checks.values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        # 2 % before: 24 of 200 are 12 %, a rise of exactly 10 points, and 26 are 11 points more.
        ("out_of_set_rate", {"n_out_of_set": 26}),
        ("low_confidence_rate", {"n_unsure": 52}),
        ("disagreement", {"n_disagreeing": 42}),
        ("balance", {"labels": {"a": 30, "b": 170}}),
        ("embedding", {"auc": 0.81}),
    ],
)
def test_each_threshold_is_passed_by_its_own_measure_alone(name, change):
    failed = [found for found, check in judged(**change).items() if not check.passed]
    assert failed == [name]


def test_rates_are_of_texts_that_the_teacher_answered_and_nothing_is_said_of_none():
    checks = judged(n_answered=0, n_out_of_set=0, n_disagreeing=0)
    assert list(checks) == ["low_confidence_rate", "balance", "embedding"]
    few = judged(n_answered=10, n_out_of_set=3)["out_of_set_rate"]
    assert few.value == pytest.approx(3 / 10 - 20 / 1000)
    # Three of ten is what chance brings: the bound widens to 3.09 standard errors of a pooled 23 / 1010.
    pooled = 23 / 1010
    assert few.at_most == pytest.approx(3.0902 * (pooled * (1 - pooled) * (1 / 10 + 1 / 1000)) ** 0.5, abs=1e-4)


def test_the_bound_of_few_texts_is_what_chance_makes_of_them():
    tight = IncrementalConfig(max_embedding_auc=0.5, max_psi=0.0001, max_out_of_set_rise=0.0)
    assert all(check.passed for check in judged(config=tight).values())
    assert judged(config=tight)["embedding"].at_most == pytest.approx(auc_by_chance(200, 1000))


@pytest.mark.parametrize(("on_drift", "effect"), [("warn", "warn"), ("redistill", "warn"), ("fail", "fail")])
def test_only_a_run_that_is_to_stop_is_stopped_by_these_checks(on_drift, effect):
    checks = judged(config=IncrementalConfig(on_drift=on_drift))
    assert {check.on_fail for check in checks.values()} == {effect}


def test_counts_add_up_over_shards_and_leave_out_what_people_decided_and_texts_seen_before():
    rows = pl.DataFrame(
        {
            "hash": [1, 2, 3, 3, 4],
            "label": ["a", "b", "b", "b", "a"],
            "confidence": [0.9, 0.79, 0.95, 0.95, 1.0],
            "candidates": [["a"], ["a", "b"], [], [], ["b"]],
            "teacher_label": ["a", "a", None, None, "b"],
            "source": ["agreed", "student", "student", "student", "reviewed"],
        }
    )
    whole = count_texts(rows.lazy())
    assert whole == TextCounts(n=3, n_answered=2, n_out_of_set=0, n_unsure=1, n_disagreeing=1, labels={"a": 1, "b": 2})
    one, other = count_texts(rows[:2].lazy()), count_texts(rows[2:].lazy())
    assert one + other == whole


@pytest.mark.slow
def test_like_samples_stay_below_what_chance_makes_and_shifted_ones_do_not():
    rng = np.random.default_rng(3)
    areas = []
    for seed in range(20):
        X, Y = rng.normal(size=(100, 20)), rng.normal(size=(300, 20))
        areas.append(two_sample_auc(X, Y, seed))
        assert two_sample_auc(X + 0.5, Y, seed) > 0.9
    assert max(areas) < auc_by_chance(100, 300)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.03)
