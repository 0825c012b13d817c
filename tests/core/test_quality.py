"""The quality of candidate sets without gold, by fractions worked out by hand."""

import numpy as np
import polars as pl
import pytest

from candist_core.label_model import MIN_AUDIT
from candist_core.quality import QualityCounts, description_overlap
from candist_core.reports import EpochReport
from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tables import ANNOTATIONS, BELIEFS, LABELS

NAMES = "abcd"
SPEC = TaskSpec(labels=[LabelSpec(name=name) for name in NAMES])


def tables(sets, believed=None, scores=None, finals=None):
    """annotations/1, beliefs/1 and labels/1; a text without a belief is named by None."""
    ids = [str(i) for i in range(len(sets))]
    status = ["ok" if names else "abstained" for names in sets]
    rows = zip(ids, map(list, sets), scores or [None] * len(sets), status, ["t"] * len(sets), ids, strict=True)
    annotations = pl.DataFrame(list(rows), schema=ANNOTATIONS.columns, orient="row")
    known = [(i, P) for i, P in zip(ids, believed or [None] * len(sets), strict=True) if P is not None]
    beliefs = pl.DataFrame(known, schema=BELIEFS.columns, orient="row")
    final = finals or [names[0] if names else "a" for names in sets]
    rows = [(i, name, 0.9, list(names), None, "agreed", False, None)
            for i, name, names in zip(ids, final, sets, strict=True)]  # fmt: skip
    return annotations, beliefs, pl.DataFrame(rows, schema=LABELS.columns, orient="row")


def report(sets, believed=None, scores=None, finals=None, reviewed=None, spec=SPEC, epochs=()):
    counts = QualityCounts(spec)
    counts.add(*tables(sets, believed, scores, finals), reviewed or {})
    return counts.report(epochs)


def test_shares_are_over_the_sets_that_are_not_empty():
    quality = report(["a", "ab", "ba", "bcd", ""])
    assert (quality.n_sets, quality.mean_set_size) == (4, 8 / 4)
    assert quality.set_sizes == {1: 1, 2: 2, 3: 1}
    assert (quality.single_share, quality.identical_share) == (1 / 4, 2 / 4)


def test_a_pair_is_named_with_its_lift_over_chance_and_its_overlap():
    quality = report(["ab"] * 10 + ["a"] * 5 + ["c"] * 25)
    (pair,) = quality.confusable
    assert (pair.first, pair.second, pair.n) == ("a", "b", 10)
    # 10 of 40 sets hold both; by chance 15/40 · 10/40 of them.
    assert pair.lift == pytest.approx((10 / 40) / (15 / 40 * 10 / 40))
    assert (pair.overlap, pair.entropy) == (10 / 15, None)


def test_a_pair_that_meets_no_more_often_than_by_chance_is_not_named():
    assert report(["ab"] * 10 + ["a"] * 10 + ["b"] * 10 + ["cd"] * 9).confusable == ()


def test_pairs_carry_the_entropy_of_belief_between_them():
    sure, torn = [1.0, 0.0, 0.0, 0.0], [0.4, 0.4, 0.2, 0.0]
    quality = report(["ab"] * 10 + ["c"] * 20, [sure] * 4 + [torn] * 4 + [None] * 22)
    # Half of the eight sets that students have a belief about are undecided.
    assert quality.confusable[0].entropy == pytest.approx(1 / 2)
    assert quality.in_set_entropy == pytest.approx(1 / 2)
    assert (quality.in_set_rate.value, quality.in_set_rate.n) == (1.0, 8)


def test_votes_agree_by_the_mean_score_of_first_labels_where_there_are_scores():
    quality = report(["ab", "b", "c", ""], scores=[[1.0, 0.25], [0.5], None, None])
    assert quality.vote_agreement == pytest.approx((1.0 + 0.5) / 2)
    assert report(["ab"]).vote_agreement is None


def test_each_label_is_counted_where_it_stands():
    quality = report(["ab", "ba", "c"], [[1, 0, 0, 0]] * 3, finals="aab")
    found = {label.name: (label.n_first, label.n_sets, label.n_final, label.n_believed) for label in quality.labels}
    assert found == {"a": (1, 2, 2, 3), "b": (1, 2, 1, 0), "c": (1, 1, 0, 0), "d": (0, 0, 0, 0)}
    assert [label.in_set_rate for label in quality.labels] == [1.0, 1.0, 0.0, None]


def test_coverage_is_that_of_an_audit_of_enough_texts_and_else_the_student_s():
    believed = [[1.0, 0.0, 0.0, 0.0]] * 40
    said = {str(i): "a" if i < 18 else "d" for i in range(MIN_AUDIT)}
    audited = report(["ab"] * 40, believed, reviewed=said)
    assert audited.is_audited
    assert (audited.coverage.value, audited.coverage.n) == (18 / MIN_AUDIT, MIN_AUDIT)
    said.popitem()
    unaudited = report(["ab"] * 40, believed, reviewed=said)
    assert not unaudited.is_audited
    assert unaudited.coverage == unaudited.estimated_coverage == audited.estimated_coverage


def test_without_belief_and_audit_nothing_is_known_of_coverage():
    quality = report(["a", "b"])
    assert (quality.coverage.n, quality.coverage.low, quality.coverage.high) == (0, 0.0, 1.0)
    assert (quality.estimated_coverage, quality.in_set_rate, quality.lift) == (None, None, None)


def test_no_set_at_all_is_a_report_of_zeros():
    quality = report(["", ""])
    assert (quality.n_sets, quality.mean_set_size, quality.entropy, quality.companions) == (0, 0.0, 1.0, None)


def test_the_training_fit_is_that_of_the_last_epoch():
    epochs = [
        EpochReport(epoch=i, loss=1, in_set_rate=rate, approximate_accuracy=0, kept_rate=1, reliable_rate=0)
        for i, rate in enumerate((0.5, 0.75))
    ]
    assert report(["a"], epochs=epochs).training_fit == 0.75


def test_shards_add_up_to_what_the_whole_is():
    rng = np.random.default_rng(0)
    sets = ["".join(rng.permutation(list(NAMES))[: rng.integers(0, 4)]) for _ in range(300)]
    believed = rng.dirichlet(np.ones(4), 300).tolist()
    annotations, beliefs, labels = tables(sets, believed)
    counts = QualityCounts(SPEC)
    for start in range(0, 300, 110):
        part = slice(start, start + 110)
        counts.add(annotations[part], beliefs, labels[part], {})
    one, other = counts.report(), report(sets, believed)
    assert one.model_dump(exclude={"in_set_entropy", "lift", "confusable", "estimated_coverage", "coverage"}) == (
        other.model_dump(exclude={"in_set_entropy", "lift", "confusable", "estimated_coverage", "coverage"})
    )
    assert (one.in_set_entropy, one.lift) == (pytest.approx(other.in_set_entropy), pytest.approx(other.lift))
    assert one.coverage.value == pytest.approx(other.coverage.value)
    assert [pair.n for pair in one.confusable] == [pair.n for pair in other.confusable]


def test_descriptions_are_alike_by_the_words_that_few_others_use():
    overlap = description_overlap(["the late bill", "the bill is late", "the router", "Late, the BILL!"])
    assert overlap[0, 3] == pytest.approx(1.0)
    # Of 5/1, 5/3, 5/3 and 5/4 the first is the one that they do not share; all by their logarithms.
    shared = 2 * np.log(5 / 3) + np.log(5 / 4)
    assert overlap[0, 1] == pytest.approx(shared / (shared + np.log(5)))
    assert overlap[0, 2] < 0.1
    np.testing.assert_allclose(overlap, overlap.T)


def test_labels_whose_descriptions_overlap_are_named():
    texts = ("a charge is wrong", "a charge that is wrong", "the router is broken", "")
    spec = TaskSpec(labels=[LabelSpec(name=n, description=d) for n, d in zip(NAMES, texts, strict=True)])
    (pair,) = report(["a"], spec=spec).similar_descriptions
    assert (pair.first, pair.second, pair.n) == ("a", "b", 0)
    assert pair.similarity > 0.5
