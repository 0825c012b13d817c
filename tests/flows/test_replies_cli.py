"""`candist verify` and `candist replies export`: what they say, what they write, how they end."""

import json
from pathlib import Path

import polars as pl
import pytest

from candist_core import load
from candist_core.config import load_config
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from flows.server import quiet_environment
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_rows, write_config, write_jsonl
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence
from tests.student.conftest import tiny_bert as tiny_bert

N, SHARD_ROWS = 20, 8
# Sets of one and two labels, prose around JSON, an abstention, a refusal, nonsense, line breaks and other scripts.
ANSWERS = [
    '{"candidates": ["outage", "billing_dispute"]}',
    'Sure! ```json\n{"candidates": ["slow_speed"]}\n```',
    '{"candidates": []}',
    "I'm sorry, I cannot help with that.",
    '\u2028 "ünï" \\ 標籤\r\n',
]


@pytest.fixture
def server():
    order = {row["text"]: i for i, row in enumerate(demo_rows(N))}
    with ChatServer(answer=lambda body: ANSWERS[order.get(user_text(body), 0) % len(ANSWERS)]) as server:
        yield server


def configured(folder, server, **changes):
    """The configuration of a run over 20 texts in shards of 8, with a paid teacher that needs no key."""
    teacher = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "max_in_flight": 4}
    changes = {"checks": {"on_fail": "warn", "min_agreement": 0.0}, **changes}
    config = demo_config(folder, n=N, epochs=1, source={"shard_rows": SHARD_ROWS}, teacher=teacher, **changes)
    # The slice's own recording is not to be mistaken for an exported one.
    (folder / "replies.jsonl").unlink()
    return write_config(folder, config)


def annotated(path, *sets, n_shards=None):
    """Annotate shards of a run; candidates, scores and status by doc_id."""
    config = load_config(path, sets)
    plan, rows = plan_annotation(config), {}
    for shard in ingest_corpus(config).texts[:n_shards]:
        table = Path(config.store.uri) / annotate_shard(plan, shard).annotations.uri
        for row in pl.read_parquet(table).iter_rows(named=True):
            rows[row["doc_id"]] = (row["candidates"], row["scores"], row["status"])
    return rows


def tamper(folder, doc_id, reply):
    """Put another reply in the place of that to one row."""
    (chunk,) = (
        path for path in (folder / "work" / "replies").glob("*/*.parquet") if doc_id in pl.read_parquet(path)["doc_id"]
    )
    other = pl.when(pl.col("doc_id") == doc_id).then(pl.lit(reply)).otherwise("reply")
    pl.read_parquet(chunk).with_columns(reply=other).write_parquet(chunk)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_good_run_verifies_offline_and_nothing_is_changed(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path)
    before, n_asked = contents(tmp_path), len(server.requests)
    assert candist("verify", path) == (0, "20 rows of 3 shards are what the kept replies say\n", "")
    assert contents(tmp_path) == before
    assert len(server.requests) == n_asked == N


@pytest.mark.slow
def test_of_a_run_that_is_half_done_what_is_there_is_verified_and_the_rest_counted(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path, n_shards=1)
    code, out, _ = candist("verify", path)
    assert code == 0
    assert out == "8 rows of 1 shards are what the kept replies say; 2 shards are not annotated yet\n"


@pytest.mark.slow
@pytest.mark.parametrize("doc_id", [demo_rows(N)[9]["id"], "[red]9[/red] \x1b[31m"], ids=["plain", "hostile"])
def test_a_changed_reply_ends_verification_with_code_2_and_one_sentence_that_names_its_row(
    candist, tmp_path, server, doc_id
):
    path = configured(tmp_path, server)
    rows = demo_rows(N)
    write_jsonl(tmp_path / "corpus.jsonl", [*rows[:9], rows[9] | {"id": doc_id}, *rows[10:]])
    annotated(path)
    tamper(tmp_path, doc_id, '{"candidates": ["roaming"]}')
    code, out, err = candist("verify", path)
    assert (code, out) == (2, "")
    sentence = one_sentence(err)
    assert sentence.startswith(
        f"candist: stored annotations: found 1 of 20 rows that differ, the first are {doc_id!r}, "
        "wanted what the kept replies say; "
    )


@pytest.mark.slow
def test_a_reply_changed_to_the_same_meaning_is_no_difference(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path)
    tamper(tmp_path, demo_rows(N)[1]["id"], '{"candidates": ["slow_speed"]}')
    assert candist("verify", path)[0] == 0


@pytest.mark.slow
def test_lost_replies_are_told_with_all_rows_that_rest_on_them(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path)
    (chunk, *_) = sorted((tmp_path / "work" / "replies").glob("*/*.parquet"))
    lost = pl.read_parquet(chunk)["doc_id"].to_list()
    chunk.unlink()
    code, _, err = candist("verify", path)
    assert code == 2
    sentence = one_sentence(err)
    assert f"found {len(lost)} of 20 rows that differ" in sentence
    assert all(repr(doc_id) in sentence for doc_id in lost)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replies", "annotations"])
def test_a_damaged_table_is_named_by_its_file(candist, tmp_path, server, kind):
    path = configured(tmp_path, server)
    annotated(path)
    table = next(path for path in sorted((tmp_path / "work" / kind).rglob("*.parquet")) if "rejects" not in path.name)
    table.write_bytes(table.read_bytes()[::-1])
    code, _, err = candist("verify", path)
    assert code == 2
    assert table.name in one_sentence(err)


@pytest.mark.slow
def test_the_export_says_how_many_replies_it_wrote_and_holds_them_raw_in_the_corpus_order(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path)
    assert candist("replies", "export", path, "--out", "out.jsonl") == (0, "wrote 20 replies to out.jsonl\n", "")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    wanted = [{"id": row["id"], "reply": ANSWERS[i % len(ANSWERS)]} for i, row in enumerate(demo_rows(N))]
    assert [json.loads(line) for line in lines] == wanted


@pytest.mark.slow
def test_the_export_overwrites_nothing(candist, tmp_path, server):
    path = configured(tmp_path, server)
    annotated(path, n_shards=1)
    (tmp_path / "out.jsonl").write_text("mine")
    code, out, err = candist("replies", "export", path, "--out", "out.jsonl")
    assert (code, out) == (2, "")
    assert "out.jsonl: found one that is there already" in one_sentence(err)
    assert (tmp_path / "out.jsonl").read_text() == "mine"


@pytest.mark.parametrize("command", [("verify",), ("replies", "export")])
def test_before_any_run_there_is_nothing_to_verify_or_export(candist, tmp_path, server, command):
    path = configured(tmp_path, server)
    out = ("--out", "out.jsonl") if command[0] == "replies" else ()
    code, _, err = candist(*command, path, *out)
    assert code == 2
    assert "run it first" in one_sentence(err)
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("command", [("verify",), ("replies", "export")])
def test_both_explain_themselves_with_an_example(candist, command):
    code, out, _ = candist(*command, "--help")
    assert code == 0
    assert f"candist {' '.join(command)} candist.yaml" in out


@pytest.mark.flow
def test_a_run_replayed_from_its_export_sends_nothing_and_publishes_the_same_candidates(
    candist, tmp_path, server, prefect_server, tiny_bert, monkeypatch
):
    # What the command sets for its own process must not stay in this one.
    for name, value in quiet_environment().items():
        monkeypatch.setenv(name, value)
    path = configured(tmp_path, server, student={"model": str(tiny_bert), "max_tokens": 32})
    code, out, err = candist("run", path, "--quiet")
    assert code == 0, err
    assert "20 texts" in out
    assert candist("verify", path)[0] == 0
    assert candist("replies", "export", path, "--out", "out.jsonl")[0] == 0
    assert len(server.requests) == N
    sets = ("teacher.kind=replay", "teacher.replies_uri=out.jsonl", "store.uri=again", "publish.dataset=again")
    options = [word for one in sets for word in ("--set", one)]
    code, out, err = candist("run", path, "--quiet", *options)
    assert code == 0, err
    assert candist("verify", path, *options)[0] == 0
    assert len(server.requests) == N
    assert candist("replies", "export", path, *options, "--out", "second.jsonl")[0] == 0
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert annotated(path, *sets) == annotated(path)
    paid, replayed = (load(f"published/{name}@1").collect() for name in ("slice", "again"))
    columns = ["doc_id", "candidates", "teacher_label"]
    assert replayed.select(columns).equals(paid.select(columns))
    assert set(paid["candidates"].list.len()) == {0, 1, 2}
