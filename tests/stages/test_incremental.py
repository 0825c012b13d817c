"""Runs over a corpus that grows: what is asked, what stays, when the student has to go."""

import pytest

from candist_core.reports import RunReports
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.distill import distill_student
from candist_core.stages.evaluate import assess_quality, evaluate_labels
from candist_core.stages.incremental import adopt_student, find_base, judge_student
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import predict_shard
from candist_core.stages.publish import publish_version
from candist_core.stages.versions import load
from tests.flows.corpora import demo_config, demo_replies, write_jsonl

pytestmark = pytest.mark.slow


def label(config):
    """A run without orchestrator: the version, and where its student came from."""
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    base = find_base(config, corpus.texts, annotated)
    student = origin = None
    if not isinstance(base, str):
        adopted = adopt_student(config, base, corpus.texts, annotated)
        origin = judge_student(config, adopted)
        student = adopted.student if origin.is_reused else None
    student = student or distill_student(config, corpus.texts, annotated)
    predicted = [
        predict_shard(config, *pair, student.of_shard(pair[0])) for pair in zip(corpus.texts, annotated, strict=True)
    ]
    reports = RunReports(
        ingested=corpus, annotated=tuple(annotated), student=student, predicted=tuple(predicted),
        metrics=evaluate_labels(config, corpus, annotated, predicted, student),
        quality=assess_quality(config, corpus.texts, annotated, student, predicted),
        checks=(), origin=origin,
    )  # fmt: skip
    return publish_version(config, reports), base if isinstance(base, str) else origin


def grown(tmp_path, n=300, rows=None, **changes):
    """The configuration over the first n rows of the sample corpus, or over such rows."""
    changes["incremental"] = {"reuse_student": True, "min_texts": 20} | changes.get("incremental", {})
    config = demo_config(tmp_path, n=n, **changes)
    # One recording for every night: another would be another teacher.
    write_jsonl(tmp_path / "replies.jsonl", demo_replies(1200))
    if rows is not None:
        write_jsonl(tmp_path / "corpus.jsonl", rows)
    return config


def rows_of(config, number):
    return load(f"{config.publish.uri}/slice@{number}").sort("doc_id").collect()


def test_new_rows_are_labelled_by_the_old_student_and_no_old_row_is_touched(tmp_path):
    first, why = label(grown(tmp_path, 300))
    assert why == "there is no version before this one"
    config = grown(tmp_path, 360)
    second, origin = label(config)
    assert (origin.is_reused, origin.number, origin.n_new) == (True, 1, 60)
    assert [check.name for check in origin.checks] == [
        "drift.out_of_set_rate", "drift.low_confidence_rate", "drift.disagreement", "drift.balance", "drift.embedding",
    ]  # fmt: skip
    assert second.manifest.student.key == first.manifest.student.key
    old, new = rows_of(config, 1), rows_of(config, 2)
    assert new.join(old, on="doc_id", how="semi").equals(old)
    assert str(second.manifest.changes) == (
        "since version 1: 60 added, 0 changed, 0 removed, 300 kept, 0 of them with another label"
    )
    assert second.manifest.parent == first.version
