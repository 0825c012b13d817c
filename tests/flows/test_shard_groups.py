"""A corpus of many small shards on a real Prefect server: few tasks, every shard by itself.

300 shards by default, 5,000 with CANDIST_FULL=1 (`make test-full`).
"""

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from candist_core.config import RunConfig, parse_config
from candist_core.errors import TransientError
from candist_core.reports import Report
from candist_core.stages.annotate import find_annotations
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.tables import TableRef
from flows.label_corpus import label_corpus
from tasks.groups import ShardsError, run_group
from tests.flows.corpora import demo_config, write_jsonl

N_SHARDS = 5000 if os.environ.get("CANDIST_FULL") == "1" else 300


def tiny_shards(folder: Path, n: int) -> RunConfig:
    """A run over n shards of one text each."""
    config = demo_config(folder, n=1, source={"shard_rows": 1})
    names = ("slow_speed", "outage")
    texts = [f"message {i}: my line has been slow since {i % 12} o'clock" for i in range(n)]
    rows = [{"id": f"m{i}", "text": text, "gold": names[i % 2]} for i, text in enumerate(texts)]
    write_jsonl(folder / "corpus.jsonl", rows)
    replies = [{"id": row["id"], "reply": json.dumps({"candidates": [row["gold"]]})} for row in rows]
    write_jsonl(folder / "replies.jsonl", replies)
    # Two labels of a dozen are what this corpus is made of.
    return parse_config(config.model_dump(mode="json") | {"checks": {"on_fail": "warn"}})


def names_of_tasks(flow_run_id: str) -> list[str]:
    by_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    with get_client(sync_client=True) as client:
        return [run.name for run in client.read_task_runs(flow_run_filter=by_run)]


@pytest.mark.flow
def test_thousands_of_shards_are_a_handful_of_tasks_and_each_leaves_its_own_marker(tmp_path, prefect_server):
    config = tiny_shards(tmp_path, N_SHARDS)
    published = label_corpus(config)
    assert published.manifest.counts.rows == N_SHARDS
    names = names_of_tasks(published.manifest.run_id)
    assert len(names) < 60
    assert sum("shards)" in name for name in names if name.startswith("annotate")) >= 1
    ingested, plan = find_ingested(config), plan_annotation(config)
    assert ingested is not None
    assert len(ingested.texts) == N_SHARDS
    assert all(find_annotations(plan, shard) for shard in ingested.texts[::50])


class Done(Report):
    """What a shard of these tests reports."""

    n: int


SHARDS = [TableRef(f"texts/{i:06d}.parquet", "texts/1", 1, "", 1) for i in range(4)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Waits of a hundredth of their length; gives what is logged."""
    said: list[str] = []

    class Logger:
        def info(self, message: str, *values: Any) -> None:
            pass

        def warning(self, message: str, *values: Any) -> None:
            said.append(message % values)

    monkeypatch.setattr("tasks.groups._DELAYS_S", (0.02, 0.04, 0.08))
    # A run's logger wants a run.
    monkeypatch.setattr("tasks.groups.get_run_logger", Logger)
    return said


def test_a_shard_is_tried_four_times_and_the_others_of_its_group_once(impatient):
    tried: list[int] = []

    def work(i: int) -> Done:
        tried.append(i)
        if i == 1:
            raise TransientError("endpoint", "fell silent")
        return Done(n=i)

    with pytest.raises(ShardsError, match="1 of 4 shards failed: shard 000001: endpoint: fell silent") as caught:
        run_group("test", SHARDS, work, lambda: True, str)
    assert tried == [0, 1, 1, 1, 1, 2, 3]
    outcomes = caught.value.result.outcomes
    assert [getattr(outcome, "n", None) for outcome in outcomes] == [0, None, 2, 3]
    assert len(impatient) == 3


def test_a_shard_that_recovers_leaves_no_trace_but_a_line_of_the_log(impatient):
    failures = [TransientError("endpoint", "fell silent")]

    def work(i: int) -> Done:
        if failures:
            raise failures.pop()
        return Done(n=i)

    assert run_group("test", SHARDS, work, lambda: True, str).outcomes == tuple(Done(n=i) for i in range(4))
    assert impatient == ["shard 000000: endpoint: fell silent; again in 0 s"]


def test_a_group_that_nobody_waits_for_begins_no_further_shard(impatient):
    done: list[int] = []

    def work(i: int) -> Done:
        done.append(i)
        return Done(n=i)

    result = run_group("test", SHARDS, work, lambda: len(done) < 2, str)
    assert (done, len(result.outcomes), result.was_stopped) == ([0, 1], 2, True)


def test_a_wait_between_tries_ends_with_the_interest_in_the_shard(impatient, monkeypatch):
    monkeypatch.setattr("tasks.groups._DELAYS_S", (60.0,))
    looks: list[int] = []

    def is_wanted() -> bool:
        looks.append(1)
        return len(looks) < 3

    def work(i: int) -> Done:
        raise TransientError("endpoint", "fell silent")

    with pytest.raises(ShardsError):
        run_group("test", SHARDS, work, is_wanted, str)
