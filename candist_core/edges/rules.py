"""What is claimed of each row of annotations and of final labels; Polars finds the rows that a claim is true of."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from candist_core.candidates import Status
from candist_core.checks_config import ChecksConfig, OnFail
from candist_core.config import RunConfig
from candist_core.edges.measures import Measure, band, share
from candist_core.spec import Strategy, TaskSpec

UNPARSED = "replies that name no label"
FAILED = "texts refused or failed"
ABSTAINED = "texts for which the teacher names no label"
OVERSIZED = "sets larger than task.max_candidates"


@dataclass(frozen=True, slots=True)
class Rule:
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
        """Whether a single row breaks it."""
        return self.at_most is None and self.at_least is None

    def measure(self, found: int, n: int, on_fail: OnFail, rate_rows: int) -> Measure:
        """The number of rows that the claim is true of, or their share of the n of which it says something."""
        is_judged = n >= (1 if self.is_structural else rate_rows)
        too_few = "" if is_judged or not n else ", too few rows to judge a rate"
        return Measure(
            name=self.name,
            value=(float(found) if self.is_structural else found / n) if is_judged else None,
            observed=share(found, n, self.what) + too_few,
            wanted="none" if self.is_structural else band(self.at_least, self.at_most),
            on_fail=on_fail,
            at_least=self.at_least,
            at_most=0.0 if self.is_structural else self.at_most,
            n_unexpected=found if self.at_least is None else n - found,
            n=n,
        )


def count(frame: pl.DataFrame, rules: Sequence[Rule]) -> dict[str, tuple[int, int]]:
    """By rule: the rows for which its claim is true, and those of which it says something."""
    if not frame.height:
        return {rule.name: (0, 0) for rule in rules}
    # Claims first: polars would work each out twice for its two numbers.
    claims = frame.select(rule.claim.alias(rule.name) for rule in rules)
    return {claim.name: (int(claim.sum() or 0), frame.height - claim.null_count()) for claim in claims}


def annotation_rules(config: RunConfig, teachers: Sequence[str]) -> tuple[Rule, ...]:
    """What is claimed of a row of annotations.

    Args:
        config: the labels, the strategy, the bounds.
        teachers: the names that may stand in a row.
    """
    spec, checks = config.task, config.checks
    status, candidates = pl.col("status"), pl.col("candidates")
    size, unknown = candidates.list.len(), ~pl.element().is_in(list(spec.label_names))
    listed, counted = candidates.list.join(", "), size.cast(pl.String)
    # Rows of texts that were not asked are made where they are wanted, and stored nowhere.
    statuses = [status.value for status in Status if status is not Status.UNREAD]
    is_teacher = pl.col("teacher").is_in(list(teachers))
    structural = (
        Rule("annotations.known_status", "texts with an unknown status", ~status.is_in(statuses), status),
        Rule(
            "annotations.known_labels",
            "sets with an unknown label",
            candidates.list.eval(unknown).list.any(),
            candidates.list.eval(pl.element().filter(unknown)).list.join(", "),
        ),
        Rule("annotations.unique_labels", "sets with a label twice", candidates.list.n_unique() < size, listed),
        Rule(
            "annotations.nonempty_when_ok",
            "texts with status ok and no label, or with a label and another status",
            (status == Status.OK) != (size > 0),
            status + pl.lit(": ") + counted,
        ),
        Rule("annotations.teacher", f"texts by another than {', '.join(teachers)}", ~is_teacher, pl.col("teacher")),
    )
    most = _most_by_strategy(config)
    too_many = pl.when(size > 0).then(size > most) if most else pl.lit(None, pl.Boolean)
    rates = (
        ("strategy", f"sets larger than strategy {spec.strategy} allows", too_many, listed, checks.max_oversized_rate),
        ("set_size", OVERSIZED, _oversized(spec), counted, checks.max_oversized_rate),
        ("unparsed_rate", UNPARSED, status == Status.UNPARSED, status, checks.max_unparsed_rate),
        ("failed_rate", FAILED, status.is_in([Status.REFUSED, Status.FAILED]), status, checks.max_failed_rate),
        ("abstained_rate", ABSTAINED, status == Status.ABSTAINED, status, checks.max_abstained_rate),
    )
    return (
        *structural,
        *(Rule(f"annotations.{name}", what, claim, value, bound) for name, what, claim, value, bound in rates),
    )


def label_rules(spec: TaskSpec, checks: ChecksConfig) -> tuple[Rule, ...]:
    """What is claimed of a final label."""
    label, confidence, candidates = pl.col("label"), pl.col("confidence"), pl.col("candidates")
    is_sound = confidence.is_finite() & confidence.is_between(0, 1)
    is_answered = (candidates.list.len() > 0) & (pl.col("source") != "reviewed")
    return (
        Rule("labels.known_labels", "unknown labels", ~label.is_in(list(spec.label_names)), label),
        Rule("labels.confidence", "confidences outside 0 to 1", ~is_sound, confidence),
        Rule(
            "labels.review_rate",
            "labels that want review",
            pl.col("needs_review"),
            pl.col("reason"),
            at_most=checks.max_review_rate,
        ),
        Rule(
            "labels.agreement",
            "labels that are the first choice of teacher and student alike",
            pl.when(is_answered).then(pl.col("source") == "agreed"),
            label,
            at_least=checks.min_agreement,
        ),
        Rule(
            "labels.out_of_set_rate",
            "labels outside their candidates",
            pl.when(is_answered).then(~label.is_in(candidates)),
            label,
            at_most=checks.max_out_of_set_rate,
        ),
    )


def _oversized(spec: TaskSpec) -> pl.Expr:
    size = pl.col("candidates").list.len()
    return pl.when(size > 0).then(size > spec.max_candidates)


def _most_by_strategy(config: RunConfig) -> int | None:
    """Labels in a set by one answer to `sa`; several answers make larger sets, and the other strategies allow any."""
    is_one_answer = len(config.teachers) == 1 and config.teacher.samples == 1
    return 1 if config.task.strategy is Strategy.SA and is_one_answer else None
