"""The judge: Great Expectations over one frame, in memory.

One context serves a process. It writes, prints, logs and sends nothing, leaves a context of the user's in place, and
is the only part of candist that imports Great Expectations (2 to 4 s, 270 MB).
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any

import polars as pl

from candist_core.errors import TerminalError

# Great Expectations has one current context a process, and a second check would swap the first one's.
_ONE_AT_A_TIME = Lock()
ROW_ID = "doc_id"
"""The column by which rows are named."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation of Great Expectations, by the name of its class; `note` is a sentence for its page."""

    name: str
    kind: str
    arguments: Mapping[str, Any]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an expectation holds; `value` is what Great Expectations observed, `rows` are (doc_id, value) at fault.

    `n_unexpected` of `n` rows broke an expectation about single rows. `rows` are told only on request.
    """

    holds: bool
    value: Any = None
    n_unexpected: int = 0
    n: int = 0
    rows: tuple[tuple[str, str], ...] = field(default=())


def judge(frame: pl.DataFrame, expectations: Sequence[Expectation], with_rows: bool = False) -> dict[str, Verdict]:
    """Whether each expectation holds of the frame, by name.

    Args:
        frame: the rows.
        expectations: about them.
        with_rows: name the rows at fault by their doc_id, of expectations about single rows. Slows with their number.

    Raises:
        TerminalError: an expectation could not be carried out; Great Expectations itself calls that a failure.
    """
    if not expectations:
        return {}
    with opened() as (gx, batches):
        # `Batch.validate` would load the batch twice, and take a quarter longer.
        from great_expectations.validator.v1_validator import Validator

        suite = gx.ExpectationSuite(name="candist", expectations=[build(gx, wanted) for wanted in expectations])
        wanted_format: Any = {"result_format": "BASIC", "partial_unexpected_count": 0}
        if with_rows:
            wanted_format = {
                "result_format": "COMPLETE",
                "unexpected_index_column_names": [ROW_ID],
                "return_unexpected_index_query": False,
            }
        outcome = Validator(batches, wanted_format, {"dataframe": _to_pandas(frame)}).validate_expectation_suite(suite)
        return {result.expectation_config.meta["check"]: verdict_of(result) for result in outcome.results}


def _to_pandas(frame: pl.DataFrame) -> Any:
    """The frame backed by Arrow, which takes half the memory; a few numbers by NumPy, in a tenth of the time."""
    if all(dtype == pl.Float64 for dtype in frame.dtypes):
        import pandas as pd

        return pd.DataFrame({column.name: column.to_numpy() for column in frame})
    return frame.to_pandas(use_pyarrow_extension_array=True)


def build(gx: Any, wanted: Expectation) -> Any:
    """The expectation as Great Expectations has it."""
    meta = {"check": wanted.name}
    return getattr(gx.expectations, wanted.kind)(**wanted.arguments, meta=meta, description=wanted.note)


def verdict_of(result: Any) -> Verdict:
    """Read a result of Great Expectations.

    Raises:
        TerminalError: it could not be carried out.
    """
    info = result.exception_info or {}
    # One exception lies in the dictionary itself, several lie below the ids of the metrics that raised them.
    for raised in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if raised.get("raised_exception"):
            name, said = result.expectation_config.meta["check"], " ".join(str(raised["exception_message"]).split())
            raise TerminalError(f"check {name} could not be carried out, which says nothing of the data: {said}")
    found = result.result
    return Verdict(
        holds=bool(result.success),
        value=found.get("observed_value"),
        n_unexpected=int(found.get("unexpected_count") or 0),
        n=int(found.get("element_count") or 0),
        rows=tuple(_row(entry) for entry in found.get("unexpected_index_list") or ()),
    )


def _row(entry: Mapping[str, Any]) -> tuple[str, str]:
    """doc_id and value of one row at fault."""
    values = [value for name, value in entry.items() if name != ROW_ID] or [entry[ROW_ID]]
    return str(entry[ROW_ID]), ", ".join(str(value) for value in values)


@contextmanager
def opened() -> Iterator[tuple[Any, Any]]:
    """Great Expectations and its batches of frames; the context that was current before is so again afterwards."""
    with _ONE_AT_A_TIME:
        gx = import_great_expectations()
        from great_expectations.data_context.data_context.context_factory import project_manager
        from great_expectations.exceptions import DataContextRequiredError

        try:
            before = project_manager.get_current_project()
        except DataContextRequiredError:
            before = None
        try:
            # Making one takes 20 ms and sets it as the current one; a shard of 5,000 rows must not take 10.
            context, batches = _context()
            project_manager.set_project(context)
            yield gx, batches
        finally:
            project_manager.set_project(before)


@cache
def _context() -> tuple[Any, Any]:
    """A context in memory and its one asset, a frame."""
    gx = import_great_expectations()
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    asset = context.data_sources.add_pandas("candist").add_dataframe_asset("rows")
    return context, asset.add_batch_definition_whole_dataframe("all")


def prepare() -> None:
    """Import Great Expectations and make its context, so that the first checks need not wait for that."""
    with _ONE_AT_A_TIME:
        _context()


def import_great_expectations() -> Any:
    """Import it quietly, and undo that its import sends the warnings of the whole process to the log."""
    if "great_expectations" not in sys.modules:
        showing = warnings.showwarning
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import great_expectations

            if warnings.showwarning is not showing:
                logging.captureWarnings(False)
        own = logging.getLogger("great_expectations")
        if own.level == logging.NOTSET:
            own.setLevel(logging.WARNING)
    import great_expectations

    return great_expectations
