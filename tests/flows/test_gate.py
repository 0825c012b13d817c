"""A misconfigured run is stopped after its first shard, and costs no more than that."""

import json
import time

import pytest

from candist_core.edges.store import open_store
from candist_core.errors import ConfigError, GateError
from candist_core.stages.ingest import ingest_corpus
from flows.label_corpus import label_corpus
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config
from tests.flows.test_label_corpus import answers_by_text, labels_of

pytestmark = pytest.mark.flow


def live(folder, server, **checks):
    """400 texts in shards of 60 at a paid endpoint, for two workers."""
    teacher = {"kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None}
    return demo_config(
        folder,
        n=400,
        epochs=1,
        source={"shard_rows": 60},
        teacher={**teacher, "api_key_env": "TEST_KEY"},
        checks=checks,
    )


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")


def test_answers_that_name_no_label_are_paid_for_in_the_first_shard_only(tmp_path, prefect_server):
    with ChatServer(answer=lambda body: "no idea", latency_s=0.02) as server:
        config = live(tmp_path, server)
        first = ingest_corpus(config).texts[0]
        with pytest.raises(GateError, match=r"annotations\.unparsed_rate: observed 100 % \(60 of 60\)"):
            label_corpus(config)
        assert len(server.requests) == first.rows == 60
        time.sleep(1)
        assert len(server.requests) == 60, "nothing is sent after the end"
        with pytest.raises(GateError, match="unparsed_rate"):
            label_corpus(config)
        assert len(server.requests) == 60, "a run again finds what was wrong before it asks"
    assert not (tmp_path / "published").exists()


def test_a_flow_started_by_whomever_looks_before_it_asks_for_what_it_would_find_when_all_is_paid(
    tmp_path, prefect_server
):
    wrong = {
        "name": "x",
        "on": "labels",
        "expectation": "ExpectColumnValuesToBeBetween",
        "arguments": '{"column": "no"}',
    }
    with ChatServer(answer=lambda body: "no idea") as server:
        config = live(tmp_path, server, expectations=[wrong])
        with pytest.raises(ConfigError, match="no"):
            label_corpus(config)
        assert server.requests == []
    assert not (tmp_path / "work").exists()


def test_a_shard_that_goes_wrong_later_stops_those_that_run_and_those_to_come(tmp_path, prefect_server):
    said, bad = answers_by_text(400), {}
    with ChatServer(answer=lambda body: bad.get(user_text(body), said[user_text(body)]), latency_s=0.02) as server:
        config = live(tmp_path, server)
        shards = ingest_corpus(config).texts
        second = open_store(config.store).read_table(shards[1])["text"].to_list()
        bad.update(dict.fromkeys(second, "no idea"))
        with pytest.raises(GateError, match="unparsed_rate"):
            label_corpus(config)
        assert 120 <= len(server.requests) <= 240, "the first, the second, and what ran beside it"


def test_a_check_named_to_warn_lets_the_same_run_go_on(tmp_path, prefect_server):
    answer = json.dumps({"candidates": ["outage"]})
    with ChatServer(answer=lambda body: answer if len(user_text(body)) % 3 else "no idea") as server:
        # Of the sample corpus few texts are about an outage, as its gold tells.
        checks = ("annotations.unparsed_rate", "run.unparsed_rate", "run.identical_rate", "quality.weak-coverage")
        entries = [{"check": check, "on_fail": "warn"} for check in checks]
        loose = {"max_review_rate": 1.0, "max_out_of_set_rate": 1.0, "max_absent_rate": 1.0, "min_agreement": 0.0}
        config = live(tmp_path, server, on_fail_by_check=entries, **loose)
        published = label_corpus(config)
    assert labels_of(config).height == 400
    failed = {check.name for check in published.manifest.checks if not check.passed}
    assert failed == set(checks)
