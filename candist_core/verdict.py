"""The answer that a report opens with: may this data set be used, and what should a person look at?

Invariant: no word of it is a text of the corpus, and no label is called right that nobody compared with a person's.
"""

import shlex
from dataclasses import dataclass
from typing import Literal

import polars as pl

from candist_core.manifest import Manifest
from candist_core.rejects import reasons_in_words
from candist_core.reports import CheckResult, Finding, GoldReport
from candist_core.tally import Tally
from candist_core.teacher_config import TeacherKind

Level = Literal["yes", "care", "no"]
_ANSWERS: dict[Level, str] = {
    "yes": "You may use it.",
    "care": "You may use it, with care.",
    "no": "Do not use it yet.",
}
_FIRST_LOOK = "Use it for a first look only."
_AUDIT_ROWS = 100
"""Texts of an audit: a share near 0.9 is then known to six points either way (Wilson)."""
MIN_ACCURACY = 0.8
"""Of labels that want no review, at the upper end of the interval: ours, as `candist_core.measured_findings`."""
_MAX_BY_HAND = 2_000
"""Texts that one person may review in a week or two; nobody is told to read more."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something worth doing: what, why, the command for it, and the part of the report that shows more."""

    what: str
    why: str
    command: str | None = None
    anchor: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer` in one sentence, `because` in a few, `actions` in the order of their worth.

    `is_guess`: neither a person's label nor a teacher known for it backs the share of right labels.
    """

    level: Level
    answer: str
    because: tuple[str, ...]
    actions: tuple[Action, ...]
    is_guess: bool = False


def judge(manifest: Manifest, tally: Tally, is_published: bool = True) -> Verdict:
    """Say whether a data set may be used, and what to review.

    No: it is not published, a check that stops runs failed, or a finding says stop. With care: a check or a finding
    warns, labels are less often right than their confidence says, or nothing measured them. Else yes. A first look:
    with care, and labels that want no review are surely less often right than four times of five, or nothing but a
    zero-shot teacher's own word speaks for them.

    Args:
        manifest: the version, or what a run would publish.
        tally: of all its rows.
        is_published: False for a run whose labels are not (or not yet) published.
    """
    findings = by_weight(manifest)
    failed = failed_checks(manifest)
    stops = not is_published or any(finding.severity == "stop" for finding in findings)
    stops = stops or any(check.on_fail == "fail" for check in failed)
    doubts = [sentence for sentence in (_overconfidence(manifest, tally), _unmeasured(manifest)) if sentence]
    warns = bool(failed or doubts) or any(finding.severity == "warn" for finding in findings)
    level: Level = "no" if stops else "care" if warns else "yes"
    because = (*_alarms(is_published, failed, findings), _worth(manifest, tally), *doubts)
    answer = _FIRST_LOOK if level == "care" and _is_first_look(manifest) else _ANSWERS[level]
    return Verdict(level, answer, because, _actions(manifest, tally, failed, findings), _is_guess(manifest))


def failed_checks(manifest: Manifest) -> tuple[CheckResult, ...]:
    """Checks that failed, but those that only repeat a finding."""
    told = {f"quality.{finding.name}" for finding in by_weight(manifest)}
    return tuple(check for check in manifest.checks if not check.passed and check.name not in told)


def measured(manifest: Manifest) -> GoldReport | None:
    """Quality by labels that people gave: gold of the corpus, or an audit; None where there is neither."""
    return manifest.metrics.gold or manifest.metrics.audit


def sentence(words: str) -> str:
    """Words with a full stop, as a finding's have none of their own.

    Example:
        >>> sentence("a third of the sets"), sentence("All is well.")
        ('a third of the sets.', 'All is well.')
    """
    return words if words.endswith((".", "!", "?")) else f"{words}."


def by_weight(manifest: Manifest) -> tuple[Finding, ...]:
    """The findings of a version, the gravest first; none where nothing was looked for."""
    findings = manifest.quality.findings if manifest.quality else ()
    return tuple(sorted(findings, key=lambda finding: ("stop", "warn", "note").index(finding.severity)))


def reference(manifest: Manifest) -> str:
    """What to type for a version where the run was started: FOLDER/DATASET@ID, quoted for a shell."""
    place = str(manifest.config.get("publish", {}).get("uri", "published")).rstrip("/")
    return shlex.quote(f"{place}/{manifest.dataset}@{manifest.version}")


def _alarms(is_published: bool, failed: tuple[CheckResult, ...], findings: tuple[Finding, ...]) -> list[str]:
    said = [] if is_published else ["It is not published: this report is of what the run made so far."]
    if failed:
        said.append(
            f"{_count(len(failed), 'check')} failed{', the first' if len(failed) > 1 else ''}: {failed[0].name}, "
            f"observed {failed[0].observed}, wanted {failed[0].wanted}."
        )
    said += [sentence(finding.evidence) for finding in findings if finding.severity == "stop"]
    if n_warn := sum(finding.severity == "warn" for finding in findings):
        said.append(f"{_count(n_warn, 'finding')} below {'wants' if n_warn == 1 else 'want'} your attention.")
    return said


def _is_first_look(manifest: Manifest) -> bool:
    gold = measured(manifest)
    if gold is None or not gold.kept_accuracy.n:
        return _is_guess(manifest)
    return gold.kept_accuracy.high < MIN_ACCURACY


def _is_guess(manifest: Manifest) -> bool:
    """Whether only zero-shot teachers speak for labels that nobody measured or calibrated."""
    teachers = [manifest.config.get("teacher") or {}, *(manifest.config.get("more_teachers") or ())]
    model = manifest.student.label_model
    is_calibrated = model is not None and model.n_audited > 0
    is_zeroshot = all(teacher.get("kind") == TeacherKind.ZEROSHOT for teacher in teachers)
    return is_zeroshot and measured(manifest) is None and not is_calibrated


def _worth(manifest: Manifest, tally: Tally) -> str:
    n, n_review = tally.n_rows, tally.n_review
    rest = f"The other {n_review:,} want review." if n_review else "No text wants review."
    gold = measured(manifest)
    if gold is not None and gold.kept_accuracy.n:
        kept = gold.kept_accuracy
        right = f"{100 * kept.value:.1f} %"
        bounds = f"95 % interval {100 * kept.low:.1f} to {100 * kept.high:.1f}"
        if kept.n == n - n_review:
            told = f"compared with a person's labels, {right} of them are right"
        else:
            told = f"of the {kept.n:,} that a person labelled, {right} are right"
        return f"{n - n_review:,} of {n:,} texts need nobody: {told} ({bounds}). {rest}"
    sure = tally.kept_confidence
    if sure is None:
        return f"Every text wants review, {n:,} of {n:,}."
    if _is_guess(manifest):
        return (
            f"candist is surest of {n - n_review:,} of {n:,} texts, and nobody knows how many of them are right: with "
            f"the zero-shot teacher its own estimates were 20 to 30 points too high. {rest}"
        )
    return (
        f"{n - n_review:,} of {n:,} texts need nobody; by candist's own estimate {100 * sure:.1f} % of them are right. "
        f"{rest}"
    )


def _overconfidence(manifest: Manifest, tally: Tally) -> str | None:
    """A sentence where the rows that want no review are surely less often right than they claim."""
    gold, said = measured(manifest), tally.kept_confidence
    if gold is None or said is None or not gold.kept_accuracy.n or gold.kept_accuracy.high >= said:
        return None
    return (
        f"Their confidence promises {100 * said:.1f} %, more than they keep: "
        "read confidences as an order of doubt, not as probabilities."
    )


def _unmeasured(manifest: Manifest) -> str | None:
    if measured(manifest) is not None:
        return None
    model = manifest.student.label_model
    if model is not None and model.n_audited:
        return (
            f"Confidences are calibrated on {model.n_audited:,} texts that a person labelled; "
            "no other labels stand beside them to measure by."
        )
    return "No person's label stands beside any of them, so nothing here is measured: an audit would tell."


def _actions(
    manifest: Manifest, tally: Tally, failed: tuple[CheckResult, ...], findings: tuple[Finding, ...]
) -> tuple[Action, ...]:
    actions = []
    if failed:
        actions.append(Action("Mend what the failed checks name", "A check that fails marks rows or a whole run that "
                              "is not what you asked for.", anchor="checks"))  # fmt: skip
    if any(finding.severity != "note" for finding in findings):
        actions.append(Action("Read the findings", "Each says what was seen, what follows, and what to do.",
                              anchor="findings"))  # fmt: skip
    if tally.n_review:
        actions.append(
            Action(
                _review_words(tally.n_review),
                _where_doubt_lies(tally),
                f"candist review export {reference(manifest)} --budget {tally.n_review} --out review.csv",
                "doubtful",
            )
        )
    if measured(manifest) is None:
        actions.append(
            Action(
                f"Have a person label {_AUDIT_ROWS} texts drawn at random",
                "Only that measures how often labels are right; the next run calibrates its confidences on it.",
                f"candist audit {reference(manifest)} --rows {_AUDIT_ROWS} --out audit.csv",
            )
        )
    if manifest.counts.rejects:
        actions.append(
            Action(
                f"Look at {_count(manifest.counts.rejects, 'reject')}",
                _why_rejected(manifest),
                f"candist rejects {reference(manifest)}",
                "lineage",
            )
        )
    return tuple(actions)


def _why_rejected(manifest: Manifest) -> str:
    told = reasons_in_words(manifest.counts.reject_reasons)
    return f"These rows have no label: {told}." if told else "These rows have no label."


def _review_words(n: int) -> str:
    if n > _MAX_BY_HAND:
        return f"Review what you can of {n:,} texts, the least sure first"
    return f"Review {_count(n, 'text')}"


def _where_doubt_lies(tally: Tally) -> str:
    """Why rows want review, and which labels hold most of them."""
    reasons = tally.reasons.sort("n", "reason", descending=[True, False]).head(3).rows()
    why = ", ".join(f"{reason} ({n:,})" for reason, n in reasons)
    top = tally.classes.sort("n_review", "label", descending=[True, False]).filter(pl.col("n_review") > 0).head(3)
    names = " and ".join(", ".join(top["label"]).rsplit(", ", 1)) if top.height > 1 else "".join(top["label"])
    held = int(top["n_review"].sum())
    return f"Why: {why}. {names} {'hold' if top.height > 1 else 'holds'} {held:,} of them."


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
