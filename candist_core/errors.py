"""Every error this package raises, in one tree.

CandistError
├── TransientError            the same call may succeed later; tasks retry it
│   └── RateLimitedError      the endpoint asks for fewer requests: pacing, not failure
└── TerminalError             repeating the call changes nothing; tasks fail at once
    ├── BadInputError         something the user gave: thing, found, wanted, next step
    │   ├── ConfigError       the run's configuration
    │   ├── SourceError       the corpus
    │   │   └── EmptySourceError  there is no file of it yet
    │   ├── TeacherError      the endpoint, its key, its replies
    │   │   ├── SilentError   a server that does not answer at all: a wrong address, or it is down
    │   │   └── ForbiddenError    HTTP 403: a key without rights, or a text that somebody on the way stops
    │   ├── StudentError      the student's weights or what it is to learn from
    │   ├── StoreError        the place where tables or versions are kept
    │   └── ReviewError       the answers of people who reviewed texts
    ├── ContractError         a table is not what its contract says
    ├── EmptyCandidateSetError
    ├── RowError              one request is at fault; its row becomes a reject
    ├── GateError             a check failed; nothing is published
    │   └── DriftError        new texts are far from what the student learned from
    ├── BudgetError           the hard cap on spending is reached
    └── RefusedError          a person was asked, and said no

Errors take positional arguments and hand all of them to `super().__init__`.
A Dask worker process sends an error home as `type(e)(*e.args)`; one that
cannot be rebuilt that way arrives as a TypeError and its message is lost.
"""


class CandistError(Exception):
    """Root of every error that candist raises on purpose."""


class TransientError(CandistError):
    """The same call may succeed later: `what` failed, `detail` says how."""

    def __init__(self, what: str, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(what, detail, retry_after_s)
        self.what, self.detail, self.retry_after_s = what, detail, retry_after_s

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}" if self.detail else self.what


class RateLimitedError(TransientError):
    """The endpoint asks for fewer requests; uses up none of a row's attempts."""


class TerminalError(CandistError):
    """Repeating the call changes nothing."""


class BadInputError(TerminalError):
    """Something the user gave is not usable; one sentence says what to do."""

    def __init__(self, thing: str, found: str, wanted: str, next_step: str) -> None:
        super().__init__(thing, found, wanted, next_step)
        self.thing, self.found, self.wanted, self.next_step = thing, found, wanted, next_step

    def __str__(self) -> str:
        return f"{self.thing}: found {self.found}, wanted {self.wanted}; {self.next_step}"


class ConfigError(BadInputError):
    """The configuration of a run."""


class SourceError(BadInputError):
    """The corpus to label."""


class EmptySourceError(SourceError):
    """The place of a corpus has no file."""


class TeacherError(BadInputError):
    """The teacher as a whole: no key, wrong endpoint, missing replies. Ends the run."""


class SilentError(TeacherError):
    """A server that does not answer at all: a wrong address, or it is down. Ends the run, which may be run again."""


class ForbiddenError(TeacherError):
    """HTTP 403: a key without rights, or one text that a filter on the way stops; `detail` is the raw answer."""

    def __init__(self, thing: str, found: str, wanted: str, next_step: str, detail: str = "") -> None:
        super().__init__(thing, found, wanted, next_step)
        self.args = (thing, found, wanted, next_step, detail)
        self.detail = detail


class StudentError(BadInputError):
    """The student's weights, its device, or what it is to learn from."""


class StoreError(BadInputError):
    """The place where tables or versions are kept: missing, read-only, full."""


class ReviewError(BadInputError):
    """The answers of people who reviewed texts, or where these are given."""


class ContractError(TerminalError):
    """A table breaks its contract."""

    def __init__(self, contract: str, found: str, wanted: str) -> None:
        super().__init__(contract, found, wanted)
        self.contract, self.found, self.wanted = contract, found, wanted

    def __str__(self) -> str:
        return f"table {self.contract}: found {self.found}, wanted {self.wanted}"


class EmptyCandidateSetError(TerminalError):
    """An example reached the student with no label to learn from."""

    def __init__(self, row: int, n_empty: int) -> None:
        super().__init__(row, n_empty)
        self.row, self.n_empty = row, n_empty

    def __str__(self) -> str:
        return (
            f"{self.n_empty} rows of the candidate mask have no label, the first is row {self.row}; "
            "drop them first with candidates.has_candidates"
        )


class RowError(TerminalError):
    """The endpoint refuses one request for good; `reason` is a word, `detail` its raw answer."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class GateError(TerminalError):
    """Checks failed; each line names the check, what was observed and what was wanted."""

    def __init__(self, stage: str, failures: tuple[str, ...]) -> None:
        super().__init__(stage, tuple(failures))
        self.stage, self.failures = stage, tuple(failures)

    def __str__(self) -> str:
        return (
            f"checks of the {self.stage} failed, nothing is published: {'; '.join(self.failures)}; "
            "mend the cause, or change the bound or on_fail under checks, and run again, what is done is kept; "
            f"`candist report CONFIG` shows it, `candist {self._listing} CONFIG` names the rows"
        )

    @property
    def _listing(self) -> str:
        return "rejects" if self.stage == "corpus" else "quarantine list"


class DriftError(GateError):
    """New texts are beyond thresholds of drift, and the run is to stop there."""

    def __str__(self) -> str:
        return (
            f"new texts have drifted from what the student learned from, nothing is published: "
            f"{'; '.join(self.failures)}; distil anew with incremental.on_drift=redistill, go on with the old student "
            "with incremental.on_drift=warn, or raise the threshold, and run again, what is done is kept"
        )


class BudgetError(TerminalError):
    """The hard cap is reached; everything paid for is kept."""

    def __init__(self, spent_usd: float, max_usd: float, n_left: int, unpriced_usd: float = 0.0) -> None:
        super().__init__(spent_usd, max_usd, n_left, unpriced_usd)
        self.spent_usd, self.max_usd, self.n_left, self.unpriced_usd = spent_usd, max_usd, n_left, unpriced_usd

    def __str__(self) -> str:
        bound = f"; ${self.unpriced_usd:.4f} of it is the most that replies without a known cost may have cost"
        return (
            f"budget.max_usd: found ${self.spent_usd:.4f} spent of ${self.max_usd:.4f} with {self.n_left} texts "
            "still to annotate, wanted enough for all; raise budget.max_usd and run again, paid replies are kept"
            f"{bound if self.unpriced_usd else ''}"
        )


class RefusedError(TerminalError):
    """A person was asked about `what`, and said no; `note` is what they wrote."""

    def __init__(self, what: str, note: str = "") -> None:
        super().__init__(what, note)
        self.what, self.note = what, note

    def __str__(self) -> str:
        said = f" ({self.note})" if self.note else ""
        return f"{self.what}: refused by a person{said}; what is done is kept, run again to be asked again"
