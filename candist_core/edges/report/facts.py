"""What a report tells in pairs of a term and its value: measures, cost and time, lineage."""

from dataclasses import dataclass
from typing import Any

from candist_core.edges.report.words import count, dollars, duration, percent, size
from candist_core.manifest import Manifest
from candist_core.rejects import reasons_in_words
from candist_core.reports import Interval
from candist_core.tally import Tally
from candist_core.verdict import measured

_MAX_FILES = 12
_DECIDERS = {"agreed": "both, agreed,", "teacher": "teacher", "student": "student", "reviewed": "a person"}


@dataclass(frozen=True, slots=True)
class Fact:
    """A term, its value, and what it means where the term does not say it."""

    term: str
    value: str
    meaning: str = ""


def measures(manifest: Manifest, tally: Tally) -> list[Fact]:
    """Everything measured on the labels, the figures against gold first."""
    metrics, quality, gold = manifest.metrics, manifest.quality, measured(manifest)
    facts = []
    if gold is not None:
        facts += [
            Fact("Final labels that are right", _interval(gold.final_accuracy), _over(gold.final_accuracy)),
            Fact("The same, where no review is wanted", _interval(gold.kept_accuracy), _over(gold.kept_accuracy)),
            Fact(
                "Teacher's first labels that are right",
                _interval(gold.teacher_accuracy),
                "what the teacher alone gives",
            ),
            Fact("Coverage", _interval(gold.coverage), "sets that hold the true label"),
            Fact("Macro F1", f"{gold.macro_f1:.3f}", "every label counts the same, however rare"),
        ]
        if gold.lift is not None:
            facts.append(Fact("Lift", f"{gold.lift:.1f}", "worth of a further label, over a random one's; 1 is none"))
    elif quality is not None and quality.coverage.n:
        where = "measured on an audit" if quality.is_audited else "estimated by the student, not measured"
        facts.append(Fact("Coverage", _interval(quality.coverage), f"sets that hold the true label, {where}"))
    facts.append(Fact("Labels in a set", f"{metrics.mean_set_size:.2f}", "mean; 1 is a teacher without doubt"))
    if quality is not None:
        facts += [
            Fact("Sets of one label", percent(quality.single_share)),
            Fact("Variety of the larger sets", f"{quality.entropy:.2f}", "1: as random sets; 0: all the same"),
            Fact(
                "Doubt left within sets", f"{quality.in_set_entropy:.2f}", "0: the student decides; 1: it cannot tell"
            ),
        ]
        if quality.training_fit is not None:
            facts.append(Fact("Training fit", percent(quality.training_fit), "sets that hold the student's choice"))
        if quality.vote_agreement is not None:
            facts.append(Fact("Agreement of votes", f"{quality.vote_agreement:.2f}", "mean share of the first label"))
    if metrics.unread is not None:
        facts.append(
            Fact("Right of texts that the teacher did not read", _interval(metrics.unread), _over(metrics.unread))
        )
    deciders = tally.sources.sort("n", descending=True).iter_rows()
    return [
        *facts,
        Fact("Final label is among the candidates", percent(metrics.agreement)),
        Fact("Mean confidence", f"{metrics.mean_confidence:.3f}"),
        Fact("Decided by", ", ".join(f"{_DECIDERS.get(who, who)} {percent(n / tally.n_rows)}" for who, n in deciders)),
    ]


def cost_facts(manifest: Manifest) -> list[Fact]:
    """What the labels cost, in money and time."""
    usage, student = manifest.usage, manifest.student
    tokens = f"{count(usage.prompt_tokens)} in ({count(usage.cached_tokens)} of them cached), "
    tokens += f"{count(usage.completion_tokens)} out"
    paid = usage.cost_usd + usage.reused_usd
    facts = [
        Fact("Replies asked for now", count(usage.n_requests)),
        Fact("Replies kept from earlier runs", count(usage.n_reused)),
        Fact("Tokens, now", tokens),
        Fact("Paid now", dollars(usage.cost_usd)),
        Fact("Paid by earlier runs", dollars(usage.reused_usd)),
        Fact("For 1,000 rows", dollars(1000 * paid / max(1, manifest.counts.rows)), "both together"),
    ]
    if usage.n_unpriced:
        bound = f"; at most {dollars(usage.unpriced_bound_usd)} more" if usage.unpriced_bound_usd else ""
        facts.append(Fact("Replies without a known cost", count(usage.n_unpriced), f"not in the sums{bound}"))
    if manifest.sampling is not None:
        facts.append(Fact("Texts that the teacher read", str(manifest.sampling), manifest.sampling.stopped))
        if manifest.sampling.forecast is not None:
            facts.append(Fact("If it read more", str(manifest.sampling.forecast), "by the learning curve"))
    cap = _setting(manifest, "budget", "max_usd")
    facts.append(Fact("Cap of the run", "none" if cap is None else dollars(float(cap))))
    passes = f"{len(student.epochs)} passes over {count(student.n_train)} texts"
    return [
        *facts,
        Fact("Training the student", duration(student.seconds), passes),
        Fact("Trained on", student.device_reason),
    ]


def lineage_facts(manifest: Manifest, is_numbered: bool) -> list[Fact]:
    """Where the version came from; its parent is known once it has a number."""
    kind, model = _setting(manifest, "teacher", "kind"), _setting(manifest, "teacher", "model")
    more = len(manifest.config.get("more_teachers") or ())
    sources = [
        Fact("Corpus file", file.uri, f"{size(file.size_bytes)}, state {file.etag}")
        for file in manifest.source_files[:_MAX_FILES]
    ]
    if (left := len(manifest.source_files) - _MAX_FILES) > 0:
        sources.append(Fact("More corpus files", count(left), "all are named in the manifest"))
    return [
        *sources,
        Fact("Rows", count(manifest.counts.rows), f"{count(manifest.counts.texts)} distinct texts"),
        Fact("Rejects", count(manifest.counts.rejects), _why(manifest)),
        Fact("Teacher", f"{kind} {model or ''}".strip() + (f" and {more} more" if more else "")),
        Fact("Strategy", str(manifest.spec.strategy), f"at most {manifest.spec.max_candidates} labels a set"),
        Fact("Student", manifest.student.base_model, f"method {_setting(manifest, 'student', 'method')}"),
        *_origin_facts(manifest),
        *([Fact("Parent version", manifest.parent or "none", "the version before this one")] if is_numbered else []),
        Fact("Labels and instruction", manifest.spec_fingerprint, "fingerprint of the task"),
        Fact("Run", manifest.run_id or "not named"),
        Fact("Code", f"candist {manifest.code_version}", f"seed {manifest.seed}"),
    ]


def _why(manifest: Manifest) -> str:
    """Why rows were rejected, where the version tells."""
    told = reasons_in_words(manifest.counts.reject_reasons)
    return f"rows without a label: {told}" if told else "rows without a label, with reasons in rejects.parquet"


def _origin_facts(manifest: Manifest) -> list[Fact]:
    """What an incremental run kept and made anew."""
    facts = []
    if (changes := manifest.changes) is not None:
        words = str(changes).partition(": ")[2]
        facts.append(Fact(f"Rows since version {changes.number}", words))
    if (origin := manifest.origin) is not None:
        whose = f"that of version {origin.number}" if origin.is_reused else "distilled by this run"
        facts.append(Fact("Student's origin", whose, origin.reason))
        facts += [] if origin.is_reused else [
            Fact(f"Drift before, {check.name}", check.observed, f"wanted {check.wanted}") for check in origin.checks
        ]  # fmt: skip
    return facts


def _setting(manifest: Manifest, group: str, name: str) -> Any:
    return (manifest.config.get(group) or {}).get(name)


def _interval(share: Interval) -> str:
    return f"{percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _over(share: Interval) -> str:
    return f"over {count(share.n)} texts that a person labelled"
