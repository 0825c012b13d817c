"""Data Docs: the page of Great Expectations about the checkpoint over all of a run's checks, as one file.

Great Expectations' own pages fetch styles, scripts and a picture from five hosts whenever they are opened. This one
keeps its words and tables, carries its own style, holds no script, and forbids the browser to fetch anything.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import polars as pl

from candist_core.edges.judge import Expectation, build, opened, verdict_of
from candist_core.reports import AnnotateReport, CheckResult

# Links that only fetch, scripts, pictures, the styles that belong to what is fetched, and links to pages not built.
_FETCHING = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<style\b.*?</style>|<footer\b.*?</footer>"
    r"|<nav\b.*?</nav>|<title>\s*</title>",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"<[a-z][^<>]*>", re.IGNORECASE)
_LINK = re.compile(r"""\s(?:href|src|action|style|on[a-z]+)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]+)""", re.IGNORECASE)
_HEAD = """<head>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1.5rem; }
td, th { border: 1px solid #8888; padding: 0.35rem 0.6rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
.badge { border: 1px solid #8888; border-radius: 0.3rem; padding: 0 0.3rem; }
.fa-check-circle::before { content: "\\2713"; color: #1a7f37; }
.fa-times::before { content: "\\2717"; color: #cf222e; }
@media (prefers-color-scheme: dark) {
  .fa-check-circle::before { color: #6fcf9b; }
  .fa-times::before { color: #f08a8a; }
}
h1, h2, h3, h4, h5, h6 { font-size: 1.05rem; margin: 1.5rem 0 0.3rem; }
.sticky, .collapse, .cooltip .top, [id^="ge-cta"] { display: none; }
ul { list-style: none; padding: 0; }
</style>"""


def render_checks(annotated: Sequence[AnnotateReport], checks: Sequence[CheckResult]) -> bytes:
    """Run a checkpoint over the table of all numbers that were judged, a row for each shard, and render its page.

    Args:
        annotated: what each shard reported, with its own numbers.
        checks: all checks of the run, summed up over the shards.

    Raises:
        TerminalError: Great Expectations could not carry out a check.
    """
    table = _numbers(annotated, checks)
    with opened() as (gx, batches):
        wanted = [build(gx, one) for check in checks for one in _expectations(check) if check.name in table.columns]
        outcome = _run(gx, batches, wanted, table)
        for result in outcome.results:
            verdict_of(result)
            # Its renderer fails on NumPy's numbers, which its own metrics give.
            if (value := result.result.get("observed_value")) is not None:
                result.result["observed_value"] = float(value)
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

        page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(outcome))
    return self_contained(page).encode()


def self_contained(page: str) -> str:
    """A page of Great Expectations that fetches nothing.

    Example:
        >>> page = '<head><link href="https://a.b/c.css"></head><a onclick="f()" href="https://d.e">f</a><script>g</script>'
        >>> self_contained(page).removeprefix(_HEAD)
        '</head><a>f</a>'
    """
    bare = _TAG.sub(lambda tag: _LINK.sub("", tag[0]), _FETCHING.sub("", page))
    return bare.replace("<head>", _HEAD, 1)


def _run(gx: Any, batches: Any, expectations: Sequence[Any], table: pl.DataFrame) -> Any:
    """One checkpoint; what it leaves in the context is taken out again."""
    from great_expectations.data_context.data_context.context_factory import project_manager

    context = project_manager.get_current_project()
    name = "checks of the run"
    try:
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = gx.ValidationDefinition(name=name, data=batches, suite=suite)
        checkpoint = gx.Checkpoint(
            name=name, validation_definitions=[context.validation_definitions.add(definition)], result_format="SUMMARY"
        )
        rows = table.to_pandas(use_pyarrow_extension_array=True)
        run = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
    finally:
        for kept in (context.checkpoints, context.validation_definitions, context.suites):
            if any(one.name == name for one in kept.all()):
                kept.delete(name)
    (outcome,) = run.run_results.values()
    return outcome


def _numbers(annotated: Sequence[AnnotateReport], checks: Sequence[CheckResult]) -> pl.DataFrame:
    """A row for each shard and a column for each check; what is known of the whole run only stands in every row."""
    by_shard = [{one.name: _value(one) for one in report.checks} for report in annotated] or [{}]
    columns = {
        check.name: [shard.get(check.name, _value(check)) for shard in by_shard]
        for check in checks
        if _value(check) is not None
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))


def _value(check: CheckResult) -> float | None:
    """The number that was judged; of the user's own expectations, which have none, whether they failed."""
    return float(not check.passed) if check.name.startswith("own.") else check.value


def _expectations(check: CheckResult) -> list[Expectation]:
    # Labels stand in it. Great Expectations escapes nothing, and takes a dollar for a variable of its template.
    note = escape(f"{check.name}: {check.observed}; wanted {check.wanted}").replace("$", "&#36;")
    low, high = (None, 0.0) if check.name.startswith("own.") else (check.at_least, check.at_most)
    column = {"column": check.name}
    found = [Expectation(check.name, "ExpectColumnMinToBeBetween", column | {"min_value": low}, note)] if low else []
    if high is not None or not found:
        # A bound below which nothing can be is none: a share is never negative.
        bounds = {"max_value": high} if high is not None else {"min_value": 0.0}
        found.append(Expectation(check.name, "ExpectColumnMaxToBeBetween", column | bounds, note))
    return found
