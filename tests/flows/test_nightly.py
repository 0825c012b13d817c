"""What a schedule does: the same command every night over a corpus that grows, drifts and loses a row."""

import json

import polars as pl
import pytest

from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.stages.forget import forget_rows
from candist_core.stages.remove import remove_version
from candist_core.stages.versions import load
from candist_core.versions import list_versions
from flows.label_corpus import label_corpus
from flows.summary import manifest_rows, published_rows
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_rows, recipe_rows, write_config, write_jsonl
from tests.flows.test_flow_kills import Run
from tests.flows.test_label_corpus import answers_by_text
from tests.stages.test_forget import ids_in

pytestmark = pytest.mark.flow

N_FIRST, N_MORE, N_OTHER = 120, 40, 40


def test_three_nights_new_rows_then_drift_then_a_deletion(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    known = answers_by_text(N_FIRST + N_MORE)
    strange = json.dumps({"candidates": ["billing_dispute"]})
    with ChatServer(answer=lambda body: known.get(user_text(body), strange), latency_s=0.01) as server:
        config = demo_config(
            tmp_path,
            n=N_FIRST,
            teacher={
                "kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
                "max_in_flight": 8,
            },
            # The balance of all labels may move: drift of the new ones is what this is about.
            checks={"max_review_rate": 1.0, "balance": "none"},
            incremental={"reuse_student": True, "min_texts": 20},
        )  # fmt: skip
        corpus, path = tmp_path / "corpus.jsonl", write_config(tmp_path, config)
        rows = [{"id": row["id"], "text": row["text"], "gold": row["gold"]} for row in demo_rows(N_FIRST + N_MORE)]

        # The evening before: nothing is there yet.
        first = label_corpus(config).manifest
        assert (first.changes, first.origin.reason) == (None, "there is no version before this one")
        assert len(server.requests) == N_FIRST

        # Night one: new rows; the run is killed among them, and the next one goes on.
        write_jsonl(corpus, rows)
        with Run(path) as run:
            run.wait_until_asked(server, N_MORE // 3)
            run.kill("group", None)
        n_asked = len(server.requests)
        published = label_corpus(config)
        second = published.manifest
        assert n_asked < N_FIRST + N_MORE <= len(server.requests) <= N_FIRST + N_MORE + 8
        assert set(server.counts.values()) <= {1, 2}
        assert (second.number, second.parent, second.student.key) == (2, first.version, first.student.key)
        changes = second.changes
        assert (changes.n_added, changes.n_kept, changes.n_removed, changes.n_relabelled) == (N_MORE, N_FIRST, 0, 0)
        assert (second.origin.is_reused, second.origin.number) == (True, 1)
        assert all(check.passed for check in second.origin.checks), second.origin.checks
        assert {check.name for check in second.origin.checks} < {check.name for check in second.checks}
        assert ("rows", str(changes)) in manifest_rows(second)
        assert labels(config, 2).join(labels(config, 1), on="doc_id", how="semi").equals(labels(config, 1))
        card = (tmp_path / "published" / second.folder / "README.md").read_text()
        page = (tmp_path / "published" / second.folder / "report.html").read_text()
        assert "Rows since version 1: 40 added" in card
        assert "drift.embedding" in page
        assert "Rows since version 1" in page

        # The same night once more: nothing is asked, distilled or published, and it says so.
        n_asked = len(server.requests)
        again = label_corpus(config)
        assert (again.is_new, again.number, len(server.requests)) == (False, 2, n_asked)
        assert (
            "2, " + second.version + " (published before, these labels are the same)"
            in dict(published_rows(again)).values()
        )

        # Night two: texts of another kind, and a row whose text was mended.
        write_jsonl(corpus, [rows[0] | {"text": f"{rows[0]['text']} Please help."}, *rows[1:], *recipe_rows(N_OTHER)])
        third = label_corpus(config).manifest
        assert len(server.requests) == n_asked + N_OTHER + 1
        assert (third.number, third.origin.is_reused) == (3, False)
        failed = {check.name for check in third.origin.checks if not check.passed}
        assert {"drift.balance", "drift.embedding"} <= failed
        assert third.origin.reason.startswith("drift beyond")
        assert third.student.key != first.student.key
        assert (third.changes.n_added, third.changes.n_changed) == (N_OTHER, 1)
        assert not any(check.name.startswith("drift.") for check in third.checks), "they are about the old student"

        # Night three: someone wants a row deleted; it still stands in the corpus.
        gone, n_asked = rows[7]["id"], len(server.requests)
        found = forget_rows(config, [gone], delete=True, keep_students=True)
        assert [one.number for one in found.holders] == [1, 2, 3]
        fourth = label_corpus(config).manifest
        assert (fourth.number, fourth.student.key, len(server.requests)) == (4, third.student.key, n_asked)
        assert (fourth.changes.n_removed, fourth.changes.n_added, fourth.changes.n_relabelled) == (1, 0, 0)
        for number in (1, 2, 3):
            remove_version(Location(uri=f"{config.publish.uri}/slice@{number}"), delete=True)
        assert list_versions(open_store(Location(uri=config.publish.uri)), "slice") == [4]
        assert gone not in ids_in(tmp_path)


def labels(config, number: int) -> pl.DataFrame:
    return load(f"{config.publish.uri}/slice@{number}").sort("doc_id").collect()
