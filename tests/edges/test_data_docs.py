"""The page about a run's checks: complete, safe, and alone."""

import re
from html import unescape

import pytest

from candist_core.balance import Expected
from candist_core.edges.data_docs import render_checks
from candist_core.edges.expectations import check_annotations, check_run, sum_up
from candist_core.edges.ids import IdCounter
from candist_core.edges.judge import opened
from candist_core.reports import CheckResult
from tests.edges.test_expectations import CONFIG, TEACHERS, label_results, labelled, report, with_status
from tests.edges.test_report import browser as browser

pytestmark = pytest.mark.slow

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)> $run_id $$ & \"'"


def page_of(checks, annotated=()):
    return render_checks(annotated, checks).decode()


def words(page):
    return " ".join(unescape(re.sub("<[^>]+>", " ", re.sub("<style.*?</style>", "", page, flags=re.DOTALL))).split())


@pytest.fixture(scope="module")
def shards():
    kinds = [check_annotations(with_status(100, n, "unparsed"), 100, CONFIG, TEACHERS) for n in (0, 9)]
    return [report({1: 100}, checks) for checks in kinds]


def test_every_check_stands_on_the_page_with_what_was_observed_and_whether_it_passed(shards):
    own = CheckResult(name="own.mine", passed=False, observed="2 rows", wanted="ExpectColumnToExist {}")
    expected = Expected("the stated prior", dict.fromkeys("abcd", 0.25))
    run = check_run(shards, CONFIG, expected, IdCounter())
    checks = [*sum_up(shards), *run, *label_results(labelled(60)).values(), own]
    said = words(page_of(checks, shards))
    judged = [check for check in checks if check.value is not None or check.name.startswith("own.")]
    for check in judged:
        assert f"{check.name}: {check.observed}; wanted {check.wanted}" in said
    n_failed = sum(not check.passed for check in judged)
    assert n_failed == 4
    assert f"Unsuccessful Expectations {n_failed} " in said
    # The worst of the shards.
    assert "1 failed; wanted at most 5 % 0.09 " in said


def test_a_page_fetches_nothing_and_holds_no_script(shards):
    page = page_of(sum_up(shards), shards)
    assert re.findall(r"https?:|//[a-z]+\.", page) == []
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(", page, re.IGNORECASE)
    assert not re.search(r"\s(?:src|href|on[a-z]+)=", page)
    assert "default-src 'none'; style-src 'unsafe-inline'" in page


def test_a_label_that_looks_like_markup_stays_text():
    check = CheckResult(name="run.balance", passed=True, observed=SCRIPT, wanted="0", value=0.1, at_most=0.2)
    page = page_of([check])
    assert "alert(1)" in page
    assert "<script" not in page
    assert "<img" not in page
    assert SCRIPT in unescape(page)


def test_a_page_may_be_rendered_often_and_leaves_nothing_in_the_context(shards):
    first, second = (page_of(sum_up(shards), shards) for _ in range(2))
    assert words(first).partition("Info")[0] == words(second).partition("Info")[0]
    with opened() as (_, batches):
        context = batches.data_asset.datasource.data_context
        assert [list(kind.all()) for kind in (context.suites, context.validation_definitions, context.checkpoints)] == [
            [], [], [],
        ]  # fmt: skip


def test_a_run_without_anything_to_judge_has_a_page():
    assert "Expectation" in words(page_of([CheckResult(name="c", passed=True, observed="no rows", wanted="0")]))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_browser_shows_the_page_without_a_network_on_a_desk_and_on_a_phone(browser, shards, tmp_path, width, scheme):
    path = tmp_path / "index.html"
    path.write_text(page_of(sum_up(shards), shards))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    assert (asked, complaints) == ([path.as_uri()], [])
    said = page.inner_text("body")
    assert "annotations.unparsed_rate: 9 % (9 of 100)" in said
    assert "Unsuccessful Expectations" in said
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("getComputedStyle(document.body).color")
    context.close()
    assert ink == ("rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)")
