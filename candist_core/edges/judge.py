"""The judge: Great Expectations over one frame, in memory.

One call is one ephemeral context and one checkpoint. It writes, prints, logs and sends nothing, leaves a context of
the user's in place, and is the only part of candist that imports Great Expectations (2 to 4 s, 270 MB).
"""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import polars as pl

from candist_core.errors import TerminalError

# Great Expectations has one current context a process, and a second check would swap the first one's.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation of Great Expectations, by the name of its class."""

    name: str
    kind: str
    arguments: Mapping[str, Any]


def judge(frame: pl.DataFrame, expectations: Sequence[Expectation]) -> dict[str, bool]:
    """Whether each expectation holds of the frame, by name.

    Raises:
        TerminalError: an expectation could not be carried out; Great Expectations itself calls that a failure.
    """
    with _ONE_AT_A_TIME, _own_context() as (gx, context):
        batch = context.data_sources.add_pandas("candist").add_dataframe_asset("rows")
        suite = gx.ExpectationSuite(name="candist")
        for wanted in expectations:
            kind = getattr(gx.expectations, wanted.kind)
            suite.add_expectation(kind(**wanted.arguments, meta={"check": wanted.name}))
        definition = gx.ValidationDefinition(
            name="candist",
            data=batch.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(suite),
        )
        checkpoint = gx.Checkpoint(
            name="candist",
            validation_definitions=[context.validation_definitions.add(definition)],
            result_format="BOOLEAN_ONLY",
        )
        rows = frame.to_pandas(use_pyarrow_extension_array=True)
        run = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
        (outcome,) = run.run_results.values()
        return {result.expectation_config.meta["check"]: _verdict(result) for result in outcome.results}


def _verdict(result: Any) -> bool:
    info = result.exception_info or {}
    # One exception lies in the dictionary itself, several lie below the ids of the metrics that raised them.
    for raised in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if raised.get("raised_exception"):
            name, said = result.expectation_config.meta["check"], " ".join(str(raised["exception_message"]).split())
            raise TerminalError(f"check {name} could not be carried out, which says nothing of the data: {said}")
    return bool(result.success)


@contextmanager
def _own_context() -> Iterator[tuple[Any, Any]]:
    """Great Expectations and a context in memory; the context that was current before is so again afterwards."""
    gx = _import_great_expectations()
    from great_expectations.data_context.data_context.context_factory import project_manager
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.exceptions import DataContextRequiredError

    try:
        before = project_manager.get_current_project()
    except DataContextRequiredError:
        before = None
    try:
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        yield gx, gx.get_context(mode="ephemeral", project_config=config)
    finally:
        project_manager.set_project(before)


def _import_great_expectations() -> Any:
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
