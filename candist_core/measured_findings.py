"""Signs of a failure that only people's labels show: gold of the corpus, or an audit where there is none.

Beside `candist_core.findings`, which reads no gold. Bounds are ours (`docs/quality.md`). Invariant: a finding holds at
the end of a 95 % interval that is kindest to the labels, so that a small audit raises none by chance.
"""

from collections.abc import Sequence

from candist_core.findings import MIN_COVERAGE, by_severity, find_failures
from candist_core.reports import EpochReport, EvaluateReport, Finding, GoldReport, QualityReport

MIN_ACCURACY = MIN_COVERAGE
"""Of final labels: where fewer are right, every fifth row misleads whoever reads them."""
MAX_OVERCONFIDENCE = 0.05
"""Mean confidence above accuracy: 0.01 and 0.05 with recorded answers of a language model, 0.2 to 0.3 with the
zero-shot teacher (`docs/method.md`)."""


def find_all(
    quality: QualityReport, epochs: Sequence[EpochReport], metrics: EvaluateReport | None
) -> tuple[Finding, ...]:
    """All findings, those that stop first; coverage against gold comes before any estimate of it.

    Args:
        quality: of the whole corpus, without gold.
        epochs: of the student's training.
        metrics: of the same labels; None: nothing was measured.
    """
    if metrics is None:
        return find_failures(quality, epochs)
    if metrics.gold is not None and metrics.gold.coverage.n:
        quality = quality.model_copy(update={"coverage": metrics.gold.coverage, "is_audited": True})
    judged = metrics.gold or metrics.audit
    return by_severity((*find_failures(quality, epochs), *(find_measured(judged) if judged else ())))


def find_measured(judged: GoldReport) -> tuple[Finding, ...]:
    """What people's labels say of the final ones.

    Example:
        >>> from candist_core.metrics import wilson
        >>> judged = GoldReport(teacher_accuracy=wilson(60, 100), final_accuracy=wilson(61, 100), macro_f1=0.6,
        ...     coverage=wilson(70, 100), kept_accuracy=wilson(50, 80), lift=None)
        >>> [found.name for found in find_measured(judged)]
        ['low-accuracy']
    """
    rules = (_low_accuracy, _overconfident, _worse_than_teacher)
    return tuple(found for rule in rules if (found := rule(judged)))


def mean_confidence(judged: GoldReport) -> float | None:
    """Of the rows that people labelled; None where no bins are kept."""
    bins = judged.details.reliability if judged.details else ()
    n = sum(one.n for one in bins)
    return sum(one.n * one.confidence for one in bins) / n if n else None


def _low_accuracy(judged: GoldReport) -> Finding | None:
    final = judged.final_accuracy
    if not final.n or final.high >= MIN_ACCURACY:
        return None
    return Finding(
        name="low-accuracy",
        severity="warn",
        evidence=f"{final} of {final.n:,} final labels are what a person says, wanted {100 * MIN_ACCURACY:.0f} %",
        consequence=f"too many labels are wrong to rely on; those that want no review are right {judged.kept_accuracy}",
        remedy="describe the labels better, ask a stronger teacher, or use what is reviewed alone",
    )


def _overconfident(judged: GoldReport) -> Finding | None:
    said, final = mean_confidence(judged), judged.final_accuracy
    if said is None or not final.n or said - final.high <= MAX_OVERCONFIDENCE:
        return None
    return Finding(
        name="overconfident",
        severity="warn",
        evidence=f"confidence is {100 * said:.1f} % on average where {final} of the labels are what a person says",
        consequence="confidences are an order of doubt and no probabilities, and too few rows want review",
        remedy="name an audit of 100 texts under audit.uri: the next run calibrates on it (candist audit)",
    )


def _worse_than_teacher(judged: GoldReport) -> Finding | None:
    teacher, final = judged.teacher_accuracy, judged.final_accuracy
    if not final.n or final.high >= teacher.low:
        return None
    return Finding(
        name="worse-than-teacher",
        severity="warn",
        evidence=f"{final} of the final labels are what a person says, of the teacher's first labels {teacher}",
        consequence="what the student adds does harm here",
        remedy="set student.order=trusted, raise student.epochs, or take a larger student.model",
    )
