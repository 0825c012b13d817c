"""Rounds of a sampled run without an orchestrator: drawn the same again, whatever a killed run left."""

import shutil

import polars as pl
import pytest

from candist_core import annotate_shard, distill_student, ingest_corpus, plan_annotation, predict_shard
from candist_core.edges.store import open_store
from candist_core.stages.asked import answers_about
from candist_core.stages.drawing import tables_of
from candist_core.stages.sample import asked_of, draw_round, find_asked
from candist_core.tables import ANNOTATIONS
from tests.flows.corpora import demo_config

pytestmark = pytest.mark.slow


def sampled(folder, tiny_bert, **changes):
    sampling = {"teacher_rows": 60, "rounds": 3, "min_gain": 0.0} | changes
    return demo_config(folder, n=160, student={"model": str(tiny_bert)}, sampling=sampling, source={"shard_rows": 50})


def ask_rounds(config, ingested):
    plan, rounds, annotated = plan_annotation(config), [], []
    while not rounds or rounds[-1].texts:
        rounds.append(draw_round(config, ingested, rounds, annotated))
        annotated = [annotate_shard(plan, table) for table in tables_of(rounds)]
    return rounds, annotated


def test_rounds_are_disjoint_and_drawn_the_same_again_when_a_kill_left_only_the_replies(tmp_path, tiny_bert):
    config = sampled(tmp_path, tiny_bert)
    ingested = ingest_corpus(config)
    rounds, annotated = ask_rounds(config, ingested)
    assert [one.n_rows for one in rounds] == [20, 20, 20, 0]
    store = open_store(config.store)
    ids = pl.concat([store.read_table(table)["doc_id"] for table in tables_of(rounds)])
    assert ids.n_unique() == 60
    for lost in ("done", "sample", "annotations"):
        shutil.rmtree(tmp_path / "work" / lost)
    again, answers = ask_rounds(config, ingest_corpus(config))
    assert again == rounds
    assert [one.annotations for one in answers] == [one.annotations for one in annotated]
    assert sum(one.usage.n_requests for one in answers) == 0
    assert sum(one.usage.n_reused for one in answers) == 60


def test_a_run_that_is_in_its_second_round_is_found_there(tmp_path, tiny_bert):
    config = sampled(tmp_path, tiny_bert)
    ingested, plan = ingest_corpus(config), plan_annotation(config)
    first = draw_round(config, ingested)
    assert find_asked(config, ingested, plan).annotated == ()
    done = [annotate_shard(plan, table) for table in first.texts]
    second = draw_round(config, ingested, [first], done)
    found = find_asked(config, ingested, plan)
    assert found.rounds == (first, second)
    assert len(found.annotated) == len(first.texts) < len(found.texts)
    assert found.whole(config, ingested) is None


def test_a_drawn_text_that_a_check_set_aside_gets_no_label_and_all_others_get_one(tmp_path, tiny_bert):
    config = sampled(tmp_path, tiny_bert, rounds=1)
    ingested = ingest_corpus(config)
    rounds, annotated = ask_rounds(config, ingested)
    store = open_store(config.store)
    answers = store.read_table(annotated[0].annotations)
    kept = store.write_table("kept.parquet", answers[1:], ANNOTATIONS)
    annotated[0] = annotated[0].model_copy(update={"annotations": kept})
    asked = asked_of(config, ingested, rounds, annotated)
    student = distill_student(config, asked.texts, asked.annotated)
    shards = zip(ingested.texts, asked.by_shard, strict=True)
    labels = pl.concat([store.read_table(predict_shard(config, *shard, student).labels) for shard in shards])
    assert labels.height == 159
    assert answers["doc_id"][0] not in labels["doc_id"]
    every = pl.concat([answers_about(store, *shard) for shard in zip(ingested.texts, asked.by_shard, strict=True)])
    assert dict(every["status"].value_counts().iter_rows()) == {"ok": 59, "unread": 100}
