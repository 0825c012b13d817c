"""A review as a person goes through it: which text is shown, what each key does. Knows no terminal.

Keys: 1 to 9 a candidate, / another label by its name, s skip, u undo, m more of a long text, q quit.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from candist_core.names import names_of

Keep = Callable[["Item", str | None], None]
"""Keeps an answer; None takes it back."""

ENTER, ESCAPE, BACKSPACE, END = "\r\n", "\x1b", "\x7f\x08", "\x04"
_MAX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Item:
    """One text to label; `candidates` in the order in which they are offered."""

    doc_id: str
    text: str
    candidates: tuple[str, ...]
    why: str


class Session:
    """One person's way through the texts.

    Args:
        items: in the order in which they are to be asked.
        labels: all of the task.
        given: labels given before by doc_id, in that order.
        keep: called for each answer before the next text is shown.

    Example:
        >>> kept = []
        >>> items = [Item("a", "hello", ("ham", "spam"), "random")]
        >>> session = Session(items, ["spam", "ham"], {}, lambda item, label: kept.append((item.doc_id, label)))
        >>> session.press("1"), kept, session.item
        (True, [('a', 'ham')], None)
    """

    def __init__(self, items: Sequence[Item], labels: Sequence[str], given: dict[str, str], keep: Keep) -> None:
        by_id = {item.doc_id: item for item in items}
        self._labels, self._keep, self.n_items = tuple(labels), keep, len(items)
        self._answered = [by_id[doc_id] for doc_id in given if doc_id in by_id]
        self._open = deque(item for item in items if item.doc_id not in given)
        self.typed: str | None = None
        self.note, self.page = "", 0

    @property
    def item(self) -> Item | None:
        """The text that is shown; None once all are answered."""
        return self._open[0] if self._open else None

    @property
    def n_answered(self) -> int:
        """Texts with an answer."""
        return len(self._answered)

    @property
    def matches(self) -> list[str]:
        """Labels that hold what is typed, those that begin with it first."""
        wanted = (self.typed or "").strip().casefold()
        found = [label for label in self._labels if wanted in label.casefold()]
        return sorted(found, key=lambda label: not label.casefold().startswith(wanted))[:_MAX_SHOWN]

    def press(self, key: str) -> bool:
        """Take one key; False ends the review."""
        self.note = ""
        if key == END:
            return False
        if self.typed is not None:
            self._type(key)
            return True
        if key in ("q", "Q"):
            return False
        self._command(key)
        return True

    def _command(self, key: str) -> None:
        item = self.item
        if key == "u":
            self._undo()
        elif item is None:
            self.note = "all texts are answered: u undo, q quit"
        elif key in "123456789" and int(key) <= len(item.candidates):
            self._answer(item, item.candidates[int(key) - 1])
        elif key == "/":
            self.typed = ""
        elif key == "s":
            self._open.rotate(-1)
            self.page, self.note = 0, "skipped, it comes again at the end"
        elif key == "m":
            self.page += 1
        else:
            self.note = "no such key"

    def _type(self, key: str) -> None:
        typed = self.typed or ""
        if key == ESCAPE:
            self.typed = None
        elif key in BACKSPACE:
            self.typed = typed[:-1]
        elif key in ENTER:
            self._choose(typed)
        elif key.isprintable():
            self.typed = typed + key

    def _choose(self, typed: str) -> None:
        """Answer with the label that is typed in full, or the only one that holds what is typed."""
        label = names_of(self._labels).resolve(typed) if typed.strip() else None
        found = [label] if label else self.matches
        if self.item is not None and len(found) == 1:
            self.typed = None
            self._answer(self.item, found[0])
        else:
            self.note = "no label holds this" if not found else f"{len(found)} labels hold this, type more"

    def _answer(self, item: Item, label: str) -> None:
        self._keep(item, label)
        self._answered.append(self._open.popleft())
        self.page, self.note = 0, f"{label}: kept, u takes it back"

    def _undo(self) -> None:
        if not self._answered:
            self.note = "nothing to take back"
            return
        item = self._answered.pop()
        self._keep(item, None)
        self._open.appendleft(item)
        self.page, self.note = 0, "the answer is taken back"
