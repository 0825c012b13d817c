"""Which texts are chosen for review, and what the answers say of a version."""

from collections import Counter

import polars as pl
import pytest

from candist_core.review import Why, choose_texts, estimate_version, settle
from tests.versions import frame_of, label_row

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "larch"]


def text_of(i):
    """Texts of which no two are alike."""
    return " ".join(f"{WORDS[(i * (j + 1) + j) % 12]}{i * 7 + j * 13}" for j in range(5))


def corpus(n, label_of, confidence_of, **more):
    rows = (label_row(f"d{i:03d}", text_of(i), label_of(i), confidence_of(i), "other", **more) for i in range(n))
    return frame_of(rows)


def test_the_most_doubtful_are_chosen_and_reviewed_ones_never():
    frame = corpus(40, lambda i: "a", lambda i: i / 40)
    frame = frame.with_columns(source=pl.when(pl.col("doc_id") == "d000").then(pl.lit("reviewed")).otherwise("source"))
    chosen = choose_texts(frame, budget=5, random_share=0.0)
    assert chosen["doc_id"].to_list() == [f"d{i:03d}" for i in range(1, 6)]
    assert set(chosen["why"]) == {"doubtful"}


def test_every_class_has_its_turn_though_one_holds_all_the_doubt():
    frame = corpus(60, lambda i: "abc"[min(i // 30, 1) + (i >= 55)], lambda i: i / 60)
    chosen = choose_texts(frame, budget=12, random_share=0.0).join(frame, on="doc_id")
    # Two of each label in turn; the other six are the most doubtful of all, which are of label a.
    assert Counter(chosen["label"]) == {"a": 8, "b": 2, "c": 2}


def test_with_more_labels_than_places_those_most_in_doubt_come_first():
    frame = corpus(26, lambda i: chr(97 + i), lambda i: i / 26)
    assert choose_texts(frame, budget=4, random_share=0.0)["candidates"].list.first().to_list() == list("abcd")


def test_a_near_duplicate_comes_only_when_nothing_else_is_left():
    texts = ["My bill is wrong this month", "my bill is WRONG this month!", "No signal since the storm last night"]
    frame = frame_of(label_row(str(i), text, "a", 0.1 * (i + 1)) for i, text in enumerate(texts))
    assert choose_texts(frame, budget=2, random_share=0.0)["doc_id"].to_list() == ["0", "2"]
    assert choose_texts(frame, budget=3, random_share=0.0)["doc_id"].to_list() == ["0", "1", "2"]


def test_random_texts_come_from_the_whole_version_reviewed_ones_among_them():
    frame = corpus(200, lambda i: "a", lambda i: 0.5, source="reviewed")
    chosen = choose_texts(frame, budget=50, random_share=0.4)
    assert Counter(chosen["why"]) == {"random": 20}


def test_random_texts_are_as_often_sure_as_the_corpus_is():
    frame = corpus(1_000, lambda i: "a", lambda i: 0.2 if i % 4 == 0 else 0.95)
    drawn = pl.concat(choose_texts(frame, 100, 1.0, seed).join(frame, on="doc_id") for seed in range(20))
    share = (drawn["confidence"] < 0.5).mean()
    # A quarter; the standard error over 2,000 draws is one hundredth.
    assert share == pytest.approx(0.25, abs=0.04)


def test_whoever_stops_early_has_seen_both_kinds_in_proportion():
    frame = corpus(300, lambda i: "a", lambda i: i / 300)
    chosen = choose_texts(frame, budget=100, random_share=0.3)
    for n in (10, 20, 50):
        assert abs((chosen["why"][:n] == Why.RANDOM).sum() - 0.3 * n) <= 1
    doubtful = chosen.filter(pl.col("why") == Why.DOUBTFUL).join(frame, on="doc_id", maintain_order="left")
    assert doubtful["confidence"].is_sorted()


def test_the_order_of_candidates_is_the_teachers_where_it_is_no_estimate():
    row = label_row("1", "hello", "c", 0.5, candidates=["z", "b"])
    assert choose_texts(frame_of([row]), 1, 0.0)["candidates"].to_list() == [["z", "b", "c"]]
    # A random one shows nothing of what was found.
    for labels, shown in ((("z", "a", "c", "b"), [["z", "a", "c", "b"]]), ("abcdefghij", [[]])):
        assert choose_texts(frame_of([row]), 1, 1.0, labels=labels)["candidates"].to_list() == shown


def test_equal_versions_give_equal_choices_in_any_order_of_rows_and_a_text_once():
    frame = corpus(50, lambda i: "ab"[i % 2], lambda i: 0.5)
    chosen = choose_texts(frame, 10, 0.0)
    assert choose_texts(frame.reverse(), 10, 0.0).equals(chosen)
    twice = pl.concat([frame, frame.with_columns(pl.col("doc_id") + "x")])
    assert choose_texts(twice, 100, 0.3)["text"].is_unique().all()


def test_a_version_smaller_than_the_budget_is_reviewed_whole():
    assert choose_texts(corpus(4, lambda i: "a", lambda i: 0.5), 100).height == 4


@pytest.mark.slow
def test_a_thousand_of_ten_thousand_are_chosen_in_a_few_seconds():
    frame = corpus(10_000, lambda i: f"l{i % 50}", lambda i: (i * 37 % 1000) / 1000)
    assert choose_texts(frame, 1_000).height == 1_000


# estimates


def answered(rows):
    names = ("answer", "why", "label", "teacher_label", "candidates", "confidence")
    return pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows])


def test_only_random_texts_estimate():
    right, wrong = ("a", "random", "a", "b", ["b", "a"], 0.95), ("a", "random", "b", "b", ["b"], 0.9)
    doubtful = ("a", "doubtful", "b", "b", ["b"], 0.3)
    found = estimate_version(answered([right, right, right, wrong, *[doubtful] * 9]))
    assert (found.final_accuracy.value, found.final_accuracy.n) == (3 / 4, 4)
    assert found.teacher_accuracy.value == 0
    assert found.coverage.value == 3 / 4
    assert [(one.high, one.accuracy.n, one.accuracy.value) for one in found.reliability] == [
        (0.9, 1, 0.0),
        (1.0, 3, 1.0),
    ]
    assert estimate_version(answered([doubtful])) is None


def test_a_teacher_that_gave_no_answer_is_wrong():
    found = estimate_version(answered([("a", "random", "a", None, [], 0.5), ("a", "random", "a", "a", ["a"], 0.5)]))
    assert found.teacher_accuracy.value == 1 / 2


def test_bins_are_closed_above_also_where_floats_are_not_exact():
    rows = answered([("a", "random", "a", "a", ["a"], sure) for sure in (0.6, 0.7, 0.70001, 1.0, 0.0)])
    found = estimate_version(rows.cast({"confidence": pl.Float32}))
    bins = [(round(one.low, 1), one.n) for one in found.reliability]
    assert bins == [(0.0, 1), (0.5, 1), (0.6, 1), (0.7, 1), (0.9, 1)]


@pytest.mark.parametrize(
    ("votes", "label"), [([], None), (["a"], "a"), (["a", "b"], None), (["a", "b", "a"], "a"), (list("aabb"), None)]
)
def test_more_than_half_of_the_votes_settle_a_label(votes, label):
    assert settle(votes) == label
