"""What is checked of annotations, of a run's rates, and of final labels.

Polars derives for each row whether a claim holds, Great Expectations judges whether the check passes (`judge`), and
`failing_rows` names the rows at fault: Great Expectations would slow with their number.

Names of checks are stable, users refer to them. Structural checks fail the run whatever `checks.on_fail` says. A
check over no rows passes. A shard's rates are judged from `RATE_ROWS` rows on, a run's always.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from candist_core.candidates import Status
from candist_core.config import ChecksConfig, OnFail
from candist_core.edges.judge import Expectation, judge
from candist_core.reports import CheckResult
from candist_core.spec import TaskSpec
from candist_core.tables import ANNOTATIONS, LABELS, check

RATE_ROWS = 50
"""In a smaller shard one odd row moves a rate by more than 2 points; the run's own rates judge it."""

_UNPARSED = "replies that name no label"
_FAILED = "texts refused or failed"
_ABSTAINED = "texts for which the teacher names no label"
_OVERSIZED = "sets larger than task.max_candidates"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A claim on each row, null where it says nothing of it; without a bound it is structural and none may be true.

    `what` names the rows for which it is true, `value` is what stands in them.
    """

    name: str
    what: str
    claim: pl.Expr
    value: pl.Expr
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_structural(self) -> bool:
        return self.at_most is None and self.at_least is None

    @property
    def expectation(self) -> Expectation:
        if self.is_structural:
            return Expectation(self.name, "ExpectColumnValuesToBeInSet", {"column": self.name, "value_set": [0]})
        bounds = {"min_value": self.at_least, "max_value": self.at_most}
        return Expectation(self.name, "ExpectColumnMeanToBeBetween", {"column": self.name, **bounds})

    @property
    def wanted(self) -> str:
        if self.at_least is not None:
            return f"at least {_per_cent(self.at_least)}"
        return "none" if self.at_most is None else f"at most {_per_cent(self.at_most)}"


def check_annotations(
    annotations: pl.DataFrame, n_expected: int, spec: TaskSpec, checks: ChecksConfig, teacher: str
) -> tuple[CheckResult, ...]:
    """Check one shard: each text once, sound sets of known labels by one teacher, and the rates.

    Args:
        annotations: annotations/1, with a row for each text that was asked about, failed ones included.
        n_expected: number of those texts.
        spec: the labels and the largest set.
        checks: bounds on the rates, and what a rate out of bounds does.
        teacher: the name that each row must carry.

    Raises:
        ContractError: a column is missing or of another type.
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    check(annotations.clear(), ANNOTATIONS)
    rules = _annotation_rules(spec, checks, teacher)
    return _check_rows("annotations", annotations, n_expected, rules, checks.on_fail, RATE_ROWS)


def check_labels(
    labels: pl.DataFrame, spec: TaskSpec, checks: ChecksConfig, n_expected: int
) -> tuple[CheckResult, ...]:
    """Check all final labels of a run: each text once, known labels, sound confidences, and the rates.

    A rate out of bounds here is a property of the whole, with no rows to set aside: `quarantine` fails the run.

    Raises:
        ContractError: a column is missing or of another type.
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    check(labels.clear(), LABELS)
    on_fail = OnFail.FAIL if checks.on_fail is OnFail.QUARANTINE else checks.on_fail
    return _check_rows("labels", labels, n_expected, _label_rules(spec, checks), on_fail, 1)


def check_summary(counts: pl.DataFrame, checks: ChecksConfig) -> tuple[CheckResult, ...]:
    """Check the rates of a whole run: over all its texts, not as a mean of its shards' rates.

    What `quarantine` sets aside is gone from the shards already, so that it only warns here.

    Args:
        counts: a row for each shard; under the name of each status the number of its texts, under `oversized`
            the number of its sets above `max_candidates`. A column that is missing, or null, counts nothing.
        checks: bounds on the rates.

    Raises:
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    statuses = [status.value for status in Status]
    absent = [pl.lit(0).alias(name) for name in (*statuses, "oversized") if name not in counts.columns]
    shards = counts.with_columns(absent).select(pl.col(*statuses, "oversized").cast(pl.Int64).fill_null(0))
    n_texts, n_sets = int(shards.select(statuses).sum().sum_horizontal().item()), int(shards["ok"].sum())
    shards = shards.with_columns(failed=pl.col("failed") + pl.col("refused"))
    rates = {
        "unparsed": (n_texts, checks.max_unparsed_rate, _UNPARSED),
        "failed": (n_texts, checks.max_failed_rate, _FAILED),
        "abstained": (n_texts, checks.max_abstained_rate, _ABSTAINED),
        "oversized": (n_sets, checks.max_oversized_rate, _OVERSIZED),
    }
    verdicts = judge(
        shards,
        [
            Expectation(name, "ExpectColumnSumToBeBetween", {"column": name, "max_value": _allowed(n, bound)})
            for name, (n, bound, _) in rates.items()
        ],
    )
    on_fail = OnFail.WARN if checks.on_fail is OnFail.QUARANTINE else checks.on_fail
    return tuple(
        CheckResult(
            name=f"run.{name}_rate",
            passed=verdicts[name],
            observed=_share(found := int(shards[name].sum()), n, what),
            wanted=f"at most {_per_cent(bound)}",
            n_unexpected=found,
            n=n,
            on_fail=on_fail.value,
        )
        for name, (n, bound, what) in rates.items()
    )


def failing_rows(
    annotations: pl.DataFrame, results: Sequence[CheckResult], spec: TaskSpec, checks: ChecksConfig, teacher: str
) -> pl.DataFrame:
    """Name the rows at fault behind the checks of a shard that did not pass.

    Args:
        annotations: the frame that was checked.
        results: what `check_annotations` said of it.
        spec: as it was checked.
        checks: as it was checked.
        teacher: as it was checked.

    Returns:
        doc_id, check, value (what stands in the row); a doc_id once for each check that it breaks.
    """
    failed = {result.name for result in results if not result.passed}
    twice = _Rule("annotations.one_row_per_doc", "", pl.col("doc_id").is_duplicated(), pl.lit("stands more than once"))
    return pl.concat(
        [
            pl.DataFrame(schema={"doc_id": pl.String, "check": pl.String, "value": pl.String}),
            *(
                annotations.filter(rule.claim).select("doc_id", check=pl.lit(rule.name), value=rule.value)
                for rule in (twice, *_annotation_rules(spec, checks, teacher))
                if rule.name in failed
            ),
        ]
    )


def _check_rows(
    table: str, frame: pl.DataFrame, n_expected: int, rules: Sequence[_Rule], on_fail: OnFail, rate_rows: int
) -> tuple[CheckResult, ...]:
    claims = frame.select("doc_id", *(rule.claim.cast(pl.Int8).alias(rule.name) for rule in rules))
    n_rows = {rule.name: frame.height - claims[rule.name].null_count() for rule in rules}
    judged = {rule.name for rule in rules if n_rows[rule.name] >= (1 if rule.is_structural else rate_rows)}
    verdicts = judge(
        claims,
        [
            Expectation("rows", "ExpectTableRowCountToEqual", {"value": n_expected}),
            Expectation("unique", "ExpectColumnValuesToBeUnique", {"column": "doc_id"}),
            *(rule.expectation for rule in rules if rule.name in judged),
        ],
    )
    n_twice = int(frame["doc_id"].is_duplicated().sum())
    results = [
        CheckResult(
            name=f"{table}.one_row_per_doc",
            passed=verdicts["rows"] and verdicts["unique"],
            observed=f"{frame.height:,} rows, {n_twice:,} of them with a doc_id that stands more than once",
            wanted=f"{n_expected:,} rows, each doc_id once",
            n_unexpected=n_twice + abs(frame.height - n_expected),
            n=frame.height,
        )
    ]
    for rule in rules:
        n, found = n_rows[rule.name], int(claims[rule.name].sum())
        too_few = "" if rule.name in judged or not n else ", too few rows to judge a rate"
        results.append(
            CheckResult(
                name=rule.name,
                passed=verdicts.get(rule.name, True),
                observed=_share(found, n, rule.what) + too_few,
                wanted=rule.wanted,
                n_unexpected=found if rule.at_least is None else n - found,
                n=n,
                on_fail=(OnFail.FAIL if rule.is_structural else on_fail).value,
            )
        )
    return tuple(results)


def _annotation_rules(spec: TaskSpec, checks: ChecksConfig, teacher: str) -> tuple[_Rule, ...]:
    status, candidates = pl.col("status"), pl.col("candidates")
    size, unknown = candidates.list.len(), ~pl.element().is_in(list(spec.label_names))
    oversized = pl.when(size > 0).then(size > spec.max_candidates)
    listed, counted = candidates.list.join(", "), size.cast(pl.String)
    statuses = [status.value for status in Status]
    return (
        _Rule("annotations.known_status", "texts with an unknown status", ~status.is_in(statuses), status),
        _Rule(
            "annotations.known_labels",
            "sets with an unknown label",
            candidates.list.eval(unknown).list.any(),
            candidates.list.eval(pl.element().filter(unknown)).list.join(", "),
        ),
        _Rule("annotations.unique_labels", "sets with a label twice", candidates.list.n_unique() < size, listed),
        _Rule(
            "annotations.nonempty_when_ok",
            "texts with status ok and no label, or with a label and another status",
            (status == Status.OK) != (size > 0),
            status + pl.lit(": ") + counted,
        ),
        _Rule("annotations.teacher", "texts by another teacher", pl.col("teacher") != teacher, pl.col("teacher")),
        _Rule("annotations.set_size", _OVERSIZED, oversized, counted, checks.max_oversized_rate),
        _Rule("annotations.unparsed_rate", _UNPARSED, status == Status.UNPARSED, status, checks.max_unparsed_rate),
        _Rule(
            "annotations.failed_rate",
            _FAILED,
            status.is_in([Status.REFUSED.value, Status.FAILED.value]),
            status,
            checks.max_failed_rate,
        ),
        _Rule("annotations.abstained_rate", _ABSTAINED, status == Status.ABSTAINED, status, checks.max_abstained_rate),
    )


def _label_rules(spec: TaskSpec, checks: ChecksConfig) -> tuple[_Rule, ...]:
    label, confidence, candidates = pl.col("label"), pl.col("confidence"), pl.col("candidates")
    is_sound = confidence.is_finite() & confidence.is_between(0, 1)
    agrees = pl.when(candidates.list.len() > 0).then(label.is_in(candidates))
    return (
        _Rule("labels.known_labels", "unknown labels", ~label.is_in(list(spec.label_names)), label),
        _Rule("labels.confidence", "confidences outside 0 to 1", ~is_sound, confidence),
        _Rule(
            "labels.review_rate",
            "labels that want review",
            pl.col("needs_review"),
            pl.col("reason"),
            checks.max_review_rate,
        ),
        _Rule("labels.agreement", "labels among their candidates", agrees, label, at_least=checks.min_agreement),
    )


def _allowed(n: int, bound: float) -> int:
    """The largest number of n rows whose share is within the bound."""
    # bound * n may fall just short of a whole number (0.29 * 100), where the division does not.
    near = round(bound * n)
    return near if near <= bound * n or near / max(n, 1) <= bound else near - 1


def _share(found: int, n: int, what: str) -> str:
    if not n:
        return "no rows"
    return f"{_per_cent(found / n)} ({found:,} of {n:,}) {what}"


def _per_cent(share: float) -> str:
    """Per cent with as many digits as it takes not to look like another share."""
    return f"{100 * share:.4g} %"
