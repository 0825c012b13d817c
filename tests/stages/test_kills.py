"""Kill -9 of a real process in the middle of a shard: nothing that was answered is asked again, and no byte differs.

Three kills by default, twenty with CANDIST_FULL=1 (`make test-full`).
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from candist_core import annotate_shard, ingest_corpus, load_config, plan_annotation
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config

N_KILLS = 20 if os.environ.get("CANDIST_FULL") == "1" else 3
N_TEXTS, IN_FLIGHT = 400, 16
WORK = """
import sys
from candist_core import annotate_shard, ingest_corpus, load_config, plan_annotation
config = load_config(sys.argv[1])
plan = plan_annotation(config)
for shard in ingest_corpus(config).texts:
    annotate_shard(plan, shard)
"""


def start(config_path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(config_path)], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_killed_runs_pay_again_only_for_what_was_in_flight_and_end_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    replies = {row["id"]: row["reply"] for row in demo_replies(N_TEXTS)}
    said = {row["text"]: replies[row["id"]] for row in demo_rows(N_TEXTS)}
    chance = random.Random(7)
    with ChatServer(answer=lambda body: said[user_text(body)], latency_s=0.05) as server:
        tables = []
        for name in ("killed", "undisturbed"):
            folder = tmp_path / name
            folder.mkdir()
            config = demo_config(
                folder,
                n=N_TEXTS,
                source={"shard_rows": N_TEXTS},
                teacher={
                    "kind": "openai", "base_url": server.base_url, "replies_uri": None,
                    "api_key_env": "TEST_KEY", "max_in_flight": IN_FLIGHT,
                },
            )  # fmt: skip
            path = write_config(folder, config)
            before = len(server.requests)
            if name == "killed":
                for kill in range(N_KILLS):
                    process = start(path)
                    # Somewhere in the part of the shard that the earlier kills left.
                    wanted = before + chance.randrange(1, N_TEXTS // N_KILLS) + kill * N_TEXTS // N_KILLS
                    while len(server.requests) < wanted and process.poll() is None:
                        time.sleep(0.005)
                    assert process.poll() is None, process.communicate()[1].decode()
                    process.kill()
                    process.communicate()
            config = load_config(path)
            plan = plan_annotation(config)
            reports = [annotate_shard(plan, shard) for shard in ingest_corpus(config).texts]
            tables.append([(folder / "work" / report.annotations.uri).read_bytes() for report in reports])
            assert sum(report.usage.n_requests + report.usage.n_reused for report in reports) == N_TEXTS
            asked = len(server.requests) - before
            most = N_TEXTS + (N_KILLS * IN_FLIGHT if name == "killed" else 0)
            assert N_TEXTS <= asked <= most
    assert tables[0] == tables[1]
