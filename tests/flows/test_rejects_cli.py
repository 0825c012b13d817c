"""A corpus most of whose rows cannot be used stops the run before anything is asked, and says why and which."""

import json

import polars as pl
import pytest

from candist_core.checks_config import CHECKS
from candist_core.stages.check import check_corpus
from candist_core.stages.ingest import ingest_corpus
from tests.flows.corpora import demo_config, demo_rows, write_config, write_jsonl
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence

pytestmark = pytest.mark.slow


def with_kind(folder, n=60, **changes):
    """A run over rows with a column `kind` of three values, as an id by mistake."""
    config = demo_config(folder, n=n, source={"id": "kind"}, **changes)
    write_jsonl(folder / "corpus.jsonl", [row | {"kind": f"k{i % 3}"} for i, row in enumerate(demo_rows(n))])
    return config


def test_a_wrong_id_column_fails_by_name_with_the_reason_and_the_bound(tmp_path):
    config = with_kind(tmp_path)
    (check,) = check_corpus(config, ingest_corpus(config))
    assert (check.name, check.passed, check.on_fail) == ("ingest.rejected_rate", False, "fail")
    assert (check.value, check.n_unexpected, check.n) == (57 / 60, 57, 60)
    assert check.observed == "95 % (57 of 60) rows rejected as the corpus was read (57 duplicate_id)"
    assert check.wanted == "at most 10 %"


def test_rejects_up_to_the_bound_pass_and_quarantine_stops_more_as_nothing_is_left_to_set_aside(tmp_path):
    config = with_kind(tmp_path, checks={"max_rejected_rate": 0.95, "on_fail": "quarantine"})
    ingested = ingest_corpus(config)
    assert check_corpus(config, ingested)[0].passed
    tight = config.model_copy(update={"checks": config.checks.model_copy(update={"max_rejected_rate": 0.94})})
    (failed,) = check_corpus(tight, ingested)
    assert (failed.passed, failed.on_fail) == (False, "fail")
    assert "ingest.rejected_rate" in CHECKS


@pytest.mark.flow
def test_a_run_over_it_stops_before_the_teacher_is_asked_and_names_the_way_to_the_rows(candist, tmp_path):
    code, _, err = candist("run", write_config(tmp_path, with_kind(tmp_path)))
    assert code == 3
    said = next(line for line in err.splitlines() if line.startswith("candist: "))
    assert "checks of the corpus failed, nothing is published: ingest.rejected_rate: observed 95 % (57 of 60)" in said
    assert "`candist rejects CONFIG` names the rows" in said
    assert not (tmp_path / "published").exists()
    assert not (tmp_path / "work" / "annotations").exists()


def test_an_estimate_counts_rejects_by_reason_and_refuses_what_the_run_would(candist, tmp_path):
    path = write_config(tmp_path, with_kind(tmp_path))
    code, out, err = candist("estimate", path)
    assert code == 3
    assert "57 rejected (57 duplicate_id)" in out
    assert "ingest.rejected_rate" in err
    code, out, err = candist("estimate", path, "--set", "checks.max_rejected_rate=1")
    assert (code, err) == (0, "")


def test_rejects_are_listed_filtered_and_exported(candist, tmp_path):
    config = demo_config(tmp_path, n=20)
    write_jsonl(tmp_path / "corpus.jsonl", [*demo_rows(18), {"id": "x", "text": " "}, {"id": "y\x1b[2J", "text": ""}])
    path = write_config(tmp_path, config)
    code, _, err = candist("rejects", path)
    assert code == 2
    assert "`candist estimate`" in one_sentence(err)
    ingest_corpus(config)
    code, out, _ = candist("rejects", path)
    assert code == 0
    assert "2 rejects: 2 empty" in out
    assert "\x1b" not in out
    code, _, err = candist("rejects", path, "--reason", "oversized")
    assert code == 2
    assert "'empty'" in one_sentence(err)
    code, out, _ = candist("rejects", path, "--reason", "empty", "--out", "r.csv")
    assert (code, pl.read_csv(tmp_path / "r.csv")["reason"].to_list()) == (0, ["empty", "empty"])
    code, _, err = candist("rejects", path, "--out", "r.csv")
    assert code == 2
    assert "--force" in one_sentence(err)
    assert candist("rejects", path, "--out", "r.csv", "--force")[0] == 0
    assert sorted(file.name for file in tmp_path.glob("*r.csv*")) == ["r.csv"]


def audit(folder, label):
    (folder / "audit.csv").write_text(f"text,label\n{json.dumps(demo_rows(1)[0]['text'])},{label}\n")
    return {"audit": {"uri": str(folder / "audit.csv")}}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (lambda folder: audit(folder, "outtage"), "outtage"),
        (lambda folder: {"checks": {"expectations": [{"name": "x", "expectation": "ExpectNothing"}]}}, "ExpectNothing"),
        (lambda folder: {"publish": {"uri": str(folder / "corpus.jsonl")}}, "a file in the way"),
        (lambda folder: {"checks": {"balance": "audit"}}, "audit.uri"),
    ],
)
def test_estimate_and_run_refuse_the_same_in_the_same_words(candist, tmp_path, changes, word):
    path = write_config(tmp_path, demo_config(tmp_path, n=20, **changes(tmp_path)))
    outcomes = [candist(command, path) for command in ("estimate", "run")]
    assert [code for code, *_ in outcomes] == [2, 2]
    said = [one_sentence(err) for *_, err in outcomes]
    assert said[0] == said[1]
    assert word in said[0]
    assert not (tmp_path / "work" / "annotations").exists()


def test_an_estimate_needs_no_key_and_says_that_a_run_does(candist, tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    teacher = {"kind": "openai", "model": "gpt-4o-mini", "replies_uri": None, "api_key_env": "SOME_KEY"}
    code, out, err = candist("estimate", write_config(tmp_path, demo_config(tmp_path, n=20, teacher=teacher)))
    assert code == 0
    assert "20 to make" in out
    assert "a run would stop: environment variable SOME_KEY" in err
