"""Measures: the one number of each check, its bounds, and their judgement by Great Expectations.

Polars measures and Great Expectations judges. An expectation about a column costs it 3 ms however few rows there are,
so one thing is expected of a shard first: that the table of measures outside their bounds has no row. Only where it
has is each measure asked for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from candist_core.checks_config import OnFail
from candist_core.edges.judge import Expectation, judge
from candist_core.reports import CheckResult

_SCHEMA = {"excess": pl.Float64}
_NONE_OUTSIDE = Expectation("measures outside their bounds", "ExpectTableRowCountToEqual", {"value": 0})


@dataclass(frozen=True, slots=True)
class Measure:
    """One check's number, not NaN; None where there is nothing to judge, which passes.

    `observed` and `wanted` say the number and its bounds in words.
    """

    name: str
    value: float | None
    observed: str
    wanted: str
    on_fail: OnFail
    at_least: float | None = None
    at_most: float | None = None
    n_unexpected: int = 0
    n: int = 0

    @property
    def excess(self) -> float:
        """How far the number is outside its bounds; at most 0 inside them."""
        if self.value is None:
            return 0.0
        above = self.value - self.at_most if self.at_most is not None else 0.0
        below = self.at_least - self.value if self.at_least is not None else 0.0
        return max(above, below)

    @property
    def expectation(self) -> Expectation:
        """The number within its bounds, as a column of its own."""
        bounds = {"column": self.name, "min_value": self.at_least, "max_value": self.at_most}
        return Expectation(self.name, "ExpectColumnMaxToBeBetween", bounds)

    def result(self, passed: bool) -> CheckResult:
        """The check with its verdict."""
        return CheckResult(
            name=self.name,
            passed=passed,
            observed=self.observed,
            wanted=self.wanted,
            n_unexpected=self.n_unexpected,
            n=self.n,
            on_fail=self.on_fail.value,
            value=self.value,
            at_least=self.at_least,
            at_most=self.at_most,
        )


def judge_measures(measures: Sequence[Measure]) -> tuple[CheckResult, ...]:
    """One result for each measure, in their order.

    Raises:
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    judged = [measure for measure in measures if measure.value is not None]
    failed: set[str] = set()
    outside = pl.DataFrame({"excess": [one.excess for one in judged if not one.excess <= 0]}, schema=_SCHEMA)
    if judged and not judge(outside, [_NONE_OUTSIDE])[_NONE_OUTSIDE.name].holds:
        row = pl.DataFrame({one.name: [one.value] for one in judged})
        verdicts = judge(row, [one.expectation for one in judged])
        failed = {name for name, verdict in verdicts.items() if not verdict.holds}
    return tuple(one.result(passed=one.name not in failed) for one in measures)


def share(found: int, n: int, what: str) -> str:
    """A share in words."""
    if not n:
        return "no rows"
    return f"{per_cent(found / n)} ({found:,} of {n:,}) {what}"


def per_cent(value: float) -> str:
    """Per cent with as many digits as it takes not to look like another share."""
    return f"{100 * value:.4g} %"


def band(at_least: float | None, at_most: float | None) -> str:
    """The bounds of a share in words."""
    if not at_least:
        return f"at most {per_cent(at_most or 0.0)}"
    return (
        f"at least {per_cent(at_least)}"
        if at_most is None or at_most >= 1
        else f"{per_cent(at_least)} to {per_cent(at_most)}"
    )
