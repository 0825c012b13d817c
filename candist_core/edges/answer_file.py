"""A file of answers that one person gives, one line each, on disk before the next text is shown.

Invariant: of several lines about a text the last counts, null takes an answer back, and a line that a killed process
left unfinished is no answer.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from candist_core.errors import ReviewError, StoreError


class AnswerFile:
    """Answers so far, and the file that takes the next ones. Open it with `open_answers`."""

    def __init__(self, file: IO[bytes], given: dict[str, str]) -> None:
        self._file, self._given = file, given

    @property
    def given(self) -> dict[str, str]:
        """Labels that stand, by doc_id, in the order in which they were given."""
        return dict(self._given)

    def give(self, doc_id: str, text: str, why: str, label: str | None) -> None:
        """Keep an answer, or with None take it back; on disk when this returns."""
        line = json.dumps({"doc_id": doc_id, "text": text, "why": why, "label": label}, ensure_ascii=False)
        self._file.write(f"{line}\n".encode("utf-8", "surrogatepass"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._given.pop(doc_id, None)
        if label is not None:
            self._given[doc_id] = label


@contextmanager
def open_answers(path: Path) -> Iterator[AnswerFile]:
    """The answers in a file, which is made if there is none; this process alone may add to it.

    Raises:
        ReviewError: another ending, a file of something else, or one that another process writes to.
        StoreError: no such folder, no right to write there.
    """
    if path.suffix != ".jsonl":
        raise ReviewError(f"file {path}", f"the ending {path.suffix!r}", ".jsonl", "name it so")
    try:
        file = path.open("a+b")
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {path}", found, "a place to write", "choose another with --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            found, step = "another review that writes to it", "end that one, or name another file with --out"
            raise ReviewError(f"file {path}", found, "this one alone", step) from error
        yield AnswerFile(file, _read(file, path))


def _read(file: IO[bytes], path: Path) -> dict[str, str]:
    file.seek(0)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    given: dict[str, str] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            doc_id, label = row["doc_id"], row["label"]
        except (ValueError, TypeError, KeyError) as error:
            found, step = "no answer", "name another file with --out"
            raise ReviewError(f"file {path}, line {number}", found, "answers of a review", step) from error
        given.pop(doc_id, None)
        if label is not None:
            given[doc_id] = label
    # Only once all of it has proved to be answers.
    file.truncate(len(whole))
    return given
