import json
from dataclasses import replace
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.budget import (
    Allowance,
    Estimate,
    Price,
    cost_usd,
    estimate,
    load_prices,
    measure,
    price_of,
    prompt_bytes,
)
from candist_core.ports import Reply
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, Strategy, TaskSpec, canonical_json
from candist_core.teacher_config import PriceConfig, TeacherConfig

SPEC = TaskSpec(labels=(LabelSpec(name="spam"), LabelSpec(name="ham")))


def test_every_shipped_price_is_positive_and_cached_tokens_cost_no_more_than_fresh_ones():
    prices = load_prices()
    assert {"gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5", "gpt-5-nano", "o3", "o4-mini"} <= set(prices)
    for price in prices.values():
        assert 0 < price.cached_usd <= price.input_usd < price.output_usd


def test_the_shipped_list_says_as_of_when_it_holds():
    data = json.loads(resources.files("candist_core").joinpath("data/prices.json").read_bytes())
    assert data["as_of"]
    assert "budget.prices" in data["note"]


def test_a_users_price_wins_over_the_shipped_one():
    own = PriceConfig(model="gpt-4o", input_usd=7, cached_usd=3, output_usd=9)
    assert load_prices([own])["gpt-4o"] == Price(7, 3, 9)


def test_a_dated_snapshot_has_its_models_price_unless_it_has_its_own():
    prices = load_prices()
    assert price_of("gpt-4o-mini-2024-07-18", prices) == prices["gpt-4o-mini"]
    assert price_of("gpt-4o-2024-05-13", prices) == Price(5.0, 5.0, 15.0)


@pytest.mark.parametrize("model", ["llama-3", "gpt-4o-audio", "gpt-4o-mini-2024", ""])
def test_a_model_that_merely_resembles_a_known_one_has_no_price(model):
    assert price_of(model, load_prices()) is None


def test_cached_tokens_are_charged_once_at_the_cached_price():
    # (600 x 2 + 400 x 1 + 100 x 8) / 1e6
    assert cost_usd(Price(2, 1, 8), 1000, 400, 100) == pytest.approx(2400 / 1e6)


def test_more_cached_than_prompt_tokens_never_make_a_reply_cheaper_than_nothing():
    assert cost_usd(Price(2, 1, 8), prompt_tokens=10, cached_tokens=999, completion_tokens=0) == pytest.approx(10 / 1e6)


def test_the_bound_of_a_request_is_a_token_for_each_byte_and_the_longest_answer():
    prompt = compile_prompt(SPEC, TeacherConfig(max_tokens=100))
    short, long = prompt.request("a", "x"), prompt.request("b", "x" * 1001)
    allowance = Allowance(1.0, Price(1.0, 0.5, 10.0))
    assert allowance.bound_usd(long) - allowance.bound_usd(short) == pytest.approx(1000 / 1e6)
    least = len(short.head.system) + len(short.user) + 100 * 10
    assert least / 1e6 < allowance.bound_usd(short) < (least + 1000) / 1e6


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=50))
def test_granted_and_spent_money_never_exceeds_the_cap(steps):
    allowance, granted = Allowance(2.0, Price(1, 1, 1)), []
    for bound, share, settle_first in steps:
        if settle_first and granted:
            last = granted.pop()
            allowance.settle(last, last * share)
        if allowance.reserve(bound):
            granted.append(bound)
        assert allowance.spent_usd + sum(granted) <= 2.0 + 1e-9
        assert allowance.n_reserved == len(granted)


def asked(*texts, spec=SPEC, config=TeacherConfig()):  # noqa: B008
    prompt = compile_prompt(spec, config)
    return [prompt.request(str(i), text) for i, text in enumerate(texts)]


def test_an_estimate_counts_a_token_for_four_bytes_of_prompt():
    short, long = (estimate(asked("x" * n), SPEC, 1, price=None, max_in_flight=1) for n in (0, 400))
    assert long.prompt_tokens - short.prompt_tokens == 100
    (request,) = asked("")
    head = len((request.head.system + canonical_json(request.head.response_format)).encode())
    assert short.prompt_tokens == pytest.approx((head + len(request.user)) / 4, abs=10)


def test_an_estimate_is_proportional_to_the_number_of_calls():
    settings = {"price": Price(1, 1, 1), "max_in_flight": 10, "latency_s": 2.0}
    one, many = (estimate(asked("hello"), SPEC, n, **settings) for n in (1, 1000))
    assert (many.n_calls, many.prompt_tokens) == (1000, 1000 * one.prompt_tokens)
    assert many.cost_usd == pytest.approx(1000 * one.cost_usd)
    assert many.seconds == pytest.approx(1000 * 2.0 / 10)
    assert many.cost_usd == pytest.approx((many.prompt_tokens + many.completion_tokens) / 1e6)


def test_an_unknown_price_gives_an_estimate_without_a_cost():
    assert estimate(asked("hello"), SPEC, 3, price=None, max_in_flight=1).cost_usd is None


def test_an_estimate_of_no_texts_is_all_zero():
    assert estimate([], SPEC, 0, price=Price(1, 1, 1), max_in_flight=1) == Estimate(0, 0, 0, 0.0, 0.0)


def test_replies_are_never_estimated_longer_than_the_longest_answer():
    spec = SPEC.model_copy(update={"labels": (LabelSpec(name="a" * 200), LabelSpec(name="b" * 200))})
    sample = asked("x", spec=spec, config=TeacherConfig(max_tokens=8))
    assert estimate(sample, spec, 2, price=None, max_in_flight=1).completion_tokens == 16


def test_single_annotation_is_estimated_with_shorter_replies_than_candidate_sets():
    spec = SPEC.model_copy(update={"strategy": Strategy.SA})
    sa = estimate(asked("x", spec=spec), spec, 100, price=None, max_in_flight=1)
    ca = estimate(asked("x"), SPEC, 100, price=None, max_in_flight=1)
    assert sa.completion_tokens < ca.completion_tokens


def test_reasoning_and_examples_make_an_estimate_longer():
    plain = estimate(asked("x"), SPEC, 10, price=None, max_in_flight=1)
    thinking = estimate(asked("x"), SPEC, 10, price=None, max_in_flight=1, reasons=True)
    assert thinking.completion_tokens - plain.completion_tokens == 600
    shown = [replace(request, turns=(("u" * 40, "a" * 40),)) for request in asked("x")]
    assert estimate(shown, SPEC, 10, price=None, max_in_flight=1).prompt_tokens - plain.prompt_tokens == 200


def test_an_estimate_goes_by_what_kept_replies_measured():
    (request,) = asked("hello")
    n_bytes = prompt_bytes(request)
    reply = Reply(
        request.key, "0", "x", "stop", prompt_tokens=n_bytes // 2, cached_tokens=n_bytes // 4, completion_tokens=7
    )
    measured = measure([(request, reply), (request, replace(reply, prompt_tokens=0))])
    found = estimate([request], SPEC, 100, price=Price(2, 1, 4), max_in_flight=1, measured=measured)
    assert found.prompt_tokens == pytest.approx(100 * (n_bytes // 2), rel=0.01)
    assert found.completion_tokens == 700
    # Half of the prompt at two dollars, half at one, and seven tokens of answer at four.
    assert found.cost_usd == pytest.approx((found.prompt_tokens * 1.5 + 700 * 4) / 1e6, rel=0.01)
    assert found.is_measured


def test_a_cap_bears_the_bytes_of_every_example():
    allowance, (plain,) = Allowance(1.0, Price(1, 1, 1)), asked("x")
    own = replace(plain, turns=(("u" * 100, "a" * 50),))
    shared = replace(plain, head=replace(plain.head, turns=(("u" * 100, "a" * 50),), fingerprint="other"))
    for request in (own, shared):
        assert allowance.bound_usd(request) - allowance.bound_usd(plain) >= 150 / 1e6
