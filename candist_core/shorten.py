"""Cutting a text that is too long for the teacher. Tokens go by bytes, since no tokenizer is at hand.

Invariant: what comes out is never longer than asked for, so cutting twice is cutting once; no character is cut apart,
and no accent, emoji modifier or joined emoji from what it belongs to.

Source:
    Sun et al., How to Fine-Tune BERT for Text Classification?, CCL 2019: head and tail of a long text together tell
    more of its class than either alone.
"""

import unicodedata

from candist_core.budget import BYTES_PER_TOKEN
from candist_core.teacher_config import Truncate

MARK = " [...] "
"""Stands where something was cut out."""
# Below this a text is not what fills a context.
_MIN_BYTES = 256
# Marks that text can pile on one character are without end.
_MAX_JOINED = 32
_ZERO_WIDTH_JOINER = "\u200d"
_MARKS = frozenset({"Mn", "Mc", "Me"})


def shorten(text: str, max_tokens: int, truncate: Truncate = Truncate.HEAD_TAIL) -> str:
    """The text, or its head, or its head and tail in equal parts, in at most so many tokens of about four bytes.

    Example:
        >>> shorten("a" * 50 + "z" * 50, 16, Truncate.HEAD)
        'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaazzzzzzzz [...]'
        >>> shorten("a" * 50 + "z" * 50, 16)
        'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa [...] zzzzzzzzzzzzzzzzzzzzzzzzzzzz'
    """
    return _cut(text, int(max_tokens * BYTES_PER_TOKEN), truncate)


def shorter(text: str, truncate: Truncate = Truncate.HEAD_TAIL) -> str | None:
    """Half of the text, for an endpoint that found it too long; None where the text is too short to be the cause.

    Example:
        >>> shorter("hello") is None
        True
        >>> len(shorter("hello " * 100))
        300
    """
    n_bytes = len(_encoded(text))
    return None if n_bytes < _MIN_BYTES else _cut(text, n_bytes // 2, truncate)


def _cut(text: str, max_bytes: int, truncate: Truncate) -> str:
    # A character has four bytes at most.
    if 4 * len(text) <= max_bytes:
        return text
    data = _encoded(text)
    if len(data) <= max_bytes:
        return text
    mark = MARK if truncate is Truncate.HEAD_TAIL else MARK.rstrip()
    if max_bytes <= 2 * len(mark):
        return text[: _head_chars(text, data, max_bytes)]
    room = max_bytes - len(mark)
    n_tail_bytes = room // 2 if truncate is Truncate.HEAD_TAIL else 0
    head = text[: _head_chars(text, data, room - n_tail_bytes)]
    return head + mark + text[_tail_start(text, data, n_tail_bytes) :]


def _head_chars(text: str, data: bytes, n_bytes: int) -> int:
    """How many characters from the start fit into so many bytes."""
    while n_bytes and _is_inside_char(data, n_bytes):
        n_bytes -= 1
    end = len(data[:n_bytes].decode("utf-8", "surrogatepass"))
    for place in range(end, max(0, end - _MAX_JOINED), -1):
        if not _is_joined(text, place):
            return place
    return end


def _tail_start(text: str, data: bytes, n_bytes: int) -> int:
    """From which character on the rest fits into so many bytes."""
    at = len(data) - n_bytes
    while at < len(data) and _is_inside_char(data, at):
        at += 1
    start = len(text) - len(data[at:].decode("utf-8", "surrogatepass"))
    for place in range(start, min(len(text), start + _MAX_JOINED)):
        if not _is_joined(text, place):
            return place
    return start


def _is_inside_char(data: bytes, at: int) -> bool:
    return data[at] & 0xC0 == 0x80


def _is_joined(text: str, at: int) -> bool:
    """Whether the character at this place and the one before it are drawn as one."""
    if not 0 < at < len(text):
        return False
    before, char = text[at - 1], text[at]
    is_modifier = "\U0001f3fb" <= char <= "\U0001f3ff"
    return (
        unicodedata.category(char) in _MARKS
        or _ZERO_WIDTH_JOINER in (before, char)
        or is_modifier
        or (before, char) == ("\r", "\n")
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
