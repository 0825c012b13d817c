"""Loss of a whole machine in the middle of a shard: process and spool are gone, the store is all that is left.

Two losses by default, twenty with CANDIST_FULL=1 (`make test-full`).
"""

import os
import random
import shutil
import time

import pytest

from candist_core import annotate_shard, ingest_corpus, load_config, plan_annotation
from candist_core.asking import FLUSH_AFTER_S, FLUSH_REPLIES
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_labels, write_config, write_jsonl
from tests.stages.test_kills import start

N_LOSSES = 20 if os.environ.get("CANDIST_FULL") == "1" else 2
IN_FLIGHT, LATENCY_S = 16, 0.05
# What arrives while a flush is on its way to the store, which may take a third of a second.
MEANWHILE = int(0.3 * IN_FLIGHT / LATENCY_S)
# A loss comes after more requests than a loss may cost, so that a log that kept nothing would be found out.
BEFORE_LOSS = (450, 600)
N_TEXTS = BEFORE_LOSS[1] * N_LOSSES + 100
LABELS = [label["name"] for label in demo_labels()]


def answer(body):
    return f'{{"candidates": ["{LABELS[len(user_text(body)) % len(LABELS)]}"]}}'


def configured(folder, server):
    """One shard of distinct texts; the store is one folder, the machine's own disk another."""
    folder.mkdir()
    teacher = {
        "kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
        "max_in_flight": IN_FLIGHT,
    }  # fmt: skip
    store = {"spool_dir": str(folder / "machine")}
    config = demo_config(folder, n=1, source={"shard_rows": N_TEXTS}, teacher=teacher, store=store)
    rows = [{"id": f"{i}", "text": f"message {i} of a customer{'!' * (i % 7)}", "gold": ""} for i in range(N_TEXTS)]
    write_jsonl(folder / "corpus.jsonl", rows)
    return write_config(folder, config), folder / "machine"


def finished(path):
    """The bytes of the annotations, after running to the end in this process."""
    config = load_config(path)
    plan, (shard,) = plan_annotation(config), ingest_corpus(config).texts
    report = annotate_shard(plan, shard)
    assert report.usage.n_requests + report.usage.n_reused == N_TEXTS
    return (path.parent / "work" / report.annotations.uri).read_bytes()


@pytest.mark.slow
def test_a_lost_machine_costs_at_most_its_last_flush_and_what_was_in_flight_and_changes_no_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    window = min(FLUSH_REPLIES, int(FLUSH_AFTER_S * IN_FLIGHT / LATENCY_S))
    most_twice = window + MEANWHILE + IN_FLIGHT
    assert most_twice < BEFORE_LOSS[0]
    chance = random.Random(11)
    with ChatServer(answer=answer, latency_s=LATENCY_S) as server:
        path, machine = configured(tmp_path / "lost", server)
        for loss in range(N_LOSSES):
            process, before = start(path), len(server.requests)
            wanted = before + chance.randrange(*BEFORE_LOSS)
            while len(server.requests) < wanted and process.poll() is None:
                time.sleep(0.005)
            assert process.poll() is None, process.communicate()[1].decode()
            process.kill()
            process.communicate()
            assert list(machine.rglob("*.jsonl")), f"loss {loss} found no spool to lose"
            shutil.rmtree(machine)
        resumed = finished(path)
        n_twice = sum(count - 1 for count in server.counts.values())
        assert len(server.counts) == N_TEXTS
        # What was in flight is asked again, so a loss that costs nothing was none.
        assert N_LOSSES <= n_twice <= N_LOSSES * most_twice
        # One loss may cost a text a second request; none costs more.
        assert max(server.counts.values()) <= 1 + N_LOSSES
    with ChatServer(answer=answer) as server:
        path, _ = configured(tmp_path / "undisturbed", server)
        assert finished(path) == resumed
        assert set(server.counts.values()) == {1}
