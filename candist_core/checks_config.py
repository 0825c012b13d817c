"""Settings of the checks: what each is called, its bound, and what its failure does. Part of `RunConfig`.

Lists of named entries and no free mappings, because the model is also the form in the Prefect UI.
"""

import json
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from candist_core.spec import Settings


class OnFail(StrEnum):
    """What a failed check does: stop the run, say so and go on, or set the rows at fault aside."""

    FAIL = "fail"
    WARN = "warn"
    QUARANTINE = "quarantine"


class Table(StrEnum):
    """Which table an expectation of the user's own is about."""

    ANNOTATIONS = "annotations"
    LABELS = "labels"


class Reference(StrEnum):
    """What the balance of labels is compared with."""

    AUTO = "auto"
    PRIOR = "prior"
    AUDIT = "audit"
    PREVIOUS = "previous"
    NONE = "none"


_ALWAYS = (OnFail.FAIL,)
_ROWS = (OnFail.FAIL, OnFail.QUARANTINE)
_RATE = (OnFail.FAIL, OnFail.WARN, OnFail.QUARANTINE)
_WHOLE = (OnFail.FAIL, OnFail.WARN)

CHECKS: dict[str, tuple[OnFail, ...]] = {
    "ingest.rejected_rate": _WHOLE,
    "annotations.schema": _ALWAYS,
    "annotations.one_row_per_doc": _ALWAYS,
    "annotations.known_status": _ROWS,
    "annotations.known_labels": _ROWS,
    "annotations.unique_labels": _ROWS,
    "annotations.nonempty_when_ok": _ROWS,
    "annotations.teacher": _ROWS,
    "annotations.strategy": _RATE,
    "annotations.set_size": _RATE,
    "annotations.unparsed_rate": _RATE,
    "annotations.failed_rate": _RATE,
    "annotations.abstained_rate": _RATE,
    "run.one_row_per_doc": _ALWAYS,
    "run.unparsed_rate": _WHOLE,
    "run.failed_rate": _WHOLE,
    "run.abstained_rate": _WHOLE,
    "run.oversized_rate": _WHOLE,
    "run.single_rate": _WHOLE,
    "run.identical_rate": _WHOLE,
    "run.balance": _WHOLE,
    "labels.schema": _ALWAYS,
    "labels.one_row_per_doc": _ALWAYS,
    "labels.known_labels": _ALWAYS,
    "labels.confidence": _ALWAYS,
    "labels.review_rate": _WHOLE,
    "labels.mean_confidence": _WHOLE,
    "labels.agreement": _WHOLE,
    "labels.out_of_set_rate": _WHOLE,
    "labels.class_presence": _WHOLE,
    "labels.balance": _WHOLE,
    "quality.identical-sets": _WHOLE,
    "quality.class-collapse": _WHOLE,
    "quality.weak-coverage": _WHOLE,
}
"""Every check by its stable name, and what its failure may do. `docs/checks.md` says what each is about."""


def is_structural(check: str) -> bool:
    """Whether a check fails the run unless it is named in `checks.on_fail_by_check`, whatever `checks.on_fail` says.

    Example:
        >>> is_structural("annotations.known_labels"), is_structural("annotations.unparsed_rate")
        (True, False)
    """
    return OnFail.WARN not in CHECKS[check]


class CheckOnFail(Settings):
    """What the failure of one check does."""

    check: str = Field(
        description="Name of the check, such as annotations.unparsed_rate.",
        json_schema_extra={"enum": list(CHECKS)},
    )
    on_fail: OnFail = Field(description="What its failure does.")

    @model_validator(mode="after")
    def _check_may_do_so(self) -> Self:
        if self.check not in CHECKS:
            near = get_close_matches(self.check, CHECKS, n=1, cutoff=0.5)
            step = f"did you mean {near[0]!r}?" if near else "docs/checks.md lists them"
            raise ValueError(f"found the unknown check {self.check!r}, wanted a known one; {step}")
        if self.on_fail not in (allowed := CHECKS[self.check]):
            why = "other rows than those of a shard" if OnFail.WARN in allowed else "what later stages rely on"
            raise ValueError(f"found {self.on_fail} for {self.check}, wanted {' or '.join(allowed)}; it is about {why}")
        return self


class LabelShare(Settings):
    """How often one label is expected."""

    label: str = Field(min_length=1, description="Name of the label.")
    share: float = Field(ge=0, le=1, description="Share of the texts that carry it.")


def _as_json(value: Any) -> Any:
    """A mapping, as YAML has it, becomes the text that the form has."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


class OwnExpectation(Settings):
    """An expectation of the user's own: any of Great Expectations, by name."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Name of the check; it shows as own.NAME.",
    )
    on: Table = Field(Table.ANNOTATIONS, description="annotations: each shard's, early. labels: the final ones.")
    expectation: str = Field(
        min_length=1, description="Name in Great Expectations, such as ExpectColumnValueLengthsToBeBetween."
    )
    arguments: Annotated[str, BeforeValidator(_as_json)] = Field(
        "{}", description='Its arguments as JSON, such as {"column": "doc_id", "max_value": 40}.'
    )
    on_fail: OnFail | None = Field(None, description="What its failure does; empty: as checks.on_fail says.")

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        try:
            arguments = json.loads(self.arguments)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            raise ValueError(
                f"found arguments of {self.name} that are no JSON object, wanted one; write them as "
                '{"column": "n_candidates", "max_value": 3}'
            )
        if self.on is Table.LABELS and self.on_fail is OnFail.QUARANTINE:
            raise ValueError(
                f"found quarantine for {self.name} on labels, wanted fail or warn; "
                "only rows of annotations can be set aside"
            )
        return self

    @property
    def check(self) -> str:
        """The name under which its result stands."""
        return f"own.{self.name}"


class ChecksConfig(Settings):
    """Gates on the teacher's answers and on the final labels."""

    on_fail: OnFail = Field(OnFail.FAIL, description="What a failed check does, where no entry below names it.")
    on_fail_by_check: tuple[CheckOnFail, ...] = Field((), description="What the failure of single checks does.")
    max_rejected_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the corpus's rows that cannot be used: empty, oversized, unreadable, without an id of "
        "their own.",
    )
    ask_on_failure: bool = Field(
        False,
        description="A run of a Prefect deployment pauses at a check that fails it, until a person decides.",
    )
    max_unparsed_rate: float = Field(0.05, ge=0, le=1, description="Share of replies that name no label.")
    max_failed_rate: float = Field(0.05, ge=0, le=1, description="Share of texts refused by the teacher or failed.")
    max_abstained_rate: float = Field(0.2, ge=0, le=1, description="Share of texts for which the teacher names none.")
    max_oversized_rate: float = Field(
        0.05, ge=0, le=1, description="Share of sets larger than task.max_candidates, or than the strategy allows."
    )
    min_single_rate: float = Field(0.0, ge=0, le=1, description="Share of sets with one label, at least.")
    max_single_rate: float = Field(1.0, ge=0, le=1, description="Share of sets with one label, at most.")
    min_identical_rate: float = Field(0.0, ge=0, le=1, description="Share of the most frequent set, at least.")
    max_identical_rate: float = Field(0.98, ge=0, le=1, description="Share of the most frequent set, at most.")
    balance: Reference = Field(
        Reference.AUTO,
        description="What the balance of labels is compared with; auto: the prior, else the previous published "
        "version, as far as there is one; an audit by name only.",
    )
    prior: tuple[LabelShare, ...] = Field(
        (), description="Expected share of each label; labels left out share the rest."
    )
    max_psi: float = Field(
        0.25,
        gt=0,
        le=100,
        description="Population stability index of the labels, at most, beyond what chance makes of their number.",
    )
    max_review_rate: float = Field(0.6, ge=0, le=1, description="Share of final labels that want review.")
    min_mean_confidence: float = Field(0.0, ge=0, le=1, description="Mean confidence of the final labels.")
    min_agreement: float = Field(
        0.3, ge=0, le=1, description="Share of final labels that are the first choice of teacher and student alike."
    )
    max_out_of_set_rate: float = Field(
        0.5, ge=0, le=1, description="Share of final labels that are not among the candidates."
    )
    max_absent_rate: float = Field(0.5, ge=0, le=1, description="Share of the task's labels that no text got.")
    expectations: tuple[OwnExpectation, ...] = Field((), description="Expectations of your own.")

    @model_validator(mode="after")
    def _bounds_and_names_fit(self) -> Self:
        for what in ("single_rate", "identical_rate"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low > high:
                raise ValueError(f"found min_{what} {low} above max_{what} {high}, wanted a band; lower min_{what}")
        for where, names in (
            ("on_fail_by_check", [entry.check for entry in self.on_fail_by_check]),
            ("prior", [entry.label for entry in self.prior]),
            ("expectations", [entry.name for entry in self.expectations]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"found {twice!r} twice under {where}, wanted each once; remove one")
        if self.balance is Reference.PRIOR and not self.prior:
            raise ValueError("found balance prior without a prior, wanted shares; state them under checks.prior")
        return self

    def of_shards(self) -> dict[str, Any]:
        """What bears on the checks of a shard, as plain data; other bounds change without a shard being done again."""
        own = tuple(one for one in self.expectations if one.on is Table.ANNOTATIONS)
        bounds = {"on_fail", "max_unparsed_rate", "max_failed_rate", "max_abstained_rate", "max_oversized_rate"}
        entries = [entry for entry in self.on_fail_by_check if entry.check.startswith("annotations.")]
        lists = {"on_fail_by_check": entries, "expectations": own}
        return self.model_dump(mode="json", include=bounds) | {
            name: [entry.model_dump(mode="json") for entry in lists[name]] for name in lists
        }

    def on_fail_of(self, check: str) -> OnFail:
        """What the failure of a check does.

        Example:
            >>> checks = ChecksConfig(on_fail="quarantine")
            >>> checks.on_fail_of("annotations.unparsed_rate").value, checks.on_fail_of("run.unparsed_rate").value
            ('quarantine', 'warn')
        """
        for entry in self.on_fail_by_check:
            if entry.check == check:
                return entry.on_fail
        if is_structural(check):
            return OnFail.FAIL
        if self.on_fail in CHECKS[check]:
            return self.on_fail
        # Of a whole run no rows can be set aside; those of its shards already are.
        return OnFail.WARN if check.startswith("run.") else OnFail.FAIL

    def on_fail_of_own(self, own: OwnExpectation) -> OnFail:
        """What the failure of an expectation of the user's own does."""
        wanted = own.on_fail or self.on_fail
        return OnFail.FAIL if own.on is Table.LABELS and wanted is OnFail.QUARANTINE else wanted
