"""What a person reads of reviews and comparisons: tables for a terminal."""

from pathlib import Path

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from candist_core.compare import Comparison, Moved
from candist_core.label_model import MIN_AUDIT
from candist_core.review import ReviewEstimate
from candist_core.reviewed import ReviewReport
from flows.screen import visible

_MAX_MOVES = 20
_MAX_TEXT = 60


def print_review(console: Console, report: ReviewReport, path: Path) -> None:
    """Print what came of a file of answers, and what they say of the version."""
    rows = [
        (
            "answers",
            f"{report.n_answered:,} texts: {report.n_random:,} drawn at random, {report.n_doubtful:,} doubtful",
        ),
        ("corrected", f"{report.n_corrected:,} labels of the version were another"),
    ]
    left_out = [
        (report.n_disputed, "texts on which people do not agree"),
        (report.n_unknown, "answers about no text of the version"),
        (report.n_changed, "answers about a text that reads otherwise now"),
    ]
    rows += [("left out", f"{n:,} {what}") for n, what in left_out if n]
    rows += _estimate_rows(report.estimate)
    rows.append(("kept in", str(path)))
    _print_rows(console, "review", rows)
    if report.estimate is not None:
        _print_reliability(console, report.estimate)


def _estimate_rows(estimate: ReviewEstimate | None) -> list[tuple[str, str]]:
    if estimate is None:
        return [("estimates", "none: no text was drawn at random, and doubtful ones say nothing of the rest")]
    n = estimate.final_accuracy.n
    few = f"; {MIN_AUDIT} random texts calibrate confidences, these are {n}" if n < MIN_AUDIT else ""
    return [
        ("accuracy", f"final {estimate.final_accuracy}, teacher {estimate.teacher_accuracy}"),
        ("coverage", f"{estimate.coverage}: the person's label is among the candidates"),
        ("", f"estimated from the {n:,} random texts alone{few}"),
    ]


def _print_reliability(console: Console, estimate: ReviewEstimate) -> None:
    table = Table(box=ROUNDED, title="reliability of the version's confidences", title_justify="left")
    for name in ("confidence", "random texts", "mean", "right"):
        table.add_column(name, justify="left" if name == "right" else "right")
    for one in estimate.reliability:
        bounds = f"{one.low:.1f} to {one.high:.1f}"
        table.add_row(bounds, f"{one.accuracy.n:,}", f"{100 * one.confidence:.1f} %", str(one.accuracy))
    console.print(table)


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what differs between two versions."""
    others = [
        (found.n_only_before, "only in the first"),
        (found.n_only_after, "only in the second"),
        (found.n_other_text, "in both with another text"),
    ]
    more = "".join(f", {n:,} {where}" for n, where in others if n)
    share = f" ({100 * found.n_changed / found.n_both:.1f} %)" if found.n_both else ""
    rows = [
        ("rows", f"{found.n_both:,} in both{more}"),
        ("changed", f"{found.n_changed:,} labels{share}, {found.n_reviewed:,} of them by a person"),
    ]
    rows += [("new labels", ", ".join(found.new_labels))] if found.new_labels else []
    rows += [("labels gone", ", ".join(found.gone_labels))] if found.gone_labels else []
    rows += [(one.name, _moved(one)) for one in found.metrics if one.before != one.after]
    equal = [one.name for one in found.metrics if one.before == one.after]
    rows += [("the same", ", ".join(equal))] if equal else []
    _print_rows(console, f"{found.before} to {found.after}", rows)
    if found.moves:
        _print_moves(console, found)


def _print_moves(console: Console, found: Comparison) -> None:
    table = Table(box=ROUNDED, title="changed labels", title_justify="left")
    table.add_column("from", overflow="fold")
    table.add_column("to", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("first of them", overflow="fold")
    for move in found.moves[:_MAX_MOVES]:
        shown = "\n".join(f"{one.doc_id}: {_short(one.text)}" for one in move.examples)
        # Text objects take no markup; control characters of a corpus must not reach the terminal.
        cells = (visible(move.before), visible(move.after), f"{move.n:,}", visible(shown))
        table.add_row(*(Text(cell) for cell in cells))
    if len(found.moves) > _MAX_MOVES:
        n_more = sum(move.n for move in found.moves[_MAX_MOVES:])
        table.caption = f"and {n_more:,} rows in {len(found.moves) - _MAX_MOVES:,} other ways"
    console.print(table)


def _moved(one: Moved) -> str:
    values = [_number(one.before), _number(one.after)]
    if one.before is None or one.after is None:
        return " to ".join(values)
    sign = "+" if one.after > one.before else "-"
    return f"{values[0]} to {values[1]} ({sign}{_number(abs(one.after - one.before))})"


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4f}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 1]}…"


def _print_rows(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(box=ROUNDED, show_header=False, title=Text(visible(title), style="bold"), title_justify="left")
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(key, Text(visible(value)))
    console.print(table)
