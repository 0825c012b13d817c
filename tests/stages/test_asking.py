"""Ways to ask better, through the whole stage against a loopback endpoint: what is sent, and what becomes of it."""

import json
import logging
import shutil

import polars as pl
import pytest

from candist_core.batch import BatchPace
from candist_core.edges.batch_teacher import BatchTeacher
from candist_core.edges.store import open_store
from candist_core.errors import CandistError
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.estimate import estimate_run
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.verify import verify_annotations
from candist_core.teacher_config import Combine, ShotChoice, TeacherMode
from tests.batch_server import BatchServer
from tests.fakes import ChatServer, Step, reply, status, user_text
from tests.flows.corpora import demo_config, demo_rows, write_jsonl


def config_of(folder, server, n=6, **teacher):
    """A run over the first n demo rows with an openai teacher at the loopback server, and checks that only warn."""
    known = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "model": "first", "max_in_flight": 4}
    return demo_config(folder, n=n, teacher=known | teacher, checks={"on_fail": "warn"})


def beside(config, combine, **changes):
    """The same run with a second teacher, model `second`."""
    second = config.teacher.model_copy(update={"model": "second", **changes})
    return config.model_copy(update={"more_teachers": (second,), "combine": Combine(combine)})


def rows_of(config):
    """The annotations of all shards, as dictionaries by doc_id, and their reports."""
    plan, store = plan_annotation(config), open_store(config.store)
    reports = [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]
    rows = [row for report in reports for row in store.read_table(report.annotations).to_dicts()]
    return {row["doc_id"]: row for row in rows}, reports


def said(*labels, **more):
    return json.dumps({**more, "candidates": list(labels)})


def by_model(answers):
    return lambda body: answers[body["model"]](body) if callable(answers[body["model"]]) else answers[body["model"]]


def test_samples_are_asked_one_by_one_and_their_votes_become_scores(tmp_path):
    draws = iter([said("outage"), said("outage", "slow_speed"), said("slow_speed"), said("outage")])
    with ChatServer(answer=lambda body: next(draws)) as server:
        config = config_of(tmp_path, server, n=1, samples=4, temperature=0.7, max_in_flight=1)
        rows, (report,) = rows_of(config)
        assert len(server.requests) == report.usage.n_requests == 4
        assert {request["temperature"] for request in server.requests} == {0.7}
    (row,) = rows.values()
    assert (row["candidates"], row["scores"]) == (["outage", "slow_speed"], [0.75, 0.5])


def test_a_second_run_of_samples_asks_only_those_that_are_missing(tmp_path):
    with ChatServer(answer=lambda body: said("outage")) as server:
        rows_of(config_of(tmp_path, server, n=3, samples=2, temperature=0.7))
        rows_of(config_of(tmp_path, server, n=3, samples=5, temperature=0.7))
        assert len(server.requests) == 3 * 5


def test_a_cascade_asks_the_second_teacher_only_where_the_first_was_unsure(tmp_path):
    unsure = {row["text"] for row in demo_rows(6)[:2]}
    answers = {
        "first": lambda body: said("outage", "slow_speed") if user_text(body) in unsure else said("outage"),
        "second": said("slow_speed"),
    }
    with ChatServer(answer=by_model(answers)) as server:
        config = beside(config_of(tmp_path, server), "cascade")
        rows, (report,) = rows_of(config)
        models = [request["model"] for request in server.requests]
        assert (models.count("first"), models.count("second")) == (6, 2)
        assert report.usage.n_requests == 8
        assert verify_annotations(config).n_differing == 0
        assert len(server.requests) == 8
    by_text = {row["text"]: rows[row["id"]] for row in demo_rows(6)}
    assert all(row["candidates"] == ["slow_speed" if text in unsure else "outage"] for text, row in by_text.items())
    assert {row["teacher"] for row in rows.values()} == {"cascade:openai:first+openai:second"}


def test_a_union_keeps_every_teachers_labels_and_a_vote_orders_them(tmp_path):
    answers = {"first": said("outage", "slow_speed"), "second": said("slow_speed")}
    with ChatServer(answer=by_model(answers)) as server:
        for combine, labels in (("union", ["outage", "slow_speed"]), ("vote", ["slow_speed", "outage"])):
            rows, _ = rows_of(beside(config_of(tmp_path, server), combine))
            assert {tuple(row["candidates"]) for row in rows.values()} == {tuple(labels)}
        # The second way of combining asked nothing anew.
        assert len(server.requests) == 12


def test_a_cap_holds_over_both_teachers(tmp_path):
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = beside(config_of(tmp_path, server, model="gpt-4o-mini"), "union", model="gpt-4o")
        plan, (shard,) = plan_annotation(config), ingest_corpus(config).texts
        whole = annotate_shard(plan, shard).usage.cost_usd
        config = config.model_copy(update={"store": config.store.model_copy(update={"uri": str(tmp_path / "capped")})})
        plan, (shard,) = plan_annotation(config), ingest_corpus(config).texts
        report = annotate_shard(plan, shard, allowance_usd=whole * 0.9)
        assert 0 < report.usage.cost_usd <= whole * 0.9
        assert report.n_left > 0
        assert annotate_shard(plan, shard, allowance_usd=whole * 2).n_left == 0
        assert len(server.requests) == 24


@pytest.mark.parametrize("choice", ["fixed", "balanced"])
def test_examples_stand_in_the_prompt_of_every_text(tmp_path, choice):
    shots = [{"text": "all lights are out", "label": "outage"}, {"text": "it crawls", "label": "slow_speed"}]
    uri = write_jsonl(tmp_path / "shots.jsonl", shots)
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = config_of(tmp_path, server)
        shown = config.shots.model_copy(update={"uri": str(uri), "choice": ShotChoice(choice), "n": 2})
        rows_of(config.model_copy(update={"shots": shown}))
        assert len(server.requests) == 6
        for request in server.requests:
            roles = [message["role"] for message in request["messages"]]
            assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
            examples = {
                (request["messages"][i]["content"].split("\n")[1], request["messages"][i + 1]["content"])
                for i in (1, 3)
            }
            assert examples == {("all lights are out", said("outage")), ("it crawls", said("slow_speed"))}


@pytest.mark.slow
def test_the_nearest_examples_differ_by_text_and_stay_the_same_in_the_next_run(tmp_path):
    labelled = [{"text": row["text"], "label": row["gold"]} for row in demo_rows(60)[6:]]
    uri = write_jsonl(tmp_path / "shots.jsonl", labelled)
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = config_of(tmp_path, server)
        shown = config.shots.model_copy(update={"uri": str(uri), "choice": ShotChoice.NEAREST, "n": 2})
        config = config.model_copy(update={"shots": shown})
        rows_of(config)
        shown_to = [tuple(m["content"] for m in request["messages"][1:-1]) for request in server.requests]
        assert len(set(shown_to)) > 1
        assert verify_annotations(config).n_rows == 6
        assert verify_annotations(config).n_differing == 0


def test_a_long_text_is_cut_before_it_is_asked(tmp_path):
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = config_of(tmp_path, server, n=1, max_text_tokens=16)
        write_jsonl(
            tmp_path / "corpus.jsonl", [{"id": "1", "text": "begin " + "x" * 10_000 + " end", "gold": "outage"}]
        )
        rows_of(config)
        (request,) = server.requests
    text = user_text(request)
    assert text.startswith("begin")
    assert text.endswith("end")
    assert len(text.encode()) <= 16 * 4


def test_a_text_too_long_for_the_endpoint_is_asked_once_more_cut_and_paid_once(tmp_path):
    def answer(body: dict) -> str | Step:
        if len(user_text(body)) > 3000:
            return status(400, code="context_length_exceeded")
        return said("outage")

    with ChatServer(answer=answer) as server:
        config = config_of(tmp_path, server, n=1)
        texts = {"short": "hello", "long": "word " * 1000, "endless": "word " * 3000}
        write_jsonl(tmp_path / "corpus.jsonl", [{"id": i, "text": text, "gold": "outage"} for i, text in texts.items()])
        rows, (report,) = rows_of(config)
        assert {i: row["status"] for i, row in rows.items()} == {"short": "ok", "long": "ok", "endless": "failed"}
        assert report.usage.n_requests == 2
        assert len(server.requests) == 1 + 2 + 2
        (rejected,) = open_store(config.store).read_table(report.rejects).to_dicts()
        assert (rejected["doc_id"], rejected["reason"]) == ("endless", "context_length_exceeded")
        assert verify_annotations(config).n_differing == 0
        # Lost tables are made again from what is kept, and only the endless text is asked.
        (tmp_path / "work" / report.annotations.uri).unlink()
        rows_of(config)
        assert len(server.requests) == 5 + 2


def test_thoughts_come_before_the_labels_and_name_none(tmp_path):
    answer = said("slow_speed", reasoning="It could be outage, but no.")
    with ChatServer(answer=lambda body: answer) as server:
        rows, _ = rows_of(config_of(tmp_path, server, reasoning=True))
        schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reasoning", "candidates"]
    assert {tuple(row["candidates"]) for row in rows.values()} == {("slow_speed",)}


def test_log_probabilities_become_scores_where_the_endpoint_gives_them(tmp_path, caplog):
    text = '{"candidates": ["outage"]}'
    tokens = [("{", 0.0), ('"candidates": ["', 0.0), ("out", -0.5), ("age", -0.25), ('"]}', 0.0)]
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": content}}
    body = Step("raw", text=json.dumps({"choices": [choice]}), headers={"content-type": "application/json"})
    steps = iter([body, reply(text)])
    with ChatServer(answer=lambda body: next(steps)) as server, caplog.at_level(logging.WARNING):
        rows, _ = rows_of(config_of(tmp_path, server, n=2, logprobs=True, max_in_flight=1))
        assert all(request["logprobs"] is True for request in server.requests)
    first, second = rows.values()
    assert first["scores"] == pytest.approx([2.718281828**-0.75])
    assert second["scores"] is None
    assert "1 replies of 00000 came without usable log-probabilities" in caplog.text


def test_a_changed_reply_is_found_by_verification_and_named(tmp_path):
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = config_of(tmp_path, server)
        rows, _ = rows_of(config)
        assert verify_annotations(config).model_dump() == {
            "n_shards": 1, "n_shards_left": 0, "n_rows": 6, "n_differing": 0, "differing": (),
        }  # fmt: skip
        (chunk,) = (tmp_path / "work" / "replies").glob("*/*.parquet")
        frame = pl.read_parquet(chunk)
        key = rows[demo_rows(6)[2]["id"]]["request_key"]
        is_it = pl.col("request_key") == key
        frame.with_columns(reply=pl.when(is_it).then(pl.lit(said("slow_speed"))).otherwise("reply")).write_parquet(
            chunk
        )
        found = verify_annotations(config)
    assert (found.n_differing, found.differing) == (1, (demo_rows(6)[2]["id"],))


def test_an_estimate_counts_samples_teachers_and_what_kept_replies_measured(tmp_path):
    with ChatServer(answer=lambda body: said("outage")) as server:
        config = config_of(tmp_path, server, model="gpt-4o-mini")
        one = estimate_run(config)
        both = estimate_run(beside(config, "union", model="gpt-4o"))
        drawn = config.teacher.model_copy(update={"samples": 3, "temperature": 0.5})
        three = estimate_run(config.model_copy(update={"teacher": drawn}))
        assert (one.calls.n_calls, both.calls.n_calls, three.calls.n_calls) == (6, 12, 18)
        assert both.cost_usd > one.cost_usd
        assert not one.calls.is_measured
        assert server.requests == []
        rows_of(config)
        again = estimate_run(beside(config, "union", samples=2, temperature=0.5))
        assert (again.n_kept, again.calls.n_calls) == (6, 12)
    halved = config.teacher.model_copy(update={"mode": TeacherMode.BATCH})
    assert estimate_run(config.model_copy(update={"name": "other", "teacher": halved})).n_kept == 6


def test_a_batch_whose_replies_the_store_would_not_take_is_brought_again_and_not_paid_again(tmp_path, monkeypatch):
    haste = BatchPace(quiet_s=0.01, poll_s=0.002, max_poll_s=0.01, settle_s=0.05, max_silence_s=2.0)
    with BatchServer() as server:
        config = config_of(tmp_path, server, mode=TeacherMode.BATCH)
        # Its own waits are those of batches that take hours.
        monkeypatch.setattr(
            "candist_core.stages.annotate.open_teacher",
            lambda plan, role, store, part, *rest: BatchTeacher(role.teacher, "key", None, store, part, pace=haste),
        )
        in_the_way = tmp_path / "work" / "replies"
        server.hooks["content"] = lambda when: in_the_way.touch()
        with pytest.raises(CandistError):
            rows_of(config)
        server.hooks.clear()
        in_the_way.unlink()
        # As on another machine.
        shutil.rmtree(tmp_path / "work" / "spool")
        rows, _ = rows_of(config)
        assert {row["status"] for row in rows.values()} == {"ok"}
        assert server.sizes == [6]
    assert not list((tmp_path / "work").glob("batches/*/*/*.json"))
