"""`candist quarantine`: what is listed, what asking anew costs and does, and what stays away for good."""

from pathlib import Path

import polars as pl
import pytest

from candist_core.config import load_config
from candist_core.edges.store import open_store
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.quarantine import list_quarantine, retry_rows
from candist_core.stages.verify import verify_annotations
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_rows, write_config
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence

pytestmark = pytest.mark.slow

N, SHARD_ROWS = 120, 60
GOOD = '{"candidates": ["outage"]}'


@pytest.fixture
def said():
    """What the teacher says to the texts of some rows; GOOD to the others."""
    return {}


@pytest.fixture
def server(said):
    text_of = {row["text"]: row["id"] for row in demo_rows(N)}
    with ChatServer(answer=lambda body: said.get(text_of[user_text(body)], GOOD)) as server:
        yield server


def configured(folder, server, **checks):
    teacher = {"kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None}
    return write_config(
        folder,
        demo_config(
            folder,
            n=N,
            source={"shard_rows": SHARD_ROWS},
            teacher=teacher,
            checks={"on_fail": "quarantine", "max_unparsed_rate": 0.02, **checks},
            budget={"prices": [{"model": "m", "input_usd": 1.0, "output_usd": 1.0}]},
        ),
    )


def annotate_all(path):
    config = load_config(path)
    plan = plan_annotation(config)
    return [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]


def rejects(path, reports):
    store = open_store(load_config(path).store)
    return pl.concat([store.read_table(report.rejects) for report in reports]).rows()


def ids(*numbers):
    return [demo_rows(N)[i]["id"] for i in numbers]


def test_rows_set_aside_are_listed_with_check_and_value_and_asked_anew_by_the_next_run(candist, tmp_path, server, said):
    path = configured(tmp_path, server)
    odd = ids(3, 7, 100)
    said.update(dict.fromkeys(odd, "no idea"))
    reports = annotate_all(path)
    # In the second shard one of 60 is below the bound.
    assert [row[0] for row in rejects(path, reports)] == odd[:2]
    code, _, _ = candist("quarantine", "list", path, "--out", tmp_path / "q.csv")
    assert code == 0
    assert pl.read_csv(tmp_path / "q.csv").rows() == [
        (doc_id, "annotations.unparsed_rate", "unparsed", "quarantine") for doc_id in odd[:2]
    ]
    code, shown, _ = candist("quarantine", "list", path, "--id", odd[0])
    assert odd[0] in shown
    assert odd[1] not in shown

    said.clear()
    n_asked = len(server.requests)
    code, told, _ = candist("quarantine", "retry", path, "--yes")
    assert code == 0
    assert "2 rows; 2 replies to them are kept, asking anew costs about $0.00" in told
    assert len(server.requests) == n_asked == N, "nothing is asked before the next run"
    again = annotate_all(path)
    assert [user_text(body) for body in server.requests[N:]] == [demo_rows(N)[i]["text"] for i in (3, 7)]
    assert again[0].statuses == {"ok": 60}
    assert rejects(path, again) == []
    assert candist("quarantine", "list", path)[1] == "no row is in quarantine\n"
    assert verify_annotations(load_config(path)).n_differing == 0
    aside = pl.concat(pl.read_parquet(file) for file in (tmp_path / "work" / "set-aside").rglob("*.parquet"))
    assert aside["reply"].to_list() == ["no idea", "no idea"], "what was paid for is kept"


def test_rows_that_stopped_a_run_are_listed_and_may_be_asked_anew(candist, tmp_path, server, said):
    path = configured(tmp_path, server, on_fail="fail")
    said.update(dict.fromkeys(ids(*range(10)), "no idea"))
    annotate_all(path)
    assert candist("quarantine", "list", path, "--out", tmp_path / "q.csv")[0] == 0
    assert set(pl.read_csv(tmp_path / "q.csv")["on_fail"]) == {"fail"}
    said.clear()
    assert candist("quarantine", "retry", path, "--id", ids(4)[0], "--yes")[0] == 0
    annotate_all(path)
    assert len(server.requests) == N + 1


def test_dropped_rows_stay_out_as_rejects_and_are_never_asked_about_again(candist, tmp_path, server, said):
    path = configured(tmp_path, server)
    odd = ids(3, 7)
    said.update(dict.fromkeys(odd, "no idea"))
    annotate_all(path)
    code, told, _ = candist("quarantine", "drop", path, "--id", odd[0], "--yes")
    assert (code, told.splitlines()[0]) == (0, f"dropped 1 rows; next: candist run {path}")
    again = annotate_all(path)
    # 1 unparsed row of 59 is below the bound of 2 %.
    assert rejects(path, again) == [(odd[0], "check", "annotations.unparsed_rate", "dropped by hand: unparsed")]
    assert again[0].annotations.rows == 59
    config = load_config(path, ("task.instruction=Another prompt, so that all is asked again.",))
    shard = ingest_corpus(config).texts[0]
    assert annotate_shard(plan_annotation(config), shard).usage.n_requests == 59
    other = load_config(path, ("name=other",))
    assert annotate_shard(plan_annotation(other), shard).annotations.rows > 50, "another run decides for itself"


def test_a_sum_above_the_bound_needs_a_person_or_yes(candist, tmp_path, server, said):
    path = configured(tmp_path, server)
    said.update(dict.fromkeys(ids(3, 7), "no idea"))
    annotate_all(path)
    ended = candist("quarantine", "retry", path, "--set", "budget.confirm_above_usd=0")
    assert ended[0] == 2
    assert "pass --yes to accept it" in one_sentence(ended[2])
    assert candist("quarantine", "list", path, "--out", tmp_path / "q.csv")[0] == 0
    assert pl.read_csv(tmp_path / "q.csv").height == 2, "nothing was set aside"


def test_what_is_not_there_is_one_sentence(candist, tmp_path, server, said):
    path = configured(tmp_path, server)
    assert "run it first" in one_sentence(candist("quarantine", "list", path)[2])
    said.update(dict.fromkeys(ids(3, 7), "no idea"))
    annotate_all(path)
    ended = candist("quarantine", "drop", path, "--check", "annotations.unparsed", "--yes")
    assert "found no check 'annotations.unparsed', wanted one of 'annotations.unparsed_rate'" in one_sentence(ended[2])


def test_other_replies_keep_their_rank_when_some_are_set_aside(tmp_path, server, said):
    path = Path(configured(tmp_path, server))
    said.update(dict.fromkeys(ids(3, 7), "no idea"))
    before = annotate_all(path)
    config = load_config(path)
    assert retry_rows(config, list_quarantine(config)) == 2
    after = annotate_all(path)
    assert after[0].usage.n_reused == 58
    assert after[1] == before[1], "shards without such rows are left alone"
