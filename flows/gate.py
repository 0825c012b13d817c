"""The gate between stages: a failed check that is to fail the run ends it here, unless a person lets it go on."""

from collections.abc import Callable, Iterable

from candist_core.errors import GateError, RefusedError
from candist_core.reports import CheckResult

Ask = Callable[[str, str], str]
"""Asks a person whether to go on: what it is about, and the question. Gives their note; a no is a `RefusedError`."""


def stop_if_failed(what: str, checks: Iterable[CheckResult]) -> None:
    """Raise for checks that fail the run, all of them in one sentence.

    Raises:
        GateError: naming each check with what was observed and wanted.
    """
    if failures := tuple(str(check) for check in checks if check.stops):
        raise GateError(what, failures)


class Gate:
    """One run's gate: what a person lets through once passes for the rest of the run.

    Args:
        ask: asks a person; without it every failure that counts ends the run.

    Example:
        >>> check = CheckResult(name="run.unparsed_rate", passed=False, observed="9 %", wanted="at most 5 %")
        >>> gate = Gate(ask=lambda what, question: "known noise")
        >>> [(check.on_fail, check.observed) for check in gate.pass_or_stop("annotations", [check])]
        [('warn', '9 %, let through by a person: known noise')]
    """

    def __init__(self, ask: Ask | None = None) -> None:
        self._ask = ask
        self._let_through: dict[str, str] = {}

    def pass_or_stop(self, what: str, checks: Iterable[CheckResult]) -> list[CheckResult]:
        """The checks, those that a person lets through as warnings that say so.

        Raises:
            GateError: naming each check that nobody lets through.
        """
        seen = [self._marked(check) for check in checks]
        failures = {check.name: str(check) for check in seen if not check.passed and check.on_fail == "fail"}
        if not failures or self._ask is None:
            stop_if_failed(what, seen)
            return seen
        question = "These checks failed:\n\n" + "\n".join(f"* {failure}" for failure in failures.values())
        try:
            note = self._ask(f"failed checks of the {what}", question)
        except RefusedError as refusal:
            raise GateError(what, tuple(failures.values())) from refusal
        self._let_through |= dict.fromkeys(failures, note)
        return [self._marked(check) for check in seen]

    def _marked(self, check: CheckResult) -> CheckResult:
        if check.passed or check.on_fail != "fail" or check.name not in self._let_through:
            return check
        note = self._let_through[check.name]
        said = "let through by a person" + (f": {note}" if note else "")
        return check.model_copy(update={"on_fail": "warn", "observed": f"{check.observed}, {said}"})
