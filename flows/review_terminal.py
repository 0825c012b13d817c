"""`candist review VERSION`: keys from a terminal to a `Session`, and its screen back."""

import codecs
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from candist_core.edges.answer_file import open_answers
from candist_core.errors import ReviewError
from candist_core.stages.review import Chosen
from flows.review_session import Item, Session
from flows.screen import visible

_CLEAR = "\x1b[2J\x1b[H"
# What arrow and function keys send; a lone escape is a key of its own.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)")
_MIN_LINES = 3


def review_in_terminal(chosen: Chosen, path: Path) -> tuple[int, int]:
    """Ask a person about each text until all are answered or they quit; answers go to the end of a file.

    Returns:
        Texts answered, and texts in all.

    Raises:
        ReviewError: no terminal to ask in, or a file that takes no answers.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        found, step = "no terminal", "use `candist review export` and a spreadsheet or a labelling tool"
        raise ReviewError("review", found, "a terminal to ask in", step)
    items = [
        Item(row["doc_id"], row["text"], tuple(row["candidates"]), row["why"])
        for row in chosen.texts.iter_rows(named=True)
    ]
    with open_answers(path) as answers, _keys() as keys:
        labels = chosen.manifest.spec.label_names
        session = Session(
            items, labels, answers.given, lambda item, label: answers.give(item.doc_id, item.text, item.why, label)
        )
        _show(session, chosen.manifest.dataset)
        for key in keys:
            if not session.press(key):
                break
            _show(session, chosen.manifest.dataset)
    return session.n_answered, session.n_items


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Keys as they are pressed, without waiting for a whole line; the terminal is as before afterwards."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        yield _pressed(fd)
    finally:
        # At once: waiting for output to be read would hang where nobody reads any more.
        termios.tcsetattr(fd, termios.TCSANOW, before)


def _pressed(fd: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    while _is_ready(fd) and (data := os.read(fd, 1024)):
        yield from _SEQUENCE.sub("", decoder.decode(data))


def _is_ready(fd: int) -> bool:
    """Wait for a key. Polars lets Ctrl-C restart a read that waits, which then hears of it at the next key only."""
    return bool(select.select([fd], [], [])[0])


def _show(session: Session, name: str) -> None:
    console = Console(highlight=False)
    sys.stdout.write(_CLEAR)
    console.print(Text(f"{name}: {session.n_answered:,} of {session.n_items:,} answered", style="bold"))
    console.rule(style="dim")
    item = session.item
    if item is None:
        console.print("all texts are answered: u undo, q quit")
    else:
        choices = _choices(session, item)
        _print_page(console, session, item, console.height - len(choices) - 7)
        console.rule(style="dim")
        for line in choices:
            console.print(line, overflow="ellipsis", no_wrap=True)
        console.print(Text("/ another label   s skip   u undo   m more   q quit", style="dim"))
    console.print(Text(visible(session.note), style="italic"))
    if session.typed is not None:
        console.print(Text(f"label: {visible(session.typed)}"), end="")
    sys.stdout.flush()


def _choices(session: Session, item: Item) -> list[Text]:
    if session.typed is not None:
        return [Text(f"   {visible(label)}") for label in session.matches]
    return [
        Text.assemble((f"{place if place <= 9 else '/'}  ", "bold cyan"), visible(label))
        for place, label in enumerate(item.candidates, start=1)
    ]


def _print_page(console: Console, session: Session, item: Item, n_lines: int) -> None:
    """As much of the text as there is room for; `m` turns the page, after the last comes the first."""
    lines = Text(visible(item.text)).wrap(console, console.width)
    n_lines = max(_MIN_LINES, n_lines)
    n_pages = max(1, -(-len(lines) // n_lines))
    page = session.page % n_pages
    for line in lines[page * n_lines : (page + 1) * n_lines]:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    if n_pages > 1:
        console.print(Text(f"page {page + 1} of {n_pages}, m turns it", style="dim"))
