"""Final labels: posteriors by hand, sources, reasons, what a person said, and the demo as a whole."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import candist_core
from candist_core.candidates import rank_table
from candist_core.errors import ContractError, StudentError
from candist_core.label_model import TEMPERATURE, fit_label_model
from candist_core.labels import final_labels
from candist_core.places import prior_places
from candist_core.reports import LabelModel
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tables import LABELS, check

SPEC = TaskSpec(labels=[LabelSpec(name=name) for name in "abc"])
DEMO = Path(candist_core.__file__).parent / "demo"


def annotated(*candidates: list[str], status: str = "ok") -> pl.DataFrame:
    """annotations/1, as far as final labels read them."""
    n = len(candidates)
    ids = [f"d{i}" for i in range(n)]
    schema = {"doc_id": pl.String, "candidates": pl.List(pl.String), "status": pl.String}
    return pl.DataFrame({"doc_id": ids, "candidates": candidates, "status": [status] * n}, schema=schema)


def prior_model(temperature: float = TEMPERATURE) -> LabelModel:
    """What is assumed of a teacher before it is known."""
    return LabelModel(places=prior_places(3).tolist(), temperature=temperature, trusts_order=True)


def final_row(
    candidates: list[str],
    belief: list[float],
    status: str = "ok",
    temperature: float = TEMPERATURE,
    reviewed: dict[str, str] | None = None,
    min_confidence: float = 0.8,
) -> dict[str, object]:
    sets, P, model = annotated(candidates, status=status), np.array([belief]), prior_model(temperature)
    return final_labels(sets, P, SPEC, model, reviewed, min_confidence).row(0, named=True)


@pytest.mark.parametrize(
    ("candidates", "belief", "label", "confidence"),
    [
        # 0.5·0.95 : 0.3·0.05/2 : 0.2·0.05/2 = 475 : 7.5 : 5
        (["a"], [0.5, 0.3, 0.2], "a", 475 / 487.5),
        # first 3/4 and second 1/4 of 0.92: 0.6·0.23 : 0.3·0.69 : 0.1·0.08/1 = 138 : 207 : 8
        (["b", "a"], [0.6, 0.3, 0.1], "b", 207 / 353),
        # 0.9·0.23 : 0.08·0.69 : 0.02·0.08 = 207 : 55.2 : 1.6
        (["b", "a"], [0.9, 0.08, 0.02], "a", 207 / 263.8),
        # nothing from the teacher
        ([], [0.2, 0.3, 0.5], "c", 0.5),
    ],
)
def test_confidence_is_bayes_rule_at_temperature_one(candidates, belief, label, confidence):
    row = final_row(candidates, belief, temperature=1.0)
    assert row["label"] == label
    assert row["confidence"] == pytest.approx(confidence, rel=1e-5)


def test_temperature_two_takes_the_root_of_the_belief():
    # √0.81·0.95 : √0.16·0.025 : √0.03·0.025
    row = final_row(["a"], [0.81, 0.16, 0.03], temperature=2.0)
    assert row["confidence"] == pytest.approx(0.855 / (0.855 + 0.01 + 0.025 * 0.03**0.5), rel=1e-5)


def test_temperature_leaves_the_belief_alone_where_the_teacher_gave_no_set():
    assert final_row([], [0.2, 0.3, 0.5], status="abstained", temperature=8.0)["confidence"] == pytest.approx(0.5)


def test_a_single_label_is_overruled_by_near_certainty_untempered_and_by_none_tempered():
    belief = [1e-4, 1 - 2e-4, 1e-4]
    assert final_row(["a"], belief, temperature=1.0)["label"] == "b"
    assert final_row(["a"], belief)["label"] == "a"


@pytest.mark.parametrize(
    ("candidates", "belief", "source"),
    [
        (["a"], [0.6, 0.3, 0.1], "agreed"),
        (["a", "b"], [0.45, 0.55, 0.0], "teacher"),
        (["a"], [0.3, 0.6, 0.1], "teacher"),
        (["b", "a"], [0.9, 0.08, 0.02], "student"),
        ([], [0.6, 0.3, 0.1], "student"),
    ],
)
def test_source_says_whose_first_choice_the_label_is(candidates, belief, source):
    assert final_row(candidates, belief, temperature=1.0)["source"] == source


@pytest.mark.parametrize(
    ("candidates", "status", "belief", "reason"),
    [
        ([], "abstained", [0.9, 0.1, 0.0], "teacher gave no answer: abstained"),
        ([], "failed", [0.9, 0.1, 0.0], "teacher gave no answer: failed"),
        # 0.9·0.08 : 0.05·0.69 : 0.05·0.23, and so the largest share is 0.61
        (["b", "c"], "ok", [0.9, 0.05, 0.05], "student prefers a label outside the set"),
        # as likely outside, but sure: 0.05·0.95 against 0.9·0.025 is 0.67, 0.3·0.95 against 0.6·0.025 is 0.95
        (["b"], "ok", [0.9, 0.05, 0.05], "student prefers a label outside the set"),
        (["b"], "ok", [0.6, 0.3, 0.1], None),
        # 0.2·0.69 : 0.7·0.23
        (["a", "b"], "ok", [0.2, 0.7, 0.1], "student and teacher disagree"),
        # 0.4·0.69 : 0.35·0.23 : 0.25·0.08, and so 0.73
        (["a", "b"], "ok", [0.4, 0.35, 0.25], "low confidence"),
        (["a"], "ok", [0.9, 0.05, 0.05], None),
    ],
)
def test_reason_is_the_most_important_one(candidates, status, belief, reason):
    row = final_row(candidates, belief, status, temperature=1.0, min_confidence=0.75)
    assert row["reason"] == reason
    assert row["needs_review"] is (reason is not None)


def test_labels_fulfil_their_contract_and_keep_the_order_of_the_annotations():
    labels = final_labels(annotated(["b"], [], ["c", "a"]), np.full((3, 3), 1 / 3), SPEC, prior_model())
    assert check(labels, LABELS).columns == list(LABELS.columns)
    assert labels["doc_id"].to_list() == ["d0", "d1", "d2"]
    assert labels["teacher_label"].to_list() == ["b", None, "c"]
    assert labels["candidates"].to_list() == [["b"], [], ["c", "a"]]


def test_no_rows_give_no_labels():
    labels = final_labels(annotated(), np.zeros((0, 3)), SPEC, prior_model())
    assert check(labels, LABELS).is_empty()


def test_an_unknown_candidate_counts_as_not_named():
    assert final_row(["zebra", "b"], [0.3, 0.4, 0.3]) == final_row(["b"], [0.3, 0.4, 0.3])


def test_a_belief_of_zero_forbids_no_label():
    assert final_row(["b"], [1.0, 0.0, 0.0], temperature=1000.0)["label"] == "b"


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (1,)])
def test_a_belief_of_another_shape_is_named(shape):
    with pytest.raises(ContractError, match=r"wanted \(1, 3\)"):
        final_labels(annotated(["a"]), np.ones(shape), SPEC, prior_model())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1])
def test_a_belief_that_is_no_probability_is_the_student_s_fault(wrong):
    with pytest.raises(StudentError, match="found 1 of 2 texts with numbers that are no probabilities"):
        final_labels(annotated(["a"], ["b"]), np.array([[0.5, 0.5, 0.0], [0.5, wrong, 0.5]]), SPEC, prior_model())


def test_a_label_that_a_person_gave_stays_and_is_sure():
    row = final_row(["a"], [0.9, 0.1, 0.0], reviewed={"d0": "c"})
    assert (row["label"], row["confidence"], row["source"]) == ("c", 1.0, "reviewed")
    assert (row["needs_review"], row["reason"], row["teacher_label"]) == (False, None, "a")
    assert final_row(["a"], [0.9, 0.1, 0.0], reviewed={"other": "c"})["label"] == "a"


def test_confidence_is_the_calibrated_one():
    calibrated = prior_model(1.0).model_copy(update={"slope": 0.0, "offset": 0.0, "n_audited": 50})
    labels = final_labels(annotated(["a"]), np.array([[0.9, 0.1, 0.0]]), SPEC, calibrated)
    assert labels["confidence"].to_list() == [0.5]
    assert labels["reason"].to_list() == ["low confidence"]


@pytest.mark.parametrize("seed", range(10))
def test_final_labels_do_not_depend_on_the_order_of_rows(seed):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(3, 0.5), 120)
    sets = annotated(*(list(rng.permutation(list("abc"))[: rng.integers(0, 4)]) for _ in range(120)))
    order = rng.permutation(120)
    R = rank_table(sets["candidates"], SPEC.label_names)
    model, same = fit_label_model(R, {True: P}), fit_label_model(R[order], {True: P[order]})
    straight = final_labels(sets, P, SPEC, model)[order.tolist()]
    shuffled = final_labels(sets[order.tolist()], P[order], SPEC, same)
    assert straight.drop("confidence").equals(shuffled.drop("confidence"))
    np.testing.assert_allclose(straight["confidence"], shuffled["confidence"], rtol=1e-5)
    assert (straight["confidence"] > 1 / 3 - 1e-6).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_student_that_knows_better_mends_a_bad_teacher(seed):
    rng = np.random.default_rng(seed)
    n, k = 2000, 3
    truth = rng.integers(0, k, n)
    other = (truth + rng.integers(1, k, n)) % k
    is_swapped = rng.random(n) < 0.4
    first = np.where(is_swapped, other, truth)
    sets = [["abc"[i], "abc"[j]] for i, j in zip(first, np.where(is_swapped, truth, other), strict=True)]
    P = np.full((n, k), 0.0005)
    P[np.arange(n), np.where(rng.random(n) < 0.95, truth, other)] = 0.999
    model = fit_label_model(rank_table(sets, SPEC.label_names), {True: P})
    found = np.array(["abc".index(name) for name in final_labels(annotated(*sets), P, SPEC, model)["label"]])
    assert (first == truth).mean() < 0.65
    assert (found == truth).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["in sample", "out of fold"])
def test_demo_labels_are_no_worse_than_the_teacher_and_review_finds_most_errors(kind):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    rows = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text().splitlines()[:600]]
    replies = [json.loads(line) for line in (DEMO / "replies_ca_add.jsonl").read_text().splitlines()]
    names = [line.split("\t")[0] for line in (DEMO / "labels.tsv").read_text().splitlines()]
    spec = TaskSpec(labels=[LabelSpec(name=name) for name in names])
    sets = {reply["id"]: json.loads(reply["reply"])["candidates"] for reply in replies}
    candidates = [sets[row["id"]] for row in rows]
    first = [chosen[0] for chosen in candidates]
    X = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(row["text"] for row in rows)
    student = LogisticRegression(C=10, max_iter=300)
    columns = [sorted(names).index(name) for name in names]
    if kind == "in sample":
        P = student.fit(X, first).predict_proba(X)[:, columns]
    else:
        P = cross_val_predict(student, X, first, cv=3, method="predict_proba")[:, columns]
    model = fit_label_model(rank_table(candidates, spec.label_names), {True: P})
    labels = final_labels(annotated(*candidates), P, spec, model)
    gold = pl.Series([row["gold"] for row in rows])
    is_wrong = labels["label"] != gold
    assert is_wrong.sum() <= (pl.Series(first) != gold).sum() + 1
    assert labels.filter(is_wrong)["needs_review"].mean() > 0.8
