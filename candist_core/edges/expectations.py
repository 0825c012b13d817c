"""What is checked of annotations, of a run's rates, and of final labels.

Polars measures, Great Expectations judges the numbers (`measures`), and `failing_rows` names the rows at fault.

Names of checks are stable, users refer to them (`candist_core.checks_config.CHECKS`). Structural checks fail the run
whatever `checks.on_fail` says. A check over no rows passes. A shard's rates are judged from `RATE_ROWS` rows on, a
run's always.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import polars as pl

from candist_core.balance import Expected, shift_of
from candist_core.candidates import Status
from candist_core.checks_config import ChecksConfig
from candist_core.config import RunConfig
from candist_core.edges.ids import IdCounter
from candist_core.edges.measures import Measure, band, judge_measures, per_cent, share
from candist_core.edges.rules import ABSTAINED, FAILED, OVERSIZED, UNPARSED, Rule, annotation_rules, count, label_rules
from candist_core.errors import ContractError
from candist_core.reports import AnnotateReport, CheckResult
from candist_core.tables import ANNOTATIONS, LABELS, Contract, check

Key = TypeVar("Key")

RATE_ROWS = 50
"""In a smaller shard one odd row moves a rate by more than 2 points; the run's own rates judge it."""
_ROWS_PER_LABEL = 10
"""Below it some label is absent from many a sound corpus, and a student knows too little to agree with anyone."""


def check_annotations(
    annotations: pl.DataFrame, n_expected: int, config: RunConfig, teachers: Sequence[str]
) -> tuple[CheckResult, ...]:
    """Check one shard: each text once, sound sets of known labels by the teacher, and the rates.

    Args:
        annotations: annotations/1, with a row for each text that was asked about, failed ones included.
        n_expected: number of those texts.
        config: labels, strategy, bounds, and what a check out of bounds does.
        teachers: the names that may stand in a row.

    Raises:
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    schema = _schema("annotations", annotations, ANNOTATIONS, config.checks)
    if schema.value:
        # Nothing else can be measured of columns that are not there.
        return judge_measures([schema])
    rules = annotation_rules(config, teachers)
    counts, ids = count(annotations, rules), IdCounter()
    ids.add(annotations["doc_id"])
    return judge_measures(
        [
            schema,
            _one_row_per_doc("annotations", ids.n, ids.n_repeated, n_expected, config.checks),
            *(rule.measure(*counts[rule.name], config.checks.on_fail_of(rule.name), RATE_ROWS) for rule in rules),
        ]
    )


def failing_rows(
    annotations: pl.DataFrame, results: Sequence[CheckResult], config: RunConfig, teachers: Sequence[str]
) -> pl.DataFrame:
    """Name the rows at fault behind the checks of a shard that did not pass.

    Args:
        annotations: the frame that was checked.
        results: what `check_annotations` said of it.
        config: as it was checked.
        teachers: as it was checked.

    Returns:
        doc_id, check, value (what stands in the row); a doc_id once for each check that it breaks.
    """
    failed = {result.name for result in results if not result.passed} - {"annotations.schema"}
    twice = Rule("annotations.one_row_per_doc", "", pl.col("doc_id").is_duplicated(), pl.lit("stands more than once"))
    rules = (twice, *annotation_rules(config, teachers)) if failed else ()
    return pl.concat(
        [
            pl.DataFrame(schema={"doc_id": pl.String, "check": pl.String, "value": pl.String}),
            *(
                annotations.filter(rule.claim).select("doc_id", check=pl.lit(rule.name), value=rule.value)
                for rule in rules
                if rule.name in failed
            ),
        ]
    )


def sum_up(annotated: Iterable[AnnotateReport]) -> tuple[CheckResult, ...]:
    """The checks of all shards, one result for each name: its rows added up, passed where it passed in each."""
    by_name: dict[str, list[CheckResult]] = {}
    for report in annotated:
        for result in report.checks:
            by_name.setdefault(result.name, []).append(result)
    return tuple(map(_sum_of, by_name.values()))


def check_run(
    annotated: Sequence[AnnotateReport], config: RunConfig, expected: Expected | None, ids: IdCounter
) -> tuple[CheckResult, ...]:
    """Check a whole run: over all its texts, not as a mean of its shards.

    What `quarantine` sets aside is gone from the shards already, so that it only warns here.

    Args:
        annotated: what each shard reported.
        config: labels and bounds.
        expected: the balance that labels should have; None where there is nothing to compare with.
        ids: of all annotations.

    Raises:
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    checks, statuses = config.checks, _added(report.statuses for report in annotated)
    sizes, sets = _added(report.set_sizes for report in annotated), _added(one.frequent_sets for one in annotated)
    n_texts, n_sets = sum(statuses.values()), statuses[Status.OK]
    n_oversized = sum(n for size, n in sizes.items() if size > config.task.max_candidates)
    kept = sum(n for size, n in sizes.items() if size)
    usual, n_usual = max(sets.items(), key=lambda pair: pair[1], default=("", 0))
    rates = (
        _rate("unparsed", statuses[Status.UNPARSED], n_texts, UNPARSED, checks, (None, checks.max_unparsed_rate)),
        _rate(
            "failed",
            statuses[Status.FAILED] + statuses[Status.REFUSED],
            n_texts,
            FAILED,
            checks,
            (None, checks.max_failed_rate),
        ),
        _rate("abstained", statuses[Status.ABSTAINED], n_texts, ABSTAINED, checks, (None, checks.max_abstained_rate)),
        _rate("oversized", n_oversized, n_sets, OVERSIZED, checks, (None, checks.max_oversized_rate)),
        _rate(
            "single", sizes[1], kept, "sets with one label", checks, (checks.min_single_rate, checks.max_single_rate)
        ),
        _rate(
            "identical",
            n_usual,
            kept,
            f"sets that are the most frequent one, {usual}",
            checks,
            (checks.min_identical_rate, checks.max_identical_rate),
            at_least_rows=RATE_ROWS,
        ),
    )
    first = _added(report.first_labels for report in annotated)
    n_expected = sum(report.annotations.rows for report in annotated)
    return judge_measures(
        [
            _one_row_per_doc("run", ids.n, ids.n_repeated, n_expected, checks),
            *rates,
            balance_measure("run.balance", first, expected, config, "the teacher's first labels"),
        ]
    )


@dataclass
class LabelCounts:
    """What is counted of final labels, shard by shard, so that no more than a shard is held."""

    config: RunConfig
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    ids: IdCounter = field(default_factory=IdCounter)
    confidence: float = 0.0
    broken: str | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What is claimed of each label."""
        return label_rules(self.config.task, self.config.checks)

    def add(self, labels: pl.DataFrame) -> None:
        """Count one shard, under labels/1."""
        if (schema := _schema("labels", labels, LABELS, self.config.checks)).value:
            self.broken = schema.observed
            return
        for name, (found, n) in count(labels, self.rules).items():
            self.counts[name, 0] += found
            self.counts[name, 1] += n
        self.classes.update(dict(labels["label"].value_counts().iter_rows()))
        sound = labels.filter(pl.col("confidence").is_finite())["confidence"]
        self.confidence += float(sound.cast(pl.Float64).sum())
        self.ids.add(labels["doc_id"])


def check_labels(counts: LabelCounts, n_expected: int, expected: Expected | None) -> tuple[CheckResult, ...]:
    """Check all final labels of a run: each text once, known labels, sound confidences, and the rates.

    A rate out of bounds here is a property of the whole, with no rows to set aside: `quarantine` fails the run.

    Args:
        counts: of all shards.
        n_expected: labels that there should be.
        expected: the balance that they should have; None where there is nothing to compare with.

    Raises:
        TerminalError: Great Expectations could not carry out a check, which says nothing of the data.
    """
    config, checks, n = counts.config, counts.config.checks, counts.ids.n
    schema = Measure(
        "labels.schema", float(counts.broken is not None), counts.broken or f"a table under {LABELS.name}",
        f"a table under {LABELS.name}", checks.on_fail_of("labels.schema"), at_most=0.0,
    )  # fmt: skip
    mean = counts.confidence / max(n, 1)
    least = checks.min_mean_confidence
    names = config.task.label_names
    absent = [name for name in names if not counts.classes[name]]
    enough = _ROWS_PER_LABEL * len(names)
    is_enough = n >= enough
    return judge_measures(
        [
            schema,
            _one_row_per_doc("labels", n, counts.ids.n_repeated, n_expected, checks),
            *(
                rule.measure(
                    counts.counts[rule.name, 0], counts.counts[rule.name, 1], checks.on_fail_of(rule.name),
                    rate_rows=enough if rule.name == "labels.agreement" else 1,
                )
                for rule in counts.rules
            ),
            Measure(
                "labels.mean_confidence", mean if n else None, f"{mean:.3f}" if n else "no rows", f"at least {least:g}",
                checks.on_fail_of("labels.mean_confidence"), at_least=least, n=n,
            ),
            Measure(
                "labels.class_presence",
                len(absent) / len(names) if is_enough else None,
                share(len(absent), len(names), "labels that no text got")
                + (f", such as {absent[0]}" if absent else "")
                + ("" if is_enough else ", too few rows to judge"),
                band(None, checks.max_absent_rate),
                checks.on_fail_of("labels.class_presence"),
                at_most=checks.max_absent_rate,
                n_unexpected=len(absent),
                n=len(names),
            ),
            balance_measure("labels.balance", counts.classes, expected, config, "final labels"),
        ]
    )  # fmt: skip


def balance_measure(
    name: str, counts: Mapping[str, int], expected: Expected | None, config: RunConfig, what: str
) -> Measure:
    """The population stability index of labels; nothing to judge without labels or without anything to compare."""
    on_fail, labels, bound = config.checks.on_fail_of(name), config.task.label_names, config.checks.max_psi
    n = sum(counts.get(label, 0) for label in labels)
    if expected is None or not n:
        why = "nothing to compare with: no prior, no audit, no previous version with these labels"
        return Measure(name, None, "no rows" if expected is not None else why, f"at most {bound:g}", on_fail)
    shift = shift_of(counts, expected, labels)
    at_most = max(bound, shift.by_chance)
    by_chance = f", which chance alone reaches with so few texts (checks.max_psi {bound:g})"
    return Measure(
        name,
        shift.psi,
        f"population stability index {shift.psi:.3f} of {what} against {expected.source}, most by {shift.label}: "
        f"{per_cent(shift.observed)} instead of {per_cent(shift.expected)}",
        f"at most {at_most:.4g}" + (by_chance if at_most > bound else ""),
        on_fail,
        at_most=at_most,
        n=n,
    )


def _schema(table: str, frame: pl.DataFrame, contract: Contract, checks: ChecksConfig) -> Measure:
    found = wanted = f"a table under {contract.name}"
    try:
        # A key that stands twice has a check of its own.
        check(frame, replace(contract, key=None))
    except ContractError as error:
        found, wanted = error.found, error.wanted
    name, is_broken = f"{table}.schema", found != wanted
    return Measure(name, float(is_broken), found, wanted, checks.on_fail_of(name), at_most=0.0, n=frame.height)


def _one_row_per_doc(table: str, n: int, n_twice: int, n_expected: int, checks: ChecksConfig) -> Measure:
    name, n_wrong = f"{table}.one_row_per_doc", n_twice + abs(n - n_expected)
    return Measure(
        name,
        float(n_wrong),
        f"{n:,} rows, {n_twice:,} of them with a doc_id that stands more than once",
        f"{n_expected:,} rows, each doc_id once",
        checks.on_fail_of(name),
        at_most=0.0,
        n_unexpected=n_wrong,
        n=n,
    )


def _rate(
    name: str,
    found: int,
    n: int,
    what: str,
    checks: ChecksConfig,
    bounds: tuple[float | None, float],
    at_least_rows: int = 1,
) -> Measure:
    (low, high), full = bounds, f"run.{name}_rate"
    too_few = ", too few rows to judge a rate" if 0 < n < at_least_rows else ""
    value = found / n if n >= at_least_rows else None
    return Measure(
        full, value, share(found, n, what) + too_few, band(low, high), checks.on_fail_of(full), low, high, found, n
    )


def _sum_of(results: Sequence[CheckResult]) -> CheckResult:
    """One result of the same check in several shards."""
    failed = [i for i, result in enumerate(results) if not result.passed]
    # The words of the worst shard tell more than a mean.
    worst = max(results, key=lambda result: (not result.passed, result.value or 0.0))
    if len(results) == 1:
        return worst
    where = f"{worst.observed} in the worst of {len(results):,} shards"
    return worst.model_copy(
        update={
            "passed": not failed,
            "observed": where + (f", {len(failed):,} failed" if failed else ""),
            "n_unexpected": sum(result.n_unexpected for result in results),
            "n": sum(result.n for result in results),
        }
    )


def _added(counts: Iterable[Mapping[Key, int]]) -> Counter[Key]:
    total: Counter[Key] = Counter()
    for one in counts:
        total.update(one)
    return total
