"""A run whose teacher reads a sample: rounds, the cap over all of them, what is told of texts that it did not read."""

import json
from pathlib import Path

import polars as pl
import pytest

from candist_core.config import Location, load_config
from candist_core.edges.store import open_store
from candist_core.errors import BudgetError, ConfigError
from candist_core.stages.estimate import estimate_run
from candist_core.stages.report import report_of_run
from candist_core.stages.status import status_of_run
from flows.label_corpus import label_corpus
from flows.summary import manifest_rows
from tests.fakes import ChatServer, user_text
from tests.flows.corpora import demo_config, demo_labels, demo_replies, demo_rows
from tests.flows.test_label_corpus import answers_by_text, labels_of

pytestmark = pytest.mark.flow
N = 240


def sampled_config(folder, **changes):
    sampling = {"teacher_rows": 120, "rounds": 3, "min_gain": 0.0, **changes.pop("sampling", {})}
    return demo_config(folder, n=N, sampling=sampling, **changes)


def live(folder, server, **changes):
    teacher = {"kind": "openai", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY"}
    return sampled_config(folder, teacher=teacher, **changes)


def test_three_rounds_ask_for_no_more_than_the_sample_and_label_every_text(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    said = answers_by_text(N)
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        config = live(tmp_path, server)
        published = label_corpus(config)
        asked = {user_text(request) for request in server.requests}
        assert len(server.requests) == len(asked) == 120
        label_corpus(config)
        assert len(server.requests) == 120, "a second run asks nothing"
        assert estimate_run(config).calls.n_calls == 0
    labels = labels_of(config)
    assert labels.height == N
    unread = labels.filter(~pl.col("text").is_in(list(asked)))
    assert unread.height == N - 120
    assert set(unread["source"]) == {"student"}
    assert unread["candidates"].list.len().sum() == 0
    assert unread.filter("needs_review")["reason"].unique().to_list() == ["teacher did not read it, low confidence"]
    assert (unread["label"] == unread["gold"]).mean() > 0.3, "a label of twelve by chance is right on 0.08"

    manifest = published.manifest
    assert manifest.sampling.rounds == (40, 40, 40)
    assert manifest.sampling.how == ("random", "doubtful", "doubtful")
    assert manifest.sampling.n_read == 120
    assert [point.n_rows for point in manifest.sampling.curve][-3:] == [40, 80, 120]
    assert manifest.metrics.statuses == {"ok": 120, "unread": 120}
    assert manifest.metrics.gold.teacher_accuracy.n == 120
    assert manifest.metrics.gold.final_accuracy.n == N
    assert manifest.metrics.unread.n == 120
    assert manifest.metrics.mean_set_size >= 1
    assert manifest.counts.rejects == 0
    said_of_it = dict(manifest_rows(manifest))
    assert said_of_it["sample"].startswith("the teacher read 120 of 240 texts in 3 rounds")
    status = {stage.stage: (stage.done, stage.total) for stage in status_of_run(config).stages}
    assert status == {"ingest": (N, N), "annotate": (3, 3), "check": (12, 12), "distill": (1, 1), "predict": (3, 3)}
    assert "the teacher read 120 of 240 texts" in report_of_run(config).html.decode()
    card = open_store(Location(uri=config.publish.uri)).read_bytes(f"{manifest.folder}/README.md").decode()
    assert "120 of 240 texts" in card


def test_the_cap_holds_over_all_rounds_and_a_run_with_more_money_goes_on_where_it_ended(
    tmp_path, prefect_server, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", "sk-not-to-be-seen")
    said = answers_by_text(N)
    prices = [{"model": "gpt-4o-mini", "input_usd": 1.0, "cached_usd": 1.0, "output_usd": 1.0}]
    with ChatServer(answer=lambda body: said[user_text(body)]) as server:
        poor = live(tmp_path, server, budget={"prices": prices})
        # The server counts a token for each character, about four times as many as are foreseen.
        whole = estimate_run(poor).cost_usd
        poor = poor.model_copy(update={"budget": poor.budget.model_copy(update={"max_usd": 1.9 * whole})})
        with pytest.raises(BudgetError):
            label_corpus(poor)
        n_before = len(server.requests)
        assert 40 < n_before < 120
        rich = poor.model_copy(update={"budget": poor.budget.model_copy(update={"max_usd": 10 * whole})})
        published = label_corpus(rich)
        assert len(server.requests) == 120, "what the first run paid for is not asked again"
    assert published.manifest.usage.cost_usd + published.manifest.usage.reused_usd <= 10 * whole
    assert published.manifest.sampling.forecast.cost_usd > 0


@pytest.mark.parametrize("how", ["stratified", "diverse"])
def test_rounds_end_when_the_curve_says_that_more_would_not_help(tmp_path, prefect_server, how):
    config = sampled_config(tmp_path, sampling={"how": how, "teacher_rows": 160, "rounds": 4, "min_gain": 1.0})
    manifest = label_corpus(config).manifest
    assert manifest.sampling.rounds == (40,)
    assert "less than 100 (sampling.min_gain)" in manifest.sampling.stopped
    assert manifest.metrics.n_labelled == N
    assert manifest.metrics.statuses["unread"] == N - 40


def test_an_audit_is_read_in_the_first_round_and_measures_the_curve(tmp_path, prefect_server):
    rows = demo_rows(N)[::6]
    (tmp_path / "audit.jsonl").write_text(
        "".join(json.dumps({"text": row["text"], "label": row["gold"]}) + "\n" for row in rows)
    )
    config = sampled_config(tmp_path, audit={"uri": str(tmp_path / "audit.jsonl")}, sampling={"rounds": 1})
    manifest = label_corpus(config).manifest
    assert manifest.sampling.is_audited
    assert {point.agreement.n for point in manifest.sampling.curve} == {40}
    assert manifest.metrics.audit.final_accuracy.n == 40
    assert manifest.sampling.n_read <= 120
    labels = labels_of(config).filter(pl.col("text").is_in([row["text"] for row in rows]))
    assert set(labels["source"]) == {"reviewed"}


def test_a_sample_as_large_as_the_corpus_is_a_run_over_all_of_it(tmp_path, prefect_server):
    config = demo_config(tmp_path, n=60, sampling={"teacher_rows": 60})
    manifest = label_corpus(config).manifest
    assert manifest.sampling is None
    assert manifest.metrics.statuses == {"ok": 60}


def test_rounds_without_a_number_of_texts_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"wanted both; set sampling\.teacher_rows"):
        demo_config(tmp_path, sampling={"rounds": 2})
    with pytest.raises(ConfigError, match=r"lower sampling\.round_rows"):
        demo_config(tmp_path, sampling={"teacher_rows": 100, "rounds": 3, "round_rows": 50})
    assert len(demo_labels()) == 12
    assert len(demo_replies(5)) == 5


def test_the_example_configuration_runs_with_fewer_texts(tmp_path, prefect_server):
    places = (f"store.uri={tmp_path / 'work'}", f"publish.uri={tmp_path / 'published'}")
    fewer = ("sampling.teacher_rows=240", "sampling.min_gain=0", "compute.processes=false", "compute.workers=2")
    config = load_config(Path(__file__).parents[2] / "deployments/configs/sampled.yaml", (*places, *fewer))
    manifest = label_corpus(config).manifest
    assert manifest.sampling.rounds == (80, 80, 80)
    assert manifest.metrics.n_labelled == 1200
    assert manifest.metrics.unread.n == 960
    assert manifest.metrics.unread.value > 0.5
