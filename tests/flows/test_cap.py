"""The cap of a run over its shards, with replies that earlier runs kept and with a shard that fails."""

import json
from typing import Any

import pytest

from candist_core.edges.report.facts import cost_facts
from candist_core.edges.store import open_store
from candist_core.errors import BudgetError, TransientError
from candist_core.reports import Usage
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.paid import kept_usd
from candist_core.stages.plan import plan_annotation
from candist_core.teacher_config import BudgetConfig
from flows.annotation import _Run
from flows.gate import Gate
from flows.summary import manifest_rows
from tasks.groups import GroupResult
from tests.fakes import ChatServer, raw, status, user_text
from tests.flows.corpora import demo_config
from tests.versions import label_row, publish_rows

# A reply costs about 1.5 dollars: its prompt is some 1,500 characters, each a token to the loopback server.
PRICE = {"model": "m", "input_usd": 1000.0, "output_usd": 1000.0}
REPLY = json.dumps({"candidates": ["outage"]})


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")


def capped(folder, server, max_usd=None, **teacher):
    """Three shards of twelve texts each."""
    known: dict[str, Any] = {
        "kind": "openai", "model": "m", "base_url": server.base_url, "replies_uri": None, "api_key_env": "TEST_KEY",
        "max_in_flight": 2, "max_tokens": 64, "max_attempts": 1,
    }  # fmt: skip
    budget = {"max_usd": max_usd, "prices": [PRICE]}
    return demo_config(
        folder, n=36, source={"shard_rows": 12}, teacher=known | teacher, budget=budget, checks={"on_fail": "warn"}
    )


def begun(config):
    """The plan of a run and its shards."""
    return plan_annotation(config), ingest_corpus(config).texts


def result_of(outcome):
    return GroupResult((outcome,), 1.0)


def test_kept_replies_of_an_unfinished_shard_are_spent_before_anybody_is_granted_money(tmp_path):
    with ChatServer(answer=lambda body: REPLY) as server:
        plan, shards = begun(capped(tmp_path, server))
        done = annotate_shard(plan, shards[0]).usage.charged_usd
        unfinished = annotate_shard(plan, shards[1], allowance_usd=0.7 * done)
        assert 0 < unfinished.n_left < 12
        cap = done + unfinished.usage.charged_usd + 0.6 * done
        plan, _ = begun(capped(tmp_path, server, max_usd=cap))
        run = _Run(plan, shards, None, Gate())
        assert run.purse.spent_usd == pytest.approx(done + unfinished.usage.charged_usd)
        grants = {i: run.purse.grant(i, n_sharers) for i, n_sharers in ((1, 2), (2, 1))}
        for i, granted in grants.items():
            run.keep((i,), result_of(annotate_shard(plan, shards[i], granted)))
        assert sum(report.usage.charged_usd for report in run.reports.values()) <= cap
        assert run.purse.spent_usd <= cap
        assert len(server.requests) < 36


def test_kept_replies_without_a_cost_count_as_their_bounds_before_anybody_is_granted_money(tmp_path):
    said = {"choices": [{"message": {"content": REPLY}, "finish_reason": "stop"}], "usage": {}}
    with ChatServer(answer=lambda body: raw(json.dumps(said))) as server:
        plan, shards = begun(capped(tmp_path, server))
        unfinished = annotate_shard(plan, shards[1], allowance_usd=8.0)
        assert 0 < unfinished.usage.n_unpriced < 12
        assert kept_usd(plan, shards) == pytest.approx([0.0, unfinished.usage.unpriced_bound_usd, 0.0])


def test_a_shard_that_was_done_when_nobody_knew_a_price_counts_under_a_cap(tmp_path):
    with ChatServer(answer=lambda body: REPLY) as server:
        unpriced = capped(tmp_path, server).model_copy(update={"budget": BudgetConfig()})
        plan, shards = begun(unpriced)
        assert annotate_shard(plan, shards[0]).usage.charged_usd == 0.0
        plan, _ = begun(capped(tmp_path, server, max_usd=1000.0))
        run = _Run(plan, shards, None, Gate())
        assert sorted(run.reports) == [0]
        # Twelve replies, each between one and two times what it would have cost: 1.5 dollars.
        assert 12 * 1.4 < run.purse.spent_usd < 24 * 1.6


def test_a_run_without_a_cap_does_not_look_for_what_was_kept(tmp_path):
    with ChatServer(answer=lambda body: REPLY) as server:
        plan, shards = begun(capped(tmp_path, server))
        annotate_shard(plan, shards[1], allowance_usd=8.0)
        assert _Run(plan, shards, None, Gate()).purse.spent_usd == 0.0


def test_a_first_shard_that_fails_under_a_cap_leaves_the_others_their_money(tmp_path):
    failing: set[str] = set()

    def answer(body):
        return status(500) if user_text(body) in failing else REPLY

    with ChatServer(answer=answer) as server:
        plan, shards = begun(capped(tmp_path, server, max_usd=1000.0))
        texts = open_store(plan.config.store).read_table(shards[0])["text"].to_list()
        failing.update(texts[4:])
        run = _Run(plan, shards, None, Gate())
        assert run.purse.grant(0, n_sharers=1) == 1000.0
        with pytest.raises(TransientError) as error:
            annotate_shard(plan, shards[0], 1000.0)
        run.keep((0,), result_of(error.value))
        (kept, *_) = kept_usd(plan, shards)
        # Four replies, and what the two requests under way may have cost, each less than twice what a reply does.
        assert 0 < kept < run.purse.spent_usd < kept + 2 * (2 * kept / 4)
        for i in (1, 2):
            assert run.purse.may_grant
            run.keep((i,), result_of(annotate_shard(plan, shards[i], run.purse.grant(i, 1))))
        assert sorted(run.reports) == [1, 2]
        assert not run.still_open


def test_replies_without_a_known_cost_stand_in_summary_and_report_with_what_was_counted_for_them(tmp_path):
    usage = Usage(n_requests=40, cost_usd=1.5, n_unpriced=3, unpriced_bound_usd=0.25)
    manifest = publish_rows(tmp_path, [label_row("a", "text", "spam")], ["spam", "ham"], usage=usage)
    said = dict(manifest_rows(manifest))["teacher"]
    assert said == "40 replies, 0 tokens, $1.5000; 3 replies without a known cost, at most $0.2500 more"
    (fact,) = (fact for fact in cost_facts(manifest) if fact.term == "Replies without a known cost")
    assert (fact.value, fact.meaning) == ("3", "not in the sums; at most $0.25 more")


def test_replies_of_a_model_without_a_price_have_no_bound_to_tell(tmp_path):
    usage = Usage(n_requests=40, n_unpriced=40)
    manifest = publish_rows(tmp_path, [label_row("a", "text", "spam")], ["spam", "ham"], usage=usage)
    assert dict(manifest_rows(manifest))["teacher"].endswith("$0.0000; 40 replies without a known cost")


def test_a_cap_reached_by_bounds_says_so():
    plain, bounded = str(BudgetError(9.0, 10.0, 5)), str(BudgetError(9.0, 10.0, 5, 8.5))
    assert plain.startswith("budget.max_usd: found $9.0000 spent of $10.0000 with 5 texts still")
    assert bounded == plain + "; $8.5000 of it is the most that replies without a known cost may have cost"
