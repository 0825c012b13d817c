"""A run's labels beside gold, by fractions worked out by hand, and shard by shard as at once."""

import numpy as np
import polars as pl
import pytest

from candist_core.evaluation import EvaluationCounts, evaluate
from candist_core.gold import BINS, MAX_POINTS, GoldCounts
from candist_core.metrics import expected_calibration_error, lift, macro_f1, risk_coverage
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tables import ANNOTATIONS, LABELS

SPEC = TaskSpec(labels=[LabelSpec(name=name) for name in "abcd"])


def labelled(*rows: tuple[str, str, float, bool]) -> pl.DataFrame:
    """labels/1 from (doc_id, label, confidence, needs_review), each with the candidates a and b."""
    filled = [(doc, label, conf, ["a", "b"], "a", "agreed", review, None) for doc, label, conf, review in rows]
    return pl.DataFrame(filled, schema=LABELS.columns, orient="row")


def annotated(*rows: tuple[str, list[str], str]) -> pl.DataFrame:
    filled = [(doc, candidates, None, status, "t", f"key-{doc}") for doc, candidates, status in rows]
    return pl.DataFrame(filled, schema=ANNOTATIONS.columns, orient="row")


LABELLED = labelled(("1", "a", 0.9, False), ("2", "b", 0.8, False), ("3", "c", 0.6, True), ("4", "a", 0.5, True))
ANNOTATED = annotated(
    ("1", ["a"], "ok"), ("2", ["a", "b"], "ok"), ("3", ["d", "b"], "ok"), ("4", [], "abstained"), ("5", [], "failed")
)


def test_evaluate_without_gold_counts_what_there_is():
    report = evaluate(LABELLED, ANNOTATED, None, SPEC)
    assert (report.n_rows, report.n_labelled, report.n_review) == (5, 4, 2)
    assert report.mean_set_size == 5 / 3
    assert report.set_sizes == {0: 2, 1: 1, 2: 2}
    assert report.statuses == {"abstained": 1, "failed": 1, "ok": 3}
    assert report.class_counts == {"a": 2, "b": 1, "c": 1, "d": 0}
    assert report.agreement == 3 / 4
    assert report.mean_confidence == pytest.approx(2.8 / 4)
    assert report.gold is None


def test_evaluate_with_gold_takes_shares_over_rows_whose_gold_is_a_label():
    gold = pl.DataFrame({"doc_id": ["1", "2", "3", "4", "5"], "gold": ["a", "b", "b", None, "eggs"]})
    found = evaluate(LABELLED, ANNOTATED, gold, SPEC).gold
    assert found is not None
    assert (found.final_accuracy.value, found.final_accuracy.n) == (2 / 3, 3)
    assert (found.teacher_accuracy.value, found.teacher_accuracy.n) == (1 / 3, 3)
    assert (found.coverage.value, found.coverage.n) == (3 / 3, 3)
    assert (found.kept_accuracy.value, found.kept_accuracy.n) == (2 / 2, 2)
    # a: 1; b: 2·1/(1 + 2); c: 0; d does not occur
    assert found.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)
    # two extra labels, both right, where a random one is right in 2/3 / 3
    assert found.lift == pytest.approx((2 / 3) / (2 / 3) / ((2 / 3) / 3))


def test_a_text_without_an_answer_counts_against_the_teacher():
    gold = pl.DataFrame({"doc_id": ["1", "4"], "gold": ["a", "a"]})
    found = evaluate(LABELLED, ANNOTATED, gold, SPEC).gold
    assert found is not None
    assert (found.teacher_accuracy.value, found.coverage.value, found.final_accuracy.value) == (1 / 2, 1 / 2, 2 / 2)
    assert found.lift is None


def test_gold_outside_the_label_set_is_named_and_leaves_no_gold_report():
    gold = pl.DataFrame({"doc_id": ["1", "2", "3"], "gold": ["eggs", "ham", "eggs"]})
    report = evaluate(LABELLED, ANNOTATED, gold, SPEC)
    assert report.unknown_gold == {"eggs": 2, "ham": 1}
    assert report.gold is None


def test_a_final_label_outside_the_spec_is_wrong_and_no_crash():
    gold = pl.DataFrame({"doc_id": ["1"], "gold": ["a"]})
    found = evaluate(labelled(("1", "zebra", 0.9, False)), ANNOTATED, gold, SPEC).gold
    assert found is not None
    assert (found.final_accuracy.value, found.macro_f1) == (0.0, 0.0)


def test_evaluate_of_nothing_is_all_zeros():
    report = evaluate(LABELLED.clear(), ANNOTATED.clear(), pl.DataFrame({"doc_id": ["1"], "gold": ["a"]}), SPEC)
    assert (report.n_rows, report.agreement, report.mean_set_size, report.mean_confidence) == (0, 0.0, 0.0, 0.0)
    assert report.gold is None


def planted(n=600, seed=0):
    """Labels, annotations and gold of n rows over a to d, drawn by chance."""
    rng = np.random.default_rng(seed)
    gold, final, first = rng.integers(4, size=(3, n))
    size, sure = rng.integers(0, 4, n), rng.uniform(0.001, 1.0, n).astype(np.float32)
    sets = [["abcd"[(a + i) % 4] for i in range(m)] for a, m in zip(first, size, strict=True)]
    ids = [str(i) for i in range(n)]
    labels = labelled(*zip(ids, ["abcd"[j] for j in final], sure.tolist(), (sure < 0.5).tolist(), strict=True))
    labels = labels.with_columns(candidates=pl.Series(sets, dtype=pl.List(pl.String)))
    answers = annotated(*((i, names, "ok" if names else "abstained") for i, names in zip(ids, sets, strict=True)))
    return labels, answers, pl.DataFrame({"doc_id": ids, "gold": ["abcd"[j] for j in gold]})


def test_shards_add_up_to_what_the_whole_is():
    labels, answers, gold = planted()
    counts = EvaluationCounts(SPEC)
    for start in range(0, 600, 250):
        part = slice(start, start + 250)
        counts.add(labels[part], answers[part], gold[part])
    parts, whole = counts.report(), evaluate(labels, answers, gold, SPEC)
    assert parts.model_dump(exclude={"mean_confidence", "gold"}) == whole.model_dump(
        exclude={"mean_confidence", "gold"}
    )
    assert parts.mean_confidence == pytest.approx(whole.mean_confidence)
    assert parts.gold.details.confusion == whole.gold.details.confusion
    assert parts.gold.lift == pytest.approx(whole.gold.lift)


def test_counts_give_what_the_measures_over_arrays_give():
    labels, answers, gold = planted(seed=1)
    found = evaluate(labels, answers, gold, SPEC).gold
    column = {name: j for j, name in enumerate("abcd")}
    y, final = (np.array([column[name] for name in names]) for names in (gold["gold"], labels["label"]))
    assert found.macro_f1 == pytest.approx(macro_f1(final, y))
    S = np.array([[name in names for name in "abcd"] for names in answers["candidates"]])
    has_set = S.any(axis=1)
    first = np.array([column.get(names[0] if names else "", -1) for names in answers["candidates"].to_list()])
    assert found.lift == pytest.approx(lift(S[has_set], first[has_set], y[has_set]))
    sure = labels["confidence"].to_numpy().astype(float)
    error = expected_calibration_error(sure, final == y, BINS)
    assert found.details.calibration_error == pytest.approx(error)


def test_the_risk_coverage_curve_is_short_ends_with_every_row_and_lies_on_the_exact_one():
    labels, answers, gold = planted(seed=2)
    points = evaluate(labels, answers, gold, SPEC).gold.details.risk_coverage
    assert len(points) <= MAX_POINTS
    assert points[-1].kept == 1.0
    right = (labels["label"] == gold["gold"]).to_numpy()
    exact = risk_coverage(labels["confidence"].to_numpy(), right)
    for point in points:
        row = exact.filter(pl.col("confidence") > point.confidence).row(-1)
        assert (row[1], row[2]) == (pytest.approx(point.kept), pytest.approx(point.risk))


def test_details_by_size_and_label_are_fractions_by_hand():
    gold = pl.DataFrame({"doc_id": ["1", "2", "3", "4"], "gold": ["a", "b", "b", "a"]})
    details = evaluate(LABELLED, ANNOTATED, gold, SPEC).gold.details
    by_size = {size: (share.value, share.n) for size, share in details.coverage_by_size.items()}
    assert by_size == {0: (0.0, 1), 1: (1.0, 1), 2: (1.0, 2)}
    named = {
        kind: [(share.name, share.share.value, share.share.n) for share in getattr(details, kind)[:2]]
        for kind in ("coverage_by_label", "teacher_by_label", "recall", "precision")
    }
    assert named == {
        "coverage_by_label": [("a", 1 / 2, 2), ("b", 1.0, 2)],
        "teacher_by_label": [("a", 1 / 2, 2), ("b", 0.0, 2)],
        "recall": [("a", 1.0, 2), ("b", 1 / 2, 2)],
        "precision": [("a", 1.0, 2), ("b", 1.0, 1)],
    }
    assert [(c.gold, c.label, c.n) for c in details.confusion] == [("a", "a", 2), ("b", "b", 1), ("b", "c", 1)]
    bins = {(b.low, b.high): (b.n, b.accuracy.value) for b in details.reliability}
    # Each bin holds its upper bound, which float32 hits by less than a millionth.
    assert bins == {(0.4, 0.5): (1, 1.0), (0.5, 0.6): (1, 0.0), (0.7, 0.8): (1, 1.0), (0.8, 0.9): (1, 1.0)}


def test_no_row_with_gold_is_no_report():
    assert GoldCounts(("a", "b")).report() is None
