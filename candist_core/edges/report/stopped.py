"""The report of a run that a check has stopped before it had labels: what failed, the rows behind it, what to do."""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from candist_core.edges.report.frame import render_page
from candist_core.rejects import count_reasons
from candist_core.reports import CheckResult, Usage

MAX_ROWS = 100
"""Rows at fault, and rejects, that the page shows; the commands beside them list all."""


@dataclass(frozen=True, slots=True)
class StoppedRun:
    """How far a run came: `stage` is whose checks stopped it, the corpus or the annotations.

    `at_fault`: doc_id, check, value, text, the rows behind failed checks. `rejects`: under rejects/1.
    """

    name: str
    stage: str
    checks: tuple[CheckResult, ...]
    n_rows: int
    n_texts: int
    n_asked: int
    usage: Usage
    at_fault: pl.DataFrame
    rejects: pl.DataFrame
    config: dict[str, Any]


def render_stopped(run: StoppedRun) -> bytes:
    """The page, UTF-8."""
    return render_page(
        "stopped.html",
        run=run,
        failed=[check for check in run.checks if not check.passed],
        passed=[check for check in run.checks if check.passed],
        at_fault=list(run.at_fault.head(MAX_ROWS).iter_rows(named=True)),
        reasons=list(count_reasons(run.rejects).items()),
        rejects=list(run.rejects.head(MAX_ROWS).iter_rows(named=True)),
        paid=run.usage.cost_usd + run.usage.reused_usd,
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
    )
