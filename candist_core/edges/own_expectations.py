"""Expectations of the user's own: any of Great Expectations, by name, without code.

They see the columns named in `COLUMNS`. Those on annotations are judged shard by shard, those on labels once, on
all of them and only the columns that they name.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import polars as pl

from candist_core.checks_config import OnFail, OwnExpectation, Table
from candist_core.config import RunConfig
from candist_core.edges.judge import Expectation, Verdict, judge, opened
from candist_core.edges.measures import share
from candist_core.errors import ConfigError, TerminalError
from candist_core.reports import CheckResult
from candist_core.tables import ANNOTATIONS, LABELS

_candidates = pl.col("candidates")
COLUMNS: dict[Table, dict[str, pl.Expr]] = {
    Table.ANNOTATIONS: {
        "doc_id": pl.col("doc_id"),
        "candidates": _candidates.list.join(" | "),
        "n_candidates": _candidates.list.len().cast(pl.Int64),
        "first_label": _candidates.list.first(),
        "status": pl.col("status"),
        "teacher": pl.col("teacher"),
    },
    Table.LABELS: {
        "doc_id": pl.col("doc_id"),
        "label": pl.col("label"),
        "confidence": pl.col("confidence"),
        "candidates": _candidates.list.join(" | "),
        "n_candidates": _candidates.list.len().cast(pl.Int64),
        "teacher_label": pl.col("teacher_label"),
        "source": pl.col("source"),
        "needs_review": pl.col("needs_review"),
        "reason": pl.col("reason"),
    },
}
"""What expectations may name, by table."""

# Great Expectations' own housekeeping, and conditions that pandas would evaluate as code.
_NOT_FOR_USERS = {
    "id", "meta", "notes", "description", "result_format", "catch_exceptions", "rendered_content", "severity",
    "windows", "batch_id", "row_condition", "condition_parser", "unexpected_rows_query", "query",
}  # fmt: skip
# A cell of a column, or several of one row: only such an expectation can name the rows at fault.
_ABOUT_ROWS = ("ColumnMapExpectation", "ColumnPairMapExpectation", "MulticolumnMapExpectation")


def check_own(config: RunConfig, frame: pl.DataFrame) -> tuple[CheckResult, ...]:
    """Judge the user's expectations on annotations of one shard, under annotations/1.

    Raises:
        TerminalError: Great Expectations could not carry one out.
    """
    own = _own(config, Table.ANNOTATIONS)
    return _judged(config, own, frame.select(**COLUMNS[Table.ANNOTATIONS])) if own else ()


def check_own_labels(config: RunConfig, shards: Iterable[pl.DataFrame]) -> tuple[CheckResult, ...]:
    """Judge the user's expectations on all final labels; of each shard only the columns that they name are kept.

    Raises:
        TerminalError: Great Expectations could not carry one out.
    """
    own = _own(config, Table.LABELS)
    if not own:
        return ()
    columns = {name: expr for name, expr in COLUMNS[Table.LABELS].items() if any(name in _named(one) for one in own)}
    kept = columns or {"doc_id": pl.col("doc_id")}
    return _judged(config, own, pl.concat([shard.select(**kept) for shard in shards]))


def own_failing_rows(config: RunConfig, frame: pl.DataFrame, results: Sequence[CheckResult]) -> pl.DataFrame:
    """doc_id, check and value of the annotations at fault behind the user's expectations that did not hold."""
    failed = {result.name for result in results if not result.passed}
    own = [one for one in _own(config, Table.ANNOTATIONS) if one.check in failed]
    verdicts = judge(frame.select(**COLUMNS[Table.ANNOTATIONS]), [_built(one) for one in own], with_rows=True)
    rows = [(doc_id, name, value) for name, verdict in verdicts.items() for doc_id, value in verdict.rows]
    return pl.DataFrame(rows, schema={"doc_id": pl.String, "check": pl.String, "value": pl.String}, orient="row")


def check_own_settings(config: RunConfig) -> None:
    """Look at the user's expectations before anything is paid for: names, arguments, whether they can be carried out.

    Raises:
        ConfigError: the first that cannot, in one sentence.
    """
    for i, own in enumerate(config.checks.expectations):
        thing = f"checks.expectations.{i} ({own.name})"
        with opened() as (gx, _):
            kind = _kind(gx, own, thing)
            _check_arguments(kind, own, thing)
        _try(own, thing)
        is_about_rows = any(base.__name__ in _ABOUT_ROWS for base in kind.__mro__)
        if own.on_fail is OnFail.QUARANTINE and not is_about_rows:
            found, wanted = f"quarantine for {own.expectation}", "fail or warn"
            raise ConfigError(thing, found, wanted, "it is about the whole shard, so that no row is at fault")


def _own(config: RunConfig, table: Table) -> list[OwnExpectation]:
    return [one for one in config.checks.expectations if one.on is table]


def _built(own: OwnExpectation) -> Expectation:
    return Expectation(own.check, own.expectation, json.loads(own.arguments))


def _named(own: OwnExpectation) -> set[str]:
    """Every text among the arguments; some are columns."""
    values = list(json.loads(own.arguments).values())
    return {
        word for value in values for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)
    }


def _judged(config: RunConfig, own: Sequence[OwnExpectation], rows: pl.DataFrame) -> tuple[CheckResult, ...]:
    # Over no rows every check passes; Great Expectations finds no mean there.
    verdicts = judge(rows, [_built(one) for one in own]) if rows.height else {}
    return tuple(_result(config, one, verdicts.get(one.check, Verdict(True)), rows.height) for one in own)


def _result(config: RunConfig, own: OwnExpectation, verdict: Verdict, n: int) -> CheckResult:
    if verdict.value is not None:
        observed = f"{verdict.value}"[:200]
    elif not n:
        observed = "no rows"
    else:
        observed = share(verdict.n_unexpected, verdict.n or n, "rows that break it")
    return CheckResult(
        name=own.check,
        passed=verdict.holds,
        observed=observed,
        wanted=f"{own.expectation} {own.arguments}",
        n_unexpected=verdict.n_unexpected,
        n=n,
        on_fail=config.checks.on_fail_of_own(own).value,
    )


def _kind(gx: Any, own: OwnExpectation, thing: str) -> Any:
    kinds = {name: value for name, value in vars(gx.expectations).items() if name.startswith("Expect")}
    if own.expectation not in kinds:
        near = get_close_matches(own.expectation, kinds, n=1, cutoff=0.5)
        step = f"did you mean {near[0]!r}?" if near else "Great Expectations' gallery lists them"
        raise ConfigError(thing, f"no expectation {own.expectation!r}", "one of Great Expectations", step)
    return kinds[own.expectation]


def _check_arguments(kind: Any, own: OwnExpectation, thing: str) -> None:
    from pydantic.v1 import ValidationError

    arguments: Mapping[str, Any] = json.loads(own.arguments)
    known = [name for name in kind.__fields__ if name not in _NOT_FOR_USERS]
    if strange := next((name for name in arguments if name not in known), None):
        near = get_close_matches(strange, known, n=1, cutoff=0.5)
        step = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
        raise ConfigError(thing, f"no argument {strange!r} of {own.expectation}", "a known one", step)
    columns = [value for name, value in arguments.items() if name.startswith("column") and isinstance(value, str)]
    columns += [column for name, value in arguments.items() if name == "column_list" for column in value]
    if unknown := next((column for column in columns if column not in COLUMNS[own.on]), None):
        near = get_close_matches(unknown, COLUMNS[own.on], n=1, cutoff=0.5)
        step = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COLUMNS[own.on])}"
        raise ConfigError(thing, f"no column {unknown!r} in {own.on}", "a known one", step)
    try:
        kind(**arguments)
    except (ValidationError, TypeError, ValueError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("",), "msg": str(error)}
        where = " ".join(str(part) for part in said["loc"] if part != "__root__")
        found = f"arguments that {own.expectation} does not take ({where}: {said['msg']})"
        raise ConfigError(thing, " ".join(found.split()), "valid ones", "correct its arguments") from error


def _try(own: OwnExpectation, thing: str) -> None:
    """Carry it out on two rows: what Great Expectations cannot do with a frame shows there."""
    contract, columns = {Table.ANNOTATIONS: ANNOTATIONS, Table.LABELS: LABELS}[own.on], COLUMNS[own.on]
    sample = pl.DataFrame({name: pl.Series(_SAMPLE[name], dtype=dtype) for name, dtype in contract.columns.items()})
    try:
        judge(sample.select(**columns), [_built(own)])
    except TerminalError as error:
        said = str(error).partition("which says nothing of the data: ")[2][:300]
        found = f"{own.expectation} that cannot be carried out on {own.on} ({said})"
        raise ConfigError(thing, found, "one that can", "correct its arguments or choose another") from error


_SAMPLE: dict[str, list[Any]] = {
    "doc_id": ["a", "b"],
    "candidates": [["x", "y"], ["x"]],
    "scores": [None, None],
    "status": ["ok", "ok"],
    "teacher": ["t", "t"],
    "request_key": ["k", "l"],
    "label": ["x", "x"],
    "confidence": [0.5, 0.9],
    "teacher_label": ["x", "x"],
    "source": ["agreed", "agreed"],
    "needs_review": [True, False],
    "reason": ["low confidence", None],
}
