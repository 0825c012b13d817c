"""A run that a check stopped has a report: of its corpus, of its first shard, of all its annotations."""

import re

import pytest

from candist_core import annotate_shard, ingest_corpus, plan_annotation
from candist_core.errors import StoreError
from candist_core.stages.report import report_of_run
from candist_core.stages.stopped import find_stopped
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config, write_jsonl
from tests.flows.test_cli import candist as candist

pytestmark = pytest.mark.slow
EVIL = "<script>window.ran=1</script>"


def visible(made):
    bare = re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", made.html.decode(), flags=re.DOTALL)
    return " ".join(bare.split())


def mute(folder, n, is_mute):
    """A run of shards of 100 whose teacher names no label for some rows."""
    config = demo_config(folder, n=n)
    rows = [row | {"reply": EVIL} if is_mute(i) else row for i, row in enumerate(demo_replies(n))]
    write_jsonl(folder / "replies.jsonl", rows)
    return config


def test_of_a_corpus_most_of_which_is_rejected(tmp_path):
    config = demo_config(tmp_path, n=40, source={"id": "kind"})
    write_jsonl(tmp_path / "corpus.jsonl", [row | {"kind": EVIL} for row in demo_rows(40)])
    ingest_corpus(config)
    made = report_of_run(config)
    said = visible(made)
    assert (made.file_name, made.manifest) == ("slice-stopped.html", None)
    assert "There is none yet. The run was stopped by the checks of the corpus: 1 of 1 failed." in said
    assert "ingest.rejected_rate Observed 97.5 % (39 of 40) rows rejected" in said
    assert "39 duplicate_id" in said
    assert EVIL.encode() not in made.html
    assert b"&lt;script&gt;window.ran=1" in made.html


def test_of_a_first_shard_that_failed_while_the_second_was_never_asked(tmp_path):
    config = mute(tmp_path, 200, lambda i: i < 30)
    annotate_shard(plan_annotation(config), ingest_corpus(config).texts[0])
    made, stopped = report_of_run(config), find_stopped(config)
    said = visible(made)
    assert (stopped.stage, stopped.n_asked, stopped.at_fault.height) == ("annotations", 100, 30)
    assert "annotations.unparsed_rate Observed 30 % (30 of 100)" in said
    assert demo_rows(1)[0]["text"][:40] in said.replace("&#39;", "'")
    assert EVIL.encode() not in made.html


def test_of_answers_that_fail_only_as_a_whole(tmp_path):
    config = mute(tmp_path, 40, lambda i: i % 2)
    annotate_shard(plan_annotation(config), ingest_corpus(config).texts[0])
    said = visible(report_of_run(config))
    assert "run.unparsed_rate Observed 50 % (20 of 40)" in said


def test_a_run_that_no_check_stopped_is_told_as_unfinished(tmp_path):
    config = mute(tmp_path, 200, lambda i: False)
    annotate_shard(plan_annotation(config), ingest_corpus(config).texts[0])
    assert find_stopped(config) is None
    with pytest.raises(StoreError, match="1 of 2 shards annotated"):
        report_of_run(config)


@pytest.mark.flow
def test_the_run_that_fails_names_the_command_and_the_command_works(candist, tmp_path):
    path = write_config(tmp_path, mute(tmp_path, 40, lambda i: i % 2))
    code, _, err = candist("run", path, "--set", "seed=3")
    assert code == 3
    assert f"what the checks found: candist report {path} --set seed=3" in err
    code, *_ = candist("report", path, "--set", "seed=3", "--out", "r.html")
    assert code == 0
    assert "run.unparsed_rate" in (tmp_path / "r.html").read_text()
