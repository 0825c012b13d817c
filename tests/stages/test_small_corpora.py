"""Corpora at the edge: very few texts, labels that no text has, one label only, very many labels, no answer at all."""

import json

import pytest

from candist_core import annotate_shard, distill_student, ingest_corpus, plan_annotation, predict_shard
from candist_core.config import parse_config
from candist_core.edges.store import open_store
from candist_core.errors import StudentError
from tests.flows.corpora import write_jsonl
from tests.student.conftest import tiny_bert as tiny_bert

WORDS = ("red", "green", "blue")


def config_of(folder, student, answers, n_labels=3, kind="encoder"):
    """A run over one text for each answer, a list of labels."""
    texts = [f"the {WORDS[i % 3]} one {'two ' * (i // 3)}" for i in range(len(answers))]
    write_jsonl(folder / "corpus.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(texts)])
    replies = [{"id": str(i), "reply": json.dumps({"candidates": names})} for i, names in enumerate(answers)]
    write_jsonl(folder / "replies.jsonl", replies)
    names = [*WORDS, *(f"label{j}" for j in range(3, n_labels))]
    return parse_config(
        {
            "name": "small",
            "task": {"labels": [{"name": name} for name in names], "instruction": "By colour."},
            "source": {"uri": str(folder / "corpus.jsonl"), "id": "id"},
            "store": {"uri": str(folder / "work")},
            "teacher": {"kind": "replay", "replies_uri": str(folder / "replies.jsonl")},
            "student": {"model": str(student), "epochs": 1, "max_tokens": 32, "kind": kind},
            "publish": {"uri": str(folder / "published")},
        }
    )


def labels_of(config):
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    student = distill_student(config, corpus.texts, annotated)
    labels = predict_shard(config, corpus.texts[0], annotated[0], student).labels
    return open_store(config.store).read_table(labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "frozen"])
@pytest.mark.parametrize(
    ("answers", "n_labels"),
    [
        ([[WORDS[i % 3]] for i in range(20)], 3),
        ([[WORDS[i % 2]] for i in range(20)], 3),
        ([["red"]] * 20, 3),
        ([[WORDS[i % 3]] for i in range(20)], 500),
        ([["red"]], 3),
        ([["red", "green"], ["green", "red"]], 3),
    ],
    ids=["20 texts", "a label without texts", "one label only", "500 labels", "one text", "two unsure texts"],
)
def test_every_text_of_a_small_corpus_gets_a_label_that_the_teacher_named(tmp_path, tiny_bert, kind, answers, n_labels):
    labels = labels_of(config_of(tmp_path, tiny_bert, answers, n_labels, kind))
    assert labels.height == len(answers)
    assert all(label in names for label, names in zip(labels["label"], answers, strict=True))
    assert ((labels["confidence"] > 0) & (labels["confidence"] <= 1)).all()


@pytest.mark.slow
def test_a_text_without_an_answer_is_the_student_s_and_wants_review(tmp_path, tiny_bert):
    answers = [[WORDS[i % 3]] if i else [] for i in range(20)]
    first = labels_of(config_of(tmp_path, tiny_bert, answers)).row(0, named=True)
    assert (first["source"], first["reason"]) == ("student", "teacher gave no answer: abstained")


@pytest.mark.parametrize("kind", ["encoder", "frozen"])
def test_a_teacher_that_never_answers_is_one_sentence(tmp_path, tiny_bert, kind):
    with pytest.raises(StudentError, match="found 0 of 0 texts with candidates, wanted at least one"):
        labels_of(config_of(tmp_path, tiny_bert, [[]] * 20, kind=kind))
