"""The stages without an orchestrator: blind to gold, restartable, and as the README shows them."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import candist_core
from candist_core import annotate_shard, distill_student, ingest_corpus, load, plan_annotation, predict_shard
from candist_core.edges.store import open_store
from tests.fakes import ChatServer, status, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config, write_jsonl

ROOT = Path(__file__).parents[2]


def run_until_labels(config):
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    student = distill_student(config, corpus.texts, annotated)
    labels = [predict_shard(config, *pair, student) for pair in zip(corpus.texts, annotated, strict=True)]
    return corpus, annotated, student, labels


@pytest.mark.slow
def test_annotations_student_and_labels_are_the_same_bytes_with_gold_removed(tmp_path, tiny_bert):
    made = []
    for kind in ("gold", "blind"):
        folder = tmp_path / kind
        folder.mkdir()
        config = demo_config(folder, n=60, student={"model": str(tiny_bert)})
        if kind == "blind":
            write_jsonl(folder / "corpus.jsonl", [{"id": row["id"], "text": row["text"]} for row in demo_rows(60)])
            config = config.model_copy(update={"source": config.source.model_copy(update={"gold": None})})
        corpus, annotated, student, labels = run_until_labels(config)
        assert bool(corpus.n_gold) == (kind == "gold")
        made.append(
            (
                [report.annotations.sha256 for report in annotated],
                [(Path(file.uri).name, file.sha256) for file in student.files],
                [report.labels.sha256 for report in labels],
            )
        )
    assert made[0] == made[1]
    assert all(made[0])


@pytest.mark.slow
def test_a_second_run_finds_every_stage_done_and_a_lost_table_is_made_again(tmp_path, tiny_bert):
    config = demo_config(tmp_path, n=40, student={"model": str(tiny_bert)})
    first = run_until_labels(config)
    assert run_until_labels(config) == first
    lost = tmp_path / "work" / first[1][0].annotations.uri
    before = lost.read_bytes()
    lost.unlink()
    second = run_until_labels(config)
    assert lost.read_bytes() == before
    assert second[1][0].usage.n_reused == 40
    assert second[1][0].usage.n_requests == 0


@pytest.mark.slow
def test_a_distillation_that_broke_off_goes_on_from_its_last_epoch_and_leaves_nothing_behind(tmp_path, tiny_bert):
    class BrokenError(Exception):
        pass

    def break_off(progress):
        if progress.note.startswith("epoch 2/"):
            raise BrokenError

    files, notes = [], []
    for kind in ("whole", "broken"):
        folder = tmp_path / kind
        folder.mkdir()
        config = demo_config(folder, n=40, student={"model": str(tiny_bert), "kind": "encoder", "epochs": 3})
        corpus, plan = ingest_corpus(config), plan_annotation(config)
        annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
        if kind == "broken":
            with pytest.raises(BrokenError):
                distill_student(config, corpus.texts, annotated, break_off)
            assert len(list((folder / "work" / "spool" / "students").iterdir())) == 1
        student = distill_student(config, corpus.texts, annotated, lambda progress: notes.append(progress.note))
        files.append([file.sha256 for file in student.files])
        assert not list((folder / "work" / "spool" / "students").iterdir())
    assert files[0] == files[1]
    epochs = [note.split()[1] for note in notes if note.startswith("epoch")]
    assert list(dict.fromkeys(epochs)) == ["1/3", "2/3", "3/3"]
    assert epochs.count("1/3") == 1
    assert epochs.count("2/3") == 2


@pytest.mark.slow
def test_one_row_more_costs_one_reply_more(tmp_path, tiny_bert):
    config = demo_config(tmp_path, n=30, student={"model": str(tiny_bert)})
    plan = plan_annotation(config)
    for shard in ingest_corpus(config).texts:
        annotate_shard(plan, shard)
    write_jsonl(tmp_path / "corpus.jsonl", [{"id": "new", "text": "brand new", "gold": "outage"}, *demo_rows(30)])
    recorded = [*demo_replies(30), {"id": "new", "reply": '{"candidates": ["outage"]}'}]
    write_jsonl(tmp_path / "replies.jsonl", recorded)
    # A replay's recording is part of its model's name; the old name is kept here to see the reply log at work.
    usage = [annotate_shard(plan, shard).usage for shard in ingest_corpus(config).texts]
    assert [(one.n_requests, one.n_reused) for one in usage] == [(1, 30)]


@pytest.mark.slow
def test_quarantine_sets_rows_aside_and_keeps_the_others(tmp_path, tiny_bert):
    changes = {"checks": {"on_fail": "quarantine", "max_unparsed_rate": 0.01}, "student": {"model": str(tiny_bert)}}
    config = demo_config(tmp_path, n=60, **changes)
    rows = [row | {"reply": "no idea"} if i < 6 else row for i, row in enumerate(demo_replies(60))]
    write_jsonl(tmp_path / "replies.jsonl", rows)
    _, annotated, _, labels = run_until_labels(config)
    store = open_store(config.store)
    rejects = store.read_table(annotated[0].rejects)
    assert rejects["doc_id"].to_list() == [row["id"] for row in rows[:6]]
    assert set(rejects["reason"]) == {"annotations.unparsed_rate"}
    assert sum(report.labels.rows for report in labels) == 54


@pytest.mark.slow
def test_equal_texts_are_asked_once_and_every_row_keeps_its_place(tmp_path, tiny_bert):
    rows = demo_rows(20)
    twice = [*rows, *({"id": f"{row['id']}-again", "text": row["text"], "gold": row["gold"]} for row in rows)]
    config = demo_config(tmp_path, n=20, student={"model": str(tiny_bert)})
    write_jsonl(tmp_path / "corpus.jsonl", twice)
    corpus, annotated, _, _ = run_until_labels(config)
    assert (corpus.n_examples, corpus.n_texts) == (40, 20)
    assert sum(report.usage.n_requests for report in annotated) == 20


@pytest.mark.flow
def test_the_readme_example_runs_as_it_stands(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    config = demo_config(tmp_path, n=80, epochs=1)
    code = code.replace('"deployments/configs/demo.yaml"', repr(str(write_config(tmp_path, config))))
    (tmp_path / "example.py").write_text(code + "\nprint(labels.height)\n")
    command = [sys.executable, "-W", "error::UserWarning", str(tmp_path / "example.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("80")
    assert isinstance(load(f"{config.publish.uri}/slice"), pl.LazyFrame)


def test_importing_the_core_is_light():
    heavy = [
        "torch",
        "transformers",
        "great_expectations",
        "prefect",
        "dask",
        "distributed",
        "openai",
        "s3fs",
        "pandas",
        "matplotlib",
        "jinja2",
    ]
    code = f"import candist_core, candist_core.config, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_public_name_leads_somewhere():
    for name in candist_core.__all__:
        assert callable(getattr(candist_core, name))
    assert dir(candist_core) == sorted(candist_core.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = candist_core.no_such_name


@pytest.mark.slow
def test_rows_that_failed_for_a_while_are_asked_again_by_the_next_run_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    unlucky, is_down = demo_rows(12)[3]["text"], [True]

    def answer(body):
        failing = is_down[0] and user_text(body) == unlucky
        return status(500) if failing else '{"candidates": ["outage"]}'

    with ChatServer(answer=answer) as server:
        teacher = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY"}
        config = demo_config(tmp_path, n=12, teacher={**teacher, "max_attempts": 1})
        plan, (shard,) = plan_annotation(config), ingest_corpus(config).texts
        assert annotate_shard(plan, shard).statuses == {"ok": 11, "failed": 1}
        is_down[0] = False
        second = annotate_shard(plan, shard)
        assert second.statuses == {"ok": 12}
        assert (second.usage.n_requests, second.usage.n_reused) == (1, 11)
        assert annotate_shard(plan, shard) == second
        assert len(server.requests) == 13
