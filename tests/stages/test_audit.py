"""An audit from its file to the published labels, and what is said of one that does not fit."""

import csv

import numpy as np
import polars as pl
import pytest

from candist_core import annotate_shard, distill_student, ingest_corpus, plan_annotation, predict_shard
from candist_core.config import AuditConfig, Location
from candist_core.edges.labelled_source import Verdict, read_audit
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError
from candist_core.stages.distill import find_student, read_lesson
from candist_core.stages.publish import draw_audit, export_labels
from candist_core.tables import BELIEFS
from tests.flows.corpora import demo_config, demo_rows
from tests.student.conftest import tiny_bert as tiny_bert

N = 80


def audit_file(folder, rows):
    path = folder / "audit.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *rows])
    return str(path)


def annotated_run(folder, student, rows=(), n=N, **changes):
    audit = {"audit": {"uri": audit_file(folder, rows)}} if rows else {}
    settings = {"model": str(student), "epochs": 1, "max_tokens": 32, **changes}
    config = demo_config(folder, n=n, student=settings, **audit)
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    return config, corpus, [annotate_shard(plan, shard) for shard in corpus.texts]


def labels_of(config, corpus, annotated):
    student = distill_student(config, corpus.texts, annotated)
    store = open_store(config.store)
    shards = zip(corpus.texts, annotated, strict=True)
    tables = [predict_shard(config, *pair, student.of_shards([pair[0]])).labels for pair in shards]
    return student, pl.concat(store.read_table(table) for table in tables)


@pytest.mark.slow
def test_audited_labels_stay_calibrate_the_rest_and_are_none_of_the_student_s_lessons(tmp_path, tiny_bert):
    said = [(f"  {row['text']} ", "roaming") for row in demo_rows(N)[:40]]
    config, corpus, annotated = annotated_run(tmp_path, tiny_bert, said)
    student, labels = labels_of(config, corpus, annotated)
    reviewed = labels.filter(pl.col("source") == "reviewed")
    assert reviewed["doc_id"].to_list() == [row["id"] for row in demo_rows(40)]
    assert set(reviewed["label"]) == {"roaming"}
    assert not reviewed["needs_review"].any()
    # Nearly all 40 say that the teacher is wrong, and so little trust is left in the other 40.
    assert student.label_model.n_audited == 40
    assert labels.filter(pl.col("source") != "reviewed")["confidence"].max() < 0.6
    lesson = read_lesson(open_store(config.store), config, corpus.texts, annotated)
    assert lesson.R[:40, config.task.label_names.index("roaming")].max() <= 0
    np.testing.assert_array_equal(lesson.audited.rows, np.arange(40))


@pytest.mark.slow
def test_texts_reviewed_because_they_are_doubtful_keep_their_labels_and_calibrate_nothing(tmp_path, tiny_bert):
    said = [(row["text"], "roaming") for row in demo_rows(N)]
    config, corpus, annotated = annotated_run(tmp_path, tiny_bert, said, kind="frozen")
    rows = [[*row, "random" if i < 31 else "doubtful"] for i, row in enumerate(said[:60])]
    with (tmp_path / "audit.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label", "why"], *rows])
    lesson = read_lesson(open_store(config.store), config, corpus.texts, annotated)
    np.testing.assert_array_equal(lesson.audited.rows, np.arange(31))
    assert lesson.reviewed.height == 60
    student, labels = labels_of(config, corpus, annotated)
    assert student.label_model.n_audited == 31
    assert (labels["source"] == "reviewed").sum() == 60


@pytest.mark.slow
def test_a_student_is_found_again_until_the_audit_changes(tmp_path, tiny_bert):
    config, corpus, annotated = annotated_run(tmp_path, tiny_bert, kind="frozen")
    student, labels = labels_of(config, corpus, annotated)
    assert find_student(config, corpus.texts, annotated) == student
    assert (student.label_model.n_audited, labels["source"].is_in(["reviewed"]).any()) == (0, False)
    uri = audit_file(tmp_path, [(demo_rows(1)[0]["text"], "Outage")])
    changed = config.model_copy(update={"audit": config.audit.model_copy(update={"uri": uri})})
    assert find_student(changed, corpus.texts, annotated) is None
    _, labels = labels_of(changed, corpus, annotated)
    assert labels.filter(pl.col("source") == "reviewed")["label"].to_list() == ["outage"]


@pytest.mark.slow
def test_a_frozen_student_labels_texts_that_the_teacher_did_not(tmp_path, tiny_bert):
    config, corpus, annotated = annotated_run(tmp_path, tiny_bert, kind="frozen", n=30)
    store = open_store(config.store)
    student = distill_student(config, corpus.texts, annotated)
    beliefs = student.beliefs[corpus.texts[0].sha256]
    known = store.read_table(beliefs)
    assert known["doc_id"].to_list() == [row["id"] for row in demo_rows(30)]
    unknown = store.write_table("beliefs/none.parquet", known.clear(), BELIEFS)
    blind = student.model_copy(update={"beliefs": {corpus.texts[0].sha256: unknown}, "key": "other"})
    found = [predict_shard(config, corpus.texts[0], annotated[0], each).labels for each in (student, blind)]
    one, other = (store.read_table(table) for table in found)
    assert one["doc_id"].equals(other["doc_id"])
    assert not one["confidence"].equals(other["confidence"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("not in the corpus", "outage")], "found none of its texts in the corpus"),
        ([("same", "outage"), (" same", "roaming")], "found two labels, 'outage' and 'roaming', for one text"),
        ([("same", "outages")], "outages"),
    ],
)
def test_an_audit_that_does_not_fit_is_one_sentence(tmp_path, tiny_bert, rows, said):
    config, corpus, annotated = annotated_run(tmp_path, tiny_bert, rows, n=5)
    with pytest.raises(ConfigError, match=said) as caught:
        distill_student(config, corpus.texts, annotated)
    assert "audit.uri" in str(caught.value)


def test_texts_drawn_for_an_audit_are_distinct_show_no_verdict_and_come_back_once_labelled(tmp_path):
    texts = ["same", "same", *(f"text {i}" for i in range(48))]
    frame = pl.DataFrame(
        {
            "doc_id": [str(i) for i in range(50)],
            "text": texts,
            "label": ["b"] * 50,
            "confidence": [0.9] * 50,
            "candidates": [["b", "a"]] * 50,
        }
    )
    drawn = draw_audit(frame, n=100, seed=0)
    assert drawn.columns == ["doc_id", "text", "label", "why"]
    assert set(drawn["why"]) == {"random"}
    assert sorted(drawn["text"]) == sorted(set(texts))
    assert draw_audit(frame, n=10, seed=0)["doc_id"].to_list() != draw_audit(frame, n=10, seed=1)["doc_id"].to_list()
    assert set(drawn["label"]) == {""}, "what was found is not shown"
    export_labels(drawn.with_columns(label=pl.Series(["a", *[""] * 48])), tmp_path / "audit.csv")
    config = AuditConfig(uri=str(tmp_path / "audit.csv"))
    assert read_audit(config, Location(uri="."), ("a", "b")) == {drawn["text"][0]: Verdict("a", is_random=True)}
