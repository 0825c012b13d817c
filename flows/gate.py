"""The gate between stages: a failed check that is to fail the run ends it here."""

from collections.abc import Iterable

from candist_core.errors import GateError
from candist_core.reports import CheckResult


def stop_if_failed(what: str, checks: Iterable[CheckResult]) -> None:
    """Raise for checks that fail the run, all of them in one sentence.

    Raises:
        GateError: naming each check with what was observed and wanted.
    """
    if failures := tuple(str(check) for check in checks if check.stops):
        raise GateError(what, failures)
