"""What a person reads when a run ends and before one starts: tables for a terminal, and Markdown."""

from collections.abc import Mapping, Sequence

import polars as pl
from rich.box import ROUNDED
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from candist_core.card import escaped
from candist_core.config import RunConfig
from candist_core.edges.report.words import duration
from candist_core.manifest import Manifest
from candist_core.publish import Published
from candist_core.rejects import reasons_in_words
from candist_core.reports import Finding, GoldReport, QualityReport, Usage
from candist_core.sampling import SamplingReport
from candist_core.stages.estimate import RunEstimate
from candist_core.stages.status import RunStatus
from candist_core.window import START
from flows.screen import printable

Rows = list[tuple[str, str]]
_WIDE = 120
"""Columns of a terminal from which on the candidates are printed beside a label."""


def manifest_rows(manifest: Manifest) -> Rows:
    """The facts of a version, most wanted first; gold's only where there is gold."""
    metrics, usage = manifest.metrics, manifest.usage
    answered = sum(count for size, count in metrics.set_sizes.items() if size)
    several = sum(count for size, count in metrics.set_sizes.items() if size > 1)
    rows = [
        (
            "texts",
            f"{metrics.n_rows:,} texts, {metrics.n_labelled:,} labelled, {manifest.counts.rejects:,} rejected"
            + _why(manifest.counts.reject_reasons),
        ),
        (
            "candidates",
            f"{metrics.mean_set_size:.2f} labels a set, {_share(several, answered)} of the sets hold more than one",
        ),
    ]
    if manifest.changes is not None:
        rows.insert(1, ("rows", str(manifest.changes)))
    if manifest.sampling is not None:
        rows += _sampling_rows(manifest.sampling)
    if metrics.gold is not None:
        rows += _gold_rows(metrics.gold)
    if metrics.unread is not None:
        rows.append(
            ("", f"final {metrics.unread} where the teacher did not read the text ({metrics.unread.n:,} texts)")
        )
    if metrics.audit is not None:
        rows.append(("audit", _audit_words(metrics.audit)))
    if manifest.quality is not None:
        # What is measured against gold stands above, and no estimate of the same beside it.
        rows += _quality_rows(manifest.quality, is_measured=metrics.gold is not None and metrics.gold.coverage.n > 0)
    if metrics.unknown_gold:
        n_rows = sum(metrics.unknown_gold.values())
        rows.append(
            ("gold", f"{n_rows:,} rows hold a value that is no label, such as {next(iter(metrics.unknown_gold))!r}")
        )
    checks = manifest.checks
    failed = [check.name for check in checks if not check.passed]
    tokens = usage.prompt_tokens + usage.completion_tokens
    reused = f", {usage.n_reused:,} kept from earlier (${usage.reused_usd:.4f})" if usage.n_reused else ""
    rows += [
        ("review", f"{metrics.n_review:,} of {metrics.n_labelled:,} want review"),
        ("checks", f"{len(checks) - len(failed)} of {len(checks)} passed" + "".join(f", {name}" for name in failed)),
        (
            "teacher",
            f"{usage.n_requests:,} replies, {tokens:,} tokens, ${usage.cost_usd:.4f}{reused}{_unpriced(usage)}",
        ),
        ("student", f"{manifest.student.base_model} on {manifest.student.device_reason}"),
    ]
    if manifest.origin is not None:
        whose = f"of version {manifest.origin.number}" if manifest.origin.is_reused else "distilled"
        rows.append(("", f"{whose}: {manifest.origin.reason}"))
    return rows


def _sampling_rows(sampling: SamplingReport) -> Rows:
    """Who read what, what the last point of the curve says, and what more would bring."""
    rows = [("sample", str(sampling))]
    if sampling.curve:
        of = "labels of the audit" if sampling.is_audited else "first labels of the teacher"
        rows.append(("", f"students agree out of fold with {sampling.curve[-1].agreement} of the {of}"))
    if sampling.forecast is not None:
        rows.append(("", str(sampling.forecast)))
    return rows


def _gold_rows(gold: GoldReport) -> Rows:
    return [
        ("coverage", f"{gold.coverage}: the gold label is among the candidates"),
        ("accuracy", f"teacher {gold.teacher_accuracy}, final {gold.final_accuracy}"),
        ("", f"{gold.kept_accuracy} where no review is wanted ({gold.kept_accuracy.n:,} texts)"),
        ("macro-F1", f"{gold.macro_f1:.3f}"),
    ]


def _audit_words(audit: GoldReport) -> str:
    return f"{audit.teacher_accuracy.n:,} texts: teacher {audit.teacher_accuracy}, final {audit.final_accuracy}"


def _quality_rows(quality: QualityReport, *, is_measured: bool) -> Rows:
    """Coverage as the audit or the student has it, unless gold has told it, and each finding by name and evidence."""
    how = "audited" if quality.is_audited else "estimated by the student, not measured"
    is_told = quality.coverage.n and not is_measured
    rows = [("quality", f"{how}: {quality.coverage} of the sets hold the true label")] if is_told else []
    return rows + [(found.severity, f"{found.name}: {found.evidence}") for found in quality.findings]


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print what wants attention: findings that warn or stop, each with its consequence and remedy."""
    for found in findings:
        if found.severity != "note":
            said = f"{found.severity}: {found.name}: {found.evidence}. {found.consequence}. {found.remedy}."
            style = "red" if found.severity == "stop" else "yellow"
            console.print(printable(said), style=style, highlight=False, markup=False, soft_wrap=True)


def published_rows(published: Published) -> Rows:
    """The facts of a version that a run made or found, where it lies, and what to type next."""
    what = "" if published.is_new else " (published before, these labels are the same)"
    name = f"{published.uri}@{published.number}"
    return [
        *manifest_rows(published.manifest),
        ("version", f"{published.number}, {published.version}{what}"),
        ("where", published.uri),
        *_report_rows(published),
        ("next", f"candist labels {name} --review"),
        ("", f"candist show {name}"),
    ]


def report_uri(published: Published) -> str | None:
    """Where the version's report lies; versions of before there was one have none."""
    has_report = any(file.path == "report.html" for file in published.manifest.files)
    return f"{published.uri}/versions/{published.version}/report.html" if has_report else None


def _report_rows(published: Published) -> Rows:
    uri = report_uri(published)
    return [("report", uri)] if uri else []


def summary_markdown(published: Published) -> str:
    """The summary as a Markdown table, for the artifact in Prefect."""
    lines = [f"| {escaped(key)} | {escaped(value)} |" for key, value in published_rows(published)]
    return "\n".join([f"## {escaped(published.manifest.dataset)}", "", "| | |", "|---|---|", *lines])


def print_summary(console: Console, published: Published) -> None:
    """Print what a run made."""
    print_rows(console, published.manifest.dataset, published_rows(published))


def print_estimate(console: Console, config: RunConfig, expected: RunEstimate) -> None:
    """Print what a run would take."""
    calls = expected.calls
    cost = (
        "no price known for the model, set budget.prices" if expected.cost_usd is None else _dollars(expected.cost_usd)
    )
    measured = ", as kept replies measured" if calls.is_measured and calls.n_calls else ""
    rows = [
        (
            "texts",
            f"{expected.n_rows:,} rows, {expected.n_texts:,} distinct texts"
            + (f", of which the teacher reads {expected.n_read:,}" if expected.n_read < expected.n_texts else "")
            + f", {expected.ingested.n_rejects:,} rejected"
            + _why(expected.ingested.reject_reasons),
        ),
        ("calls", f"{calls.n_calls:,} to make, {expected.n_kept:,} replies kept from earlier"),
        ("tokens", f"about {calls.prompt_tokens:,} in, {calls.completion_tokens:,} out{measured}"),
        ("cost", f"{cost}" + ("" if expected.is_paid else f" (teacher {config.teacher.kind} is free)")),
        (
            "time",
            f"about {duration(calls.seconds)} for the replies at {config.teacher.max_in_flight or START} in flight, "
            "1 s each",
        ),
    ]
    if config.budget.max_usd is not None:
        rows.append(("cap", f"${config.budget.max_usd:.2f} (budget.max_usd)"))
    print_rows(console, f"{config.name}, estimated", rows)


def _unpriced(usage: Usage) -> str:
    """How many replies the sum does not hold, and what they may have cost where the model has a price."""
    if not usage.n_unpriced:
        return ""
    bound = f", at most ${usage.unpriced_bound_usd:.4f} more" if usage.unpriced_bound_usd else ""
    return f"; {usage.n_unpriced:,} replies without a known cost{bound}"


def print_status(console: Console, config: RunConfig, state: RunStatus) -> None:
    """Print how far a run has come."""
    rows = [
        (stage.stage, f"{stage.done:,} of {stage.total:,} {stage.unit}" if stage.total else "waits for what is above")
        for stage in state.stages
    ]
    rows += [("", f"failed: {name}") for name in state.failed_checks]
    usage = state.usage
    rows.append(("teacher", f"{usage.n_requests:,} replies, ${usage.total_usd:.4f}{_unpriced(usage)}"))
    rows.append(("versions", ", ".join(str(number) for number in state.versions) or "none yet"))
    print_rows(console, config.name, rows)


def print_labels(console: Console, frame: pl.DataFrame, n: int) -> None:
    """Print the first n labels, each text on one line; ids and texts give way where the terminal is narrow."""
    table = Table(box=ROUNDED, caption=f"{min(n, frame.height):,} of {frame.height:,} rows")
    is_wide, n_label = console.width >= _WIDE, min(24, max(map(len, frame["label"]), default=5))
    # Borders and the other columns take the rest; an id and a text may be cut, a label and its confidence never.
    n_text = max(10, console.width - 10 - n_label - 5 - 22 - (33 if is_wide else 0) - 16)
    table.add_column("doc_id", overflow="ellipsis", no_wrap=True, max_width=10)
    table.add_column("text", overflow="ellipsis", no_wrap=True, max_width=n_text)
    table.add_column("label", overflow="fold", min_width=n_label)
    table.add_column("conf.", justify="right", min_width=5)
    for name in ("candidates", "why review") if is_wide else ("why review",):
        table.add_column(name, overflow="fold", max_width=30 if name == "candidates" else 22)
    for row in frame.head(n).iter_rows(named=True):
        cells = [row["doc_id"], " ".join(row["text"].split()), row["label"], f"{row['confidence']:.2f}"]
        cells += [", ".join(row["candidates"])] if is_wide else []
        # Text objects take no markup, and control characters of a corpus must not reach the terminal.
        table.add_row(*(Text(printable(cell)) for cell in [*cells, row["reason"] or ""]))
    console.print(table)


def print_rows(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print facts as a table of two columns."""
    table = Table(box=ROUNDED, show_header=False, title=escape(title), title_justify="left", title_style="bold")
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(key, Text(printable(value)))
    console.print(table)


def _why(reasons: Mapping[str, int]) -> str:
    return f" ({reasons_in_words(reasons)})" if reasons else ""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _dollars(usd: float) -> str:
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"
