"""Quality and findings of whole runs: the sample corpus raises nothing, planted teachers raise what was planted."""

import json

import polars as pl
import pytest

from candist_core import (
    annotate_shard,
    assess_quality,
    distill_student,
    evaluate_labels,
    ingest_corpus,
    plan_annotation,
    predict_shard,
)
from candist_core.edges.store import open_store
from tests.flows.corpora import demo_config, demo_labels, demo_replies, demo_rows, write_jsonl

NAMES = [label["name"] for label in demo_labels()]


def replies(change, n):
    """The recorded replies with each set changed: its row, and its labels."""
    rows = demo_replies(n)
    sets = [json.loads(row["reply"])["candidates"] for row in rows]
    return [
        row | {"reply": json.dumps({"candidates": change(i, names)})}
        for i, (row, names) in enumerate(zip(rows, sets, strict=True))
    ]


def assessed(folder, n, change=None, **changes):
    config = demo_config(folder, n=n, **changes)
    if change:
        write_jsonl(folder / "replies.jsonl", replies(change, n))
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    student = distill_student(config, corpus.texts, annotated)
    shards = zip(corpus.texts, annotated, strict=True)
    predicted = [predict_shard(config, *pair, student.of_shards([pair[0]])) for pair in shards]
    quality = assess_quality(config, corpus.texts, annotated, student, predicted)
    return quality, evaluate_labels(config, corpus, annotated, predicted, student)


def severities(quality):
    return {found.name: found.severity for found in quality.findings}


@pytest.mark.slow
def test_the_sample_corpus_raises_nothing(tmp_path):
    quality, metrics = assessed(tmp_path, n=1200)
    assert quality.findings == ()
    assert quality.n_sets == 1200
    # The recorded teacher's sets hold the truth in 99 % of the texts, and the student knows it to a few points.
    assert quality.coverage.low < metrics.gold.coverage.value
    assert not quality.is_audited
    assert quality.lift > 3


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 200])
def test_a_small_clean_corpus_stops_nothing(tmp_path, n):
    quality, _ = assessed(tmp_path, n=n)
    assert "stop" not in severities(quality).values()


@pytest.mark.slow
def test_a_teacher_that_gives_one_set_to_most_texts_stops_the_run(tmp_path):
    quality, _ = assessed(tmp_path, 300, lambda i, names: names if i % 5 == 0 else ["outage", "slow_speed"])
    assert severities(quality)["identical-sets"] == "stop"


@pytest.mark.slow
def test_a_teacher_that_always_adds_the_same_partner_is_seen(tmp_path):
    quality, _ = assessed(tmp_path, 300, lambda i, names: [names[0], NAMES[NAMES.index(names[0]) ^ 1]])
    assert severities(quality)["correlated-sets"] == "warn"


@pytest.mark.slow
def test_a_teacher_that_adds_a_label_by_chance_is_seen(tmp_path):
    def by_chance(i, names):
        return [names[0], NAMES[(NAMES.index(names[0]) + 1 + 7 * i % 11) % 12]]

    quality, _ = assessed(tmp_path, 400, by_chance)
    assert severities(quality)["uninformative-sets"] == "warn"
    assert quality.lift == pytest.approx(1.0, abs=0.4)


@pytest.mark.slow
def test_an_audit_measures_the_labels_that_its_texts_would_have_without_it(tmp_path):
    rows = demo_rows(120)
    said = [(row["text"], row["gold"], "random" if i < 60 else "doubtful") for i, row in enumerate(rows[:80])]
    pl.DataFrame(said, schema=["text", "label", "why"], orient="row").write_csv(tmp_path / "audit.csv")
    # A sixth of the texts are taken for something else by the teacher.
    quality, metrics = assessed(
        tmp_path, 120, lambda i, names: ["roaming"] if i % 6 == 0 else names, audit={"uri": f"{tmp_path}/audit.csv"}
    )
    # Texts chosen for doubt measure nothing.
    right = [i % 6 != 0 or row["gold"] == "roaming" for i, row in enumerate(rows[:60])]
    assert quality.is_audited
    assert quality.coverage.n == metrics.audit.final_accuracy.n == 60
    assert quality.coverage.value <= sum(right) / 60
    assert metrics.audit.teacher_accuracy.value < metrics.gold.final_accuracy.value
    assert metrics.audit.final_accuracy.value < 1.0
    assert metrics.audit.details.coverage_by_label


@pytest.mark.slow
def test_a_text_in_many_rows_of_many_shards_counts_once_for_each(tmp_path):
    rows = demo_rows(40)
    config = demo_config(tmp_path, n=40, source={"shard_rows": 15})
    copies = [row | {"id": f"copy {i}", "gold": "outage"} for i, row in enumerate(rows[:25])]
    write_jsonl(tmp_path / "corpus.jsonl", [*rows[:30], *copies, *rows[30:]])
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    assert (corpus.n_examples, corpus.n_texts) == (65, 40)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    student = distill_student(config, corpus.texts, annotated)
    shards = zip(corpus.texts, annotated, strict=True)
    predicted = [predict_shard(config, *pair, student) for pair in shards]
    metrics = evaluate_labels(config, corpus, annotated, predicted)
    store = open_store(config.store)
    labels = pl.concat(store.read_table(report.labels) for report in predicted)
    label = dict(labels.select("doc_id", "label").iter_rows())
    pairs = [(row["gold"], row["id"]) for row in rows] + [("outage", row["id"]) for row in rows[:25]]
    right = sum(gold == label[doc_id] for gold, doc_id in pairs)
    assert (metrics.n_rows, metrics.n_labelled, metrics.gold.final_accuracy.n) == (65, 65, 65)
    assert metrics.gold.final_accuracy.value == pytest.approx(right / 65)
