"""Asking again about texts in doubt: which, with what examples, for how much, and what of it stays."""

import json

import pytest

from candist_core.edges.store import open_store
from candist_core.errors import ConfigError, StoreError
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.estimate import estimate_run
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.reask import with_reask
from candist_core.stages.verify import verify_annotations
from tests.fakes import ChatServer, status, user_text
from tests.flows.corpora import demo_config, demo_labels, demo_rows
from tests.student.conftest import tiny_bert as tiny_bert
from tests.versions import label_row, publish_rows

pytestmark = pytest.mark.slow

NAMES = [label["name"] for label in demo_labels()]
ROWS = demo_rows(6)
DOUBTFUL = {0, 1, 2, 3}


def published(run, doubtful=DOUBTFUL, **more):
    rows = [label_row(row["id"], row["text"], "outage", 0.3 if i in doubtful else 0.95) for i, row in enumerate(ROWS)]
    return publish_rows(run.publish.uri, rows, NAMES, run.dataset, **more)


def reviewed(folder, *rows):
    """A file in which texts were labelled by a person: place in the corpus, label, why."""
    lines = [json.dumps({"text": ROWS[i]["text"], "label": label, "why": why}) for i, label, why in rows]
    path = folder / "reviewed.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"uri": str(path)}


def config_of(folder, server, tiny_bert, *rows, **changes):
    teacher = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "model": "m", "max_in_flight": 2}
    more = {"audit": reviewed(folder, *rows)} if rows else {}
    more |= {"checks": {"on_fail": "warn"}, "shots": {"encoder": str(tiny_bert), "n": 2}} | changes
    return demo_config(folder, n=6, teacher=teacher, **more)


def answer(body):
    """What the teacher says alone, and with examples."""
    return json.dumps({"candidates": ["roaming"] if len(body["messages"]) > 2 else ["outage", "slow_speed"]})


def annotated(config):
    plan, store = plan_annotation(config), open_store(config.store)
    (report,) = [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]
    return {row["doc_id"]: row for row in store.read_table(report.annotations).to_dicts()}, report


def test_doubtful_texts_are_asked_again_with_reviewed_ones_as_examples_and_the_rest_stays(tmp_path, tiny_bert):
    with ChatServer(answer=answer) as server:
        config = config_of(tmp_path, server, tiny_bert, (0, "roaming", "doubtful"), (1, "outage", "random"))
        published(config)
        first, _ = annotated(config)
        before = len(server.requests)
        again = with_reask(config)
        expected = estimate_run(again)
        rows, report = annotated(again)
        asked = {user_text(body): body["messages"] for body in server.requests[before:]}
        # Text 0 is settled: a person reviewed it for its doubt. Text 1 was drawn at random and is asked as all others.
        assert set(asked) == {ROWS[i]["text"] for i in (1, 2, 3)}
        assert (expected.calls.n_calls, expected.n_kept) == (3, 6)
        assert (report.usage.n_requests, report.usage.n_reused) == (3, 6)
        shown = [message["content"] for message in asked[ROWS[1]["text"]] if message["role"] == "user"][:-1]
        assert len(shown) == 1, "a text is never its own example"
        assert ROWS[0]["text"] in shown[0]
        assert [rows[row["id"]]["candidates"][0] for row in ROWS] == ["outage", *["roaming"] * 3, "outage", "outage"]
        assert list(rows) == list(first)
        assert verify_annotations(again).n_differing == 0
        n_requests = len(server.requests)
        assert annotated(again)[0] == rows
        assert annotated(config)[0] == first, "without reask the first answers stand"
        assert len(server.requests) == n_requests


def test_what_an_earlier_version_asked_again_is_asked_so_again_at_no_cost(tmp_path, tiny_bert):
    with ChatServer(answer=answer) as server:
        config = config_of(tmp_path, server, tiny_bert, (0, "roaming", "doubtful"))
        first = published(config)
        rows, _ = annotated(with_reask(config))
        second = published(config, {4}, config={"reask": {"versions": [first.version]}})
        n_requests = len(server.requests)
        again = with_reask(config)
        assert again.reask.versions == (first.version, second.version)
        later, _ = annotated(again)
        assert len(server.requests) == n_requests + 1
        assert {name for name, row in later.items() if row["candidates"] == ["roaming"]} == {
            ROWS[i]["id"] for i in (1, 2, 3, 4)
        }
        assert rows[ROWS[1]["id"]] == later[ROWS[1]["id"]]


@pytest.mark.parametrize("second", ['{"candidates": []}', "no idea", status(400, message="no")])
def test_a_second_answer_that_names_no_label_leaves_the_first(tmp_path, tiny_bert, second):
    def said(body):
        return second if len(body["messages"]) > 2 else answer(body)

    with ChatServer(answer=said) as server:
        config = config_of(tmp_path, server, tiny_bert, (0, "roaming", "doubtful"))
        published(config)
        rows, _ = annotated(with_reask(config))
    assert {tuple(row["candidates"]) for row in rows.values()} == {("outage", "slow_speed")}


def test_a_budget_that_ends_in_the_second_asking_leaves_those_texts_for_the_next_run(tmp_path, tiny_bert):
    prices = {"prices": [{"model": "m", "input_usd": 1000.0, "output_usd": 1000.0}]}
    with ChatServer(answer=answer) as server:
        config = config_of(tmp_path, server, tiny_bert, (0, "roaming", "doubtful"), budget=prices)
        published(config)
        _, first = annotated(config)
        plan, (shard,) = plan_annotation(with_reask(config)), ingest_corpus(config).texts
        report = annotate_shard(plan, shard, allowance_usd=first.usage.cost_usd + 0.01)
        assert (report.n_left, report.annotations.rows) == (3, 3)
        assert annotate_shard(plan, shard).n_left == 0


def test_asking_again_needs_reviewed_texts_a_version_and_a_teacher_that_reads(tmp_path, tiny_bert):
    with ChatServer(answer=answer) as server:
        bare = config_of(tmp_path, server, tiny_bert)
        with pytest.raises(ConfigError, match="--reask: found no reviewed texts"):
            with_reask(bare)
        config = config_of(tmp_path, server, tiny_bert, (0, "roaming", "doubtful"))
        with pytest.raises(StoreError, match="no version of it"):
            with_reask(config)
        published(config)
        replayed = demo_config(tmp_path, n=6, audit=config.audit.model_dump())
        with pytest.raises(ConfigError, match=r"reask\.versions: found teacher\.kind replay, wanted openai"):
            plan_annotation(with_reask(replayed))
        unknown = config.model_copy(update={"reask": config.reask.model_copy(update={"versions": ("0" * 16,)})})
        with pytest.raises(ConfigError, match=r"reask\.versions 0000000000000000: found no version"):
            plan_annotation(unknown)
