"""Kept replies as a recording: labelled again from it, a corpus gets the same candidate sets for nothing."""

import json

import pytest

from candist_core.edges.replay_teacher import read_replies
from candist_core.edges.store import open_store
from candist_core.errors import SourceError, StoreError, TeacherError
from candist_core.ports import Reply
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.replies import export_replies
from candist_core.stages.teachers import open_reply_log
from candist_core.teacher_config import TeacherKind
from tests.fakes import ChatServer, reply, user_text
from tests.flows.corpora import demo_config, demo_rows, write_jsonl

# What models send: JSON, prose, a fence, a scored list, nothing, a refusal, nonsense, line breaks, other scripts.
ANSWERS = [
    '{"candidates": ["outage", "billing_dispute"]}',
    'Sure! ```json\n{"candidates": ["outage"]}\n```',
    '{"candidates": []}',
    '[{"label": "outage", "score": 0.75}, {"label": "slow_speed", "score": 0.25}]',
    "I'm sorry, I cannot help with that.",
    '\u2028 "ünï" \\ \x00 \t 標籤\r\n',
    "",
]


def paid_config(folder, server, n=20, shard_rows=8):
    folder.mkdir(exist_ok=True)
    teacher = {
        "kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
        "max_in_flight": 4,
    }  # fmt: skip
    config = demo_config(folder, n=n, source={"shard_rows": shard_rows}, teacher=teacher, checks={"on_fail": "warn"})
    # The slice's own recording is not to be mistaken for the exported one.
    (folder / "replies.jsonl").unlink()
    return config


def replay_config(config, folder, recording):
    """The same corpus and task, answered from a recording, in a store of its own."""
    teacher = config.teacher.model_copy(
        update={"kind": TeacherKind.REPLAY, "replies_uri": str(recording), "base_url": None}
    )
    store = config.store.model_copy(update={"uri": str(folder / "replayed")})
    return config.model_copy(update={"teacher": teacher, "store": store})


def annotations(config):
    """Ids, candidates, scores and statuses of a run's shards, and how many replies each asked for."""
    plan, store = plan_annotation(config), open_store(config.store)
    reports = [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]
    columns = ["doc_id", "candidates", "scores", "status"]
    return [store.read_table(report.annotations, columns).to_dict(as_series=False) for report in reports]


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")


def answered_by_turns(n=20):
    """A server that gives row i of the corpus the answer i mod 7."""
    order = {row["text"]: i for i, row in enumerate(demo_rows(n))}
    return ChatServer(answer=lambda body: ANSWERS[order[user_text(body)] % len(ANSWERS)])


@pytest.mark.slow
def test_labelled_again_from_the_exported_replies_a_corpus_gets_the_same_candidates_scores_and_statuses(tmp_path):
    with answered_by_turns() as server:
        config = paid_config(tmp_path / "run", server)
        paid = annotations(config)
    out = tmp_path / "replies.jsonl"
    assert export_replies(config, out) == 20
    assert annotations(replay_config(config, tmp_path, out)) == paid
    statuses = [status for shard in paid for status in shard["status"]]
    assert set(statuses) == {"ok", "abstained", "refused", "unparsed"}


@pytest.mark.slow
def test_the_lines_are_the_raw_replies_in_the_order_of_the_corpus_over_all_shards(tmp_path):
    with answered_by_turns() as server:
        config = paid_config(tmp_path / "run", server)
        annotations(config)
    export_replies(config, out := tmp_path / "replies.jsonl")
    wanted = [{"id": row["id"], "reply": ANSWERS[i % 7]} for i, row in enumerate(demo_rows(20))]
    assert lines_of(out) == wanted
    read = read_replies(out.read_bytes(), "x").by_id
    assert {place: found.reply for place, found in read.items()} == {(row["id"], 0): row["reply"] for row in wanted}


@pytest.mark.slow
def test_exporting_a_replayed_run_gives_the_same_file_again(tmp_path):
    with answered_by_turns() as server:
        config = paid_config(tmp_path / "run", server)
        annotations(config)
    export_replies(config, first := tmp_path / "first.jsonl")
    annotations(replayed := replay_config(config, tmp_path, first))
    export_replies(replayed, second := tmp_path / "second.jsonl")
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.slow
def test_equal_texts_have_one_line_between_them_which_is_enough_to_label_them_again(tmp_path):
    with ChatServer() as server:
        config = paid_config(tmp_path / "run", server, n=6)
        rows = demo_rows(6)
        write_jsonl(tmp_path / "run" / "corpus.jsonl", [*rows, *(row | {"id": f"{row['id']}-b"} for row in rows)])
        paid = annotations(config)
    assert export_replies(config, tmp_path / "replies.jsonl") == 6
    assert annotations(replay_config(config, tmp_path, tmp_path / "replies.jsonl")) == paid


@pytest.mark.slow
def test_how_a_reply_ended_stands_beside_it_unless_it_just_stopped(tmp_path):
    with ChatServer(answer=lambda body: reply("no, thank you", finish_reason="content_filter")) as server:
        config = paid_config(tmp_path / "run", server, n=1)
        annotations(config)
    export_replies(config, out := tmp_path / "replies.jsonl")
    (line,) = lines_of(out)
    assert line == {"id": demo_rows(1)[0]["id"], "reply": "no, thank you", "finish_reason": "content_filter"}


@pytest.fixture
def config(tmp_path):
    """A run over four texts that is read into shards of two, with no reply yet."""
    (tmp_path / "run").mkdir()
    teacher = {"kind": "openai", "replies_uri": None}
    config = demo_config(tmp_path / "run", n=4, source={"shard_rows": 2}, teacher=teacher)
    ingest_corpus(config)
    return config


def keep(config, rows, text='{"candidates": ["outage"]}'):
    """Bring a reply to each of the rows into the run's log."""
    plan = plan_annotation(config)
    role = plan.roles[0]
    log = open_reply_log(plan, role, open_store(config.store), "00000")
    for row in rows:
        log.append(Reply(role.prompt.request(row["id"], row["text"]).key, row["id"], text, "stop"))
    log.close()


def test_of_a_run_that_is_half_done_the_replies_there_are_come_out(tmp_path, config):
    rows = demo_rows(4)
    keep(config, [rows[3], rows[0]])
    assert export_replies(config, tmp_path / "replies.jsonl") == 2
    assert [line["id"] for line in lines_of(tmp_path / "replies.jsonl")] == [rows[0]["id"], rows[3]["id"]]


def test_replies_to_another_prompt_or_to_texts_outside_the_corpus_stay_out(tmp_path, config):
    rows = demo_rows(5)
    other_task = config.task.model_copy(update={"instruction": "Sort messages by mood."})
    keep(config.model_copy(update={"task": other_task}), rows[:4], "other")
    keep(config, [rows[1], rows[4]])
    assert export_replies(config, tmp_path / "replies.jsonl") == 1
    assert lines_of(tmp_path / "replies.jsonl") == [{"id": rows[1]["id"], "reply": '{"candidates": ["outage"]}'}]


def test_a_reply_paid_for_an_equal_text_of_another_run_comes_out_under_this_corpus_id(tmp_path, config):
    first = demo_rows(1)[0]
    keep(config, [first | {"id": "another corpus's id"}])
    export_replies(config, tmp_path / "replies.jsonl")
    assert lines_of(tmp_path / "replies.jsonl")[0]["id"] == first["id"]


def test_a_file_that_is_there_is_refused_in_one_sentence_and_stays_as_it_was(tmp_path, config):
    keep(config, demo_rows(4))
    out = tmp_path / "replies.jsonl"
    out.write_text("mine")
    with pytest.raises(StoreError, match=r"replies\.jsonl: found one that is there already"):
        export_replies(config, out)
    assert out.read_text() == "mine"


def test_a_file_that_appears_while_the_replies_are_written_is_not_replaced(tmp_path, config, monkeypatch):
    keep(config, demo_rows(4))
    out = tmp_path / "out" / "replies.jsonl"
    out.parent.mkdir()
    # The other writer comes with the last thing done before the name is given.
    monkeypatch.setattr("os.fsync", lambda file: out.write_text("theirs"))
    with pytest.raises(StoreError, match="there already"):
        export_replies(config, out)
    assert {path.name: path.read_text() for path in out.parent.iterdir()} == {"replies.jsonl": "theirs"}


def test_an_export_that_fails_half_way_leaves_nothing_behind(tmp_path, config):
    keep(config, demo_rows(4))
    second = ingest_corpus(config).texts[1]
    open_store(config.store).write_bytes(second.uri, b"x" * second.size_bytes)
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="other bytes than were written"):
        export_replies(config, tmp_path / "out" / "replies.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_corpus_that_no_run_has_read_and_a_run_without_replies_are_told_apart(tmp_path, config):
    with pytest.raises(TeacherError, match="kept replies of slice: found none"):
        export_replies(config, tmp_path / "replies.jsonl")
    changed = config.model_copy(update={"source": config.source.model_copy(update={"text": "id"})})
    with pytest.raises(SourceError, match="no run over its files as they are now"):
        export_replies(changed, tmp_path / "replies.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_missing_or_a_file_is_told_in_one_sentence(tmp_path, config):
    keep(config, demo_rows(4))
    with pytest.raises(StoreError, match="found no such folder"):
        export_replies(config, tmp_path / "none" / "replies.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        export_replies(config, tmp_path / "file" / "replies.jsonl")
