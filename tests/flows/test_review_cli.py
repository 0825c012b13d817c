"""The loop of a person and a run: published, reviewed, published again, compared."""

import json

import polars as pl
import pytest

from candist_core.config import Location, load_config
from candist_core.stages.versions import find_version, load
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_rows, write_config
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence
from tests.flows.test_label_corpus import answers_by_text
from tests.flows.test_label_corpus import candist as candist_process
from tests.versions import label_row, publish_rows

N = 80


@pytest.fixture
def version(tmp_path):
    rows = [label_row(f"d{i}", f"{i} text number {i * 7}", "a", 0.3 + i / 20, "b") for i in range(10)]
    rows[0]["text"] = "=1+1 \x1b[31m"
    publish_rows(tmp_path / "published", rows, ["a", "b"])
    return "published/mails"


@pytest.mark.flow
def test_a_reviewed_version_becomes_a_new_one_with_the_teacher_asked_again_and_the_changes_shown(tmp_path, monkeypatch):
    said, gold = answers_by_text(N), {row["text"]: row["gold"] for row in demo_rows(N)}

    def answer(body):
        """As recorded; with examples the teacher knows."""
        text = user_text(body)
        return json.dumps({"candidates": [gold[text]]}) if len(body["messages"]) > 2 else said[text]

    monkeypatch.setenv("TEST_KEY", "k")
    with ChatServer(answer=answer) as server:
        teacher = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY"}
        teacher |= {"model": "own"}
        prices = {"prices": [{"model": "own", "input_usd": 1.0, "output_usd": 1.0}]}
        path = write_config(tmp_path, demo_config(tmp_path, n=N, teacher=teacher, budget=prices))
        first = candist_process("run", path, cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        n_first, place = len(server.requests), f"{tmp_path}/published/slice"

        exported = candist_process("review", "export", place, "--budget", 40, "--out", "r.csv", "--random-share", 0.8,
                                   cwd=tmp_path)  # fmt: skip
        assert exported.returncode == 0, exported.stderr
        assert "wrote 40 texts, 32 of them at random" in exported.stdout
        asked = pl.read_csv(tmp_path / "r.csv", infer_schema=False)
        labels = [gold[text] for text in asked["text"]]
        asked.with_columns(label=pl.Series(labels)).write_csv(tmp_path / "r.csv")

        dry = candist_process("estimate", path, "--set", "audit.uri=r.csv", "--reask", "doubtful", cwd=tmp_path)
        assert dry.returncode == 0, dry.stderr
        assert len(server.requests) == n_first

        again = candist_process("review", "import", "r.csv", path, "--reask", "doubtful", cwd=tmp_path)
        assert again.returncode == 0, again.stderr + again.stdout
        assert "40 texts: 32 drawn at random, 8 doubtful" in again.stdout
        assert "reliability of the version's confidences" in again.stdout
        assert "slice@1" in again.stdout
        assert "cost of all replies" in again.stdout
        before, after = (load(f"{place}@{n}").collect() for n in (1, 2))
        reviewed = after.filter(pl.col("source") == "reviewed")
        assert dict(reviewed.select("text", "label").iter_rows()) == dict(zip(asked["text"], labels, strict=True))
        manifest = find_version(Location(uri=f"{place}@2")).manifest
        assert manifest.student.label_model.n_audited == 32
        assert manifest.config["reask"]["versions"] == [find_version(Location(uri=f"{place}@1")).manifest.version]
        settled = set(asked.filter(pl.col("why") == "doubtful")["text"])
        doubtful = set(before.filter("needs_review")["text"]) - settled
        assert {user_text(body) for body in server.requests[n_first:]} == doubtful
        assert doubtful

    compared = candist_process("compare", f"{place}@1", "@2", "--json", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)
    joined = before.join(after, on="doc_id", suffix="_after")
    assert found["n_changed"] == joined.filter(pl.col("label") != pl.col("label_after")).height
    assert {one["name"] for one in found["metrics"]} >= {"final accuracy", "want review", "cost of all replies (USD)"}
    assert load_config(path).audit.uri is None


def test_texts_go_out_in_every_format_and_nothing_is_overwritten(candist, tmp_path, version):
    for form, name, files in (
        ("csv", "r.csv", {"r.csv"}),
        ("label-studio", "r.json", {"r.json", "r.xml"}),
        ("argilla", "folder", {"folder"}),
    ):
        earlier = {path.name for path in tmp_path.iterdir()}
        code, out, err = candist("review", "export", version, "--format", form, "--out", name, "--budget", 4)
        assert code == 0, err
        assert "wrote 4 texts, 1 of them at random" in out
        assert {path.name for path in tmp_path.iterdir()} - earlier == files
        code, _, err = candist("review", "export", version, "--format", form, "--out", name)
        assert code == 2
        assert "one that exists" in one_sentence(err)
    assert (tmp_path / "folder" / ".argilla" / "settings.json").exists()


def test_answers_are_joined_with_earlier_ones_and_the_next_command_is_named(candist, tmp_path, version):
    config = demo_config(tmp_path, n=3, publish={"uri": str(tmp_path / "published"), "dataset": "mails"})
    labels = [{"name": "a"}, {"name": "b"}]
    config = config.model_copy(update={"task": config.task.model_validate({"labels": labels})})
    path = write_config(tmp_path, config)
    (tmp_path / "one.csv").write_text("doc_id,label,why\nd1,b,doubtful\nd2,a,random\n")
    code, out, err = candist("review", "import", "one.csv", path, "--no-run")
    assert code == 0, err
    assert "2 texts: 1 drawn at random, 1 doubtful" in out
    assert f"next: candist run {path} --set audit.uri={tmp_path}/slice-reviewed.jsonl" in out
    (tmp_path / "two.csv").write_text("doc_id,label,why\nd1,a,random\nd0,b,doubtful\n")
    code, _, err = candist("review", "import", "two.csv", path, "--no-run")
    assert code == 0, err
    kept = [json.loads(line) for line in (tmp_path / "slice-reviewed.jsonl").read_text().splitlines()]
    assert [(row["text"][:1], row["label"], row["why"]) for row in kept] == [
        ("2", "a", "random"),
        ("1", "a", "random"),
        ("=", "b", "doubtful"),
    ]


def test_mistakes_of_a_review_are_one_sentence(candist, tmp_path, version):
    path = write_config(tmp_path, demo_config(tmp_path, n=3, publish={"dataset": "mails"}))
    (tmp_path / "odd.csv").write_text("doc_id,label\nd1,weather\n")
    for arguments, said in (
        (("review", "import", "none.csv", path), "none.csv"),
        (("review", "import", "odd.csv", path), "'weather'"),
        (("review", "import", "odd.csv", path, "--version", "7"), "no version '7'"),
        (("review", "import", "odd.csv", path, "--into", "x.csv"), ".jsonl"),
        (("review", "export", version, "--out", "x", "--format", "word"), "csv, label-studio, argilla"),
        (("review", "export", "published/none", "--out", "x"), "none"),
        (("review", version), "a terminal to ask in"),
        (("compare", f"{version}@1", "@9"), "no version '9'"),
        (("run", path, "--reask", "doubtful"), "no reviewed texts"),
    ):
        code, _, err = candist(*arguments)
        assert code == 2, arguments
        assert said in one_sentence(err)


def test_a_comparison_cannot_steer_the_terminal(candist, tmp_path, version):
    rows = [label_row("d0", "=1+1 \x1b[31m [bold]", "b", 0.9)]
    publish_rows(tmp_path / "published", rows, ["a", "b"])
    code, out, _ = candist("compare", f"{version}@1", "@2")
    assert code == 0
    assert "\x1b[31m" not in out
    assert "\\x1b[31m [bold]" in out
    assert "1 in both, 9 only in the first" in out
