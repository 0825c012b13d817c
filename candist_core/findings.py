"""Named signs of a failure: what was seen, what follows, what to do.

Each rule reads the numbers of a `QualityReport` and compares them with a bound. The bounds stand between what clean
corpora and what planted failures read in `docs/method.md`, "Failures and what shows them", or are stated as ours in
`docs/quality.md`. Names are stable. Invariant: no sentence holds a text of the corpus; labels are the task's own.
"""

from collections.abc import Callable, Iterable, Sequence
from math import comb
from typing import Literal

from candist_core.checks_config import ChecksConfig
from candist_core.reports import CheckResult, EpochReport, Finding, LabelQuality, QualityReport

MAX_IDENTICAL, STOP_IDENTICAL = 0.2, 0.6
"""Share of the most frequent set of several: 0.09 at most when clean, 0.30 and more when planted; at 0.90 final labels
were right on 11 and 45 %."""
MIN_COMPANIONS = 1.9
"""Companions of a first label: 2.1 and more when clean, 1.7 at most when planted."""
MIN_LIFT = 1.5
"""Belief in a further label over a random one's: 3.3 and more when clean, 0.7 to 0.9 where second labels were drawn by
chance (`candist bench quality`)."""
MIN_FIT = 0.8
"""Training fit: 0.96 and more when clean, 0.67 at most for students too small on TREC."""
MAX_RISE = 0.02
"""Rise of the approximated accuracy in the last epoch: 0.005 at most in full trainings of the sample corpus."""
MIN_OVERLAP, MIN_PAIR_ENTROPY = 0.8, 0.7
"""Of two labels that no text tells apart: 1.00 and 0.74; 0.50 and 0.66 at most when clean."""
MIN_ESTIMATE = 0.88
"""Coverage by the students: 0.94 and more when clean, 0.85 with three of ten answers mixed up (`candist bench
quality`)."""
MIN_COVERAGE, STOP_COVERAGE = 0.8, 0.6
"""Of an audit. Where 61 % of the sets held the truth, sets taught less than first labels alone (`docs/method.md`,
"Strength of the teacher"); with 82 % they taught most."""
KEPT_SHARE, STOP_SHARE = 0.2, 0.9
"""Ours. A label keeps less than a fifth of the texts that it leads; one holds nine of ten and leads less than half."""

MIN_SETS, MIN_SEVERAL, MIN_LED, SETS_A_LABEL = 200, 50, 20, 20
"""Sets, sets of several, sets that a label leads, sets for each label: of fewer nothing is said."""

_SHOWN = 5
Severity = Literal["stop", "warn", "note"]


def find_failures(quality: QualityReport, epochs: Sequence[EpochReport] = ()) -> tuple[Finding, ...]:
    """All findings, those that stop first.

    Args:
        quality: of the whole corpus.
        epochs: of the student's training.

    Example:
        >>> from candist_core.metrics import wilson
        >>> quality = QualityReport(n_sets=9, mean_set_size=1.0, set_sizes={1: 9}, single_share=1.0,
        ...     identical_share=0.0, entropy=1.0, confusable=(), coverage=wilson(9, 9), is_audited=False,
        ...     in_set_entropy=0.5, training_fit=0.6)
        >>> [(found.name, found.severity) for found in find_failures(quality)]
        [('student-too-small', 'warn')]
    """
    found = [*(rule(quality) for rule in _RULES), _student_too_small(quality, epochs)]
    return by_severity(each for each in found if each)


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same findings, those that stop first."""
    order = ("stop", "warn", "note")
    return tuple(sorted(findings, key=lambda each: order.index(each.severity)))


def as_checks(findings: Iterable[Finding], checks: ChecksConfig) -> tuple[CheckResult, ...]:
    """A failed check for each finding that stops, `quality.NAME`.

    Example:
        >>> found = Finding(name="class-collapse", severity="stop", evidence="one label", consequence="c", remedy="r")
        >>> [(check.name, check.passed, check.on_fail) for check in as_checks([found], ChecksConfig())]
        [('quality.class-collapse', False, 'fail')]
    """
    return tuple(
        CheckResult(
            name=(name := f"quality.{found.name}"),
            passed=False,
            observed=found.evidence,
            wanted=f"no such sign; {found.remedy}",
            on_fail=checks.on_fail_of(name).value,
        )
        for found in findings
        if found.severity == "stop"
    )


def _identical_sets(q: QualityReport) -> Finding | None:
    # Few labels make few pairs: of two labels every doubt is the same set.
    by_chance = (1 - q.single_share) / comb(max(len(q.labels), 2), 2)
    usual = max(MAX_IDENTICAL, 2 * by_chance)
    if q.n_sets < MIN_SETS or q.identical_share <= min(usual, STOP_IDENTICAL):
        return None
    is_stop = q.identical_share >= STOP_IDENTICAL and q.identical_share > usual
    return Finding(
        name="identical-sets",
        severity="stop" if is_stop else "warn",
        evidence=f"{_share(q.identical_share)} of {q.n_sets:,} sets are one and the same set of several labels, bound "
        f"{_share(min(usual, STOP_IDENTICAL))}; entropy of sets {q.entropy:.2f} of 1",
        consequence="that set says nothing of its texts: the teacher does not express doubt but habit",
        remedy="read some of these replies, describe the labels of that set apart, or ask another teacher",
    )


def _correlated_sets(q: QualityReport) -> Finding | None:
    n_several = q.n_sets - q.set_sizes.get(1, 0)
    # Of three labels at most two can stand beside a first one.
    is_told = q.companions is not None and n_several >= MIN_SEVERAL and len(q.labels) > 3
    if not is_told or q.companions is None or q.companions >= MIN_COMPANIONS:
        return None
    worst = max(q.confusable, key=lambda pair: pair.overlap, default=None)
    pair = f"; {worst.first!r} and {worst.second!r} share {_share(worst.overlap)} of their sets" if worst else ""
    return Finding(
        name="correlated-sets",
        severity="warn",
        evidence=f"{q.companions:.1f} different labels stand beside a first one, wanted {MIN_COMPANIONS} or more{pair}",
        consequence="further labels follow from the first and not from the text, and the order of the sets may be "
        "ignored for nothing",
        remedy="ask with task.strategy=sa or a stricter instruction, or set student.order=trusted",
    )


def _uninformative_sets(q: QualityReport) -> Finding | None:
    n_several = q.n_sets - q.set_sizes.get(1, 0)
    is_told = q.lift is not None and n_several >= MIN_SEVERAL and len(q.labels) > 2 and _has_learned(q)
    if not is_told or q.lift is None or q.lift >= MIN_LIFT:
        return None
    return Finding(
        name="uninformative-sets",
        severity="warn",
        evidence=f"students believe in a further label {q.lift:.2f} times as much as in a random one, wanted "
        f"{MIN_LIFT} or more ({n_several:,} sets of several)",
        consequence="further labels carry no knowledge; sets teach what their first labels teach, or less",
        remedy="ask with task.strategy=sa, or another teacher",
    )


def _student_too_small(q: QualityReport, epochs: Sequence[EpochReport]) -> Finding | None:
    fit = epochs[-1].in_set_rate if epochs else q.training_fit
    rise = epochs[-1].approximate_accuracy - epochs[-2].approximate_accuracy if len(epochs) > 1 else 0.0
    # Answers that contradict each other fit no student, however large.
    is_low = fit is not None and fit < MIN_FIT and not _is_noisy(q)
    if fit is None or (not is_low and rise < MAX_RISE):
        return None
    seen = f"the student's label is in {_share(fit)} of the sets that it learned from, wanted {_share(MIN_FIT)}"
    steep = f"approximated accuracy rose by {100 * rise:.1f} points in the last of {len(epochs)} epochs"
    return Finding(
        name="student-too-small",
        severity="warn",
        evidence=seen if is_low and rise < MAX_RISE else f"{seen}; {steep}" if is_low else steep,
        consequence="the student has not learned what the sets hold; labels of texts that the teacher did not read "
        "suffer most",
        remedy="raise student.epochs" + (" or take a larger student.model" if is_low else ""),
    )


def _does_not_separate(q: QualityReport) -> Finding | None:
    pairs = [
        pair
        for pair in q.confusable
        if pair.overlap > MIN_OVERLAP and pair.entropy is not None and pair.entropy > MIN_PAIR_ENTROPY
    ]
    if not pairs or not _has_learned(q):
        return None
    first = pairs[0]
    return Finding(
        name="refinery-does-not-separate",
        severity="warn",
        evidence=f"{len(pairs)} pairs of labels stay undecided: {first.first!r} and {first.second!r} share "
        f"{_share(first.overlap)} of their sets and belief between them has an entropy of {first.entropy:.2f} of 1 "
        f"(all sets: {q.in_set_entropy:.2f})",
        consequence="between these labels the final ones are a toss of a coin",
        remedy="merge the labels, or say in their descriptions what tells them apart",
    )


def _systematic_bias(q: QualityReport) -> Finding | None:
    if not q.is_audited or q.in_set_rate is None or q.coverage.high >= q.in_set_rate.low:
        return None
    return Finding(
        name="systematic-teacher-bias",
        severity="warn",
        evidence=f"{q.coverage} of {q.coverage.n:,} sets hold the label that a person gave, but students that never "
        f"saw them agree with {q.in_set_rate}",
        consequence="teacher and students are wrong alike, so that confidence without an audit is too high",
        remedy="mend the descriptions of the labels that the audit corrects most, or ask another teacher",
    )


def _class_collapse(q: QualityReport) -> Finding | None:
    n_final, n_first = (sum(getattr(label, name) for label in q.labels) for name in ("n_final", "n_first"))
    if n_final < MIN_SETS:
        return None
    lost = [label for label in q.labels if label.n_first >= MIN_LED and label.n_final < KEPT_SHARE * label.n_first]
    top = max(q.labels, key=lambda label: label.n_final)
    is_stop = top.n_final >= STOP_SHARE * n_final and 2 * top.n_first < n_first
    if not lost and not is_stop:
        return None
    return Finding(
        name="class-collapse",
        severity="stop" if is_stop else "warn",
        evidence=f"{top.name!r} holds {_share(top.n_final / n_final)} of the final labels; {len(lost)} labels keep "
        f"less than {_share(KEPT_SHARE)} of the texts that they lead{_named(lost)}",
        consequence="these labels are all but gone from the final ones",
        remedy="set student.order=trusted, lower student.learning_rate, or merge labels that are too alike",
    )


def _missing_class(q: QualityReport) -> Finding | None:
    missing = [label for label in q.labels if not label.n_sets]
    if not missing or q.n_sets < SETS_A_LABEL * len(q.labels):
        return None
    return Finding(
        name="missing-class",
        severity="warn",
        evidence=f"{len(missing)} of {len(q.labels)} labels stand in none of {q.n_sets:,} sets{_named(missing)}",
        consequence="no text can get such a label",
        remedy="check the spelling and the descriptions of these labels, or remove them from task.labels",
    )


def _weak_coverage(q: QualityReport) -> Finding | None:
    if q.is_audited:
        is_weak, seen = q.coverage.high < MIN_COVERAGE, f"by a person's labels {q.coverage} of {q.coverage.n:,} sets"
    else:
        is_weak, seen = _is_noisy(q), f"as far as students can tell {q.coverage} of the sets"
    if not is_weak:
        return None
    wanted = _share(MIN_COVERAGE if q.is_audited else MIN_ESTIMATE)
    return Finding(
        name="weak-coverage",
        severity="stop" if q.is_audited and q.coverage.high < STOP_COVERAGE else "warn",
        evidence=f"{seen} hold the true label, wanted {wanted}",
        consequence="what is not in its set can only be mended by the student; expect many wrong labels",
        remedy="describe the labels better, ask with task.strategy=ca_all, several teachers, or a stronger one"
        + ("" if q.is_audited else "; an audit of 100 texts would tell (candist audit)"),
    )


_RULES: tuple[Callable[[QualityReport], Finding | None], ...] = (
    _identical_sets, _correlated_sets, _uninformative_sets, _does_not_separate, _systematic_bias, _class_collapse,
    _missing_class, _weak_coverage,
)  # fmt: skip


def _is_noisy(q: QualityReport) -> bool:
    estimate = q.estimated_coverage
    return q.n_sets >= MIN_SETS and estimate is not None and estimate.value < MIN_ESTIMATE


def _has_learned(q: QualityReport) -> bool:
    """A student that has learned little is undecided between any labels, and its belief tells nothing of sets."""
    return q.training_fit is None or q.training_fit >= MIN_FIT


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _named(labels: Sequence[LabelQuality]) -> str:
    """The first labels by their names, for the end of a sentence."""
    shown = ", ".join(repr(label.name) for label in labels[:_SHOWN])
    return f": {shown}{' and others' if len(labels) > _SHOWN else ''}" if labels else ""
