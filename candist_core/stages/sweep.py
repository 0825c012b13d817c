"""The sweep behind `candist forget`: what a store holds about rows that are to be forgotten, and its removal.

Tables that a run makes again at no cost are removed whole; replies, and what a person decided about single rows, only
lose these rows. Students that learned from them go with all they left, or stay without their notes about these rows.
Invariant: of what leads to other things, such as a student's beliefs to its weights, the last is removed first; what is
not named and marked as candist does it is somebody else's, though it lies in the same folders.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path

import polars as pl

from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import Store
from candist_core.errors import StoreError
from candist_core.forgotten import Forgotten, content_id
from candist_core.parquet import decode_table
from candist_core.tables import DROPPED, REPLIES, Contract, TableRef

_MADE_AGAIN = ("annotations", "labels", "quarantine", "rejects", "sample", "examples", "texts")
"""Folders of tables that the next run makes again; those with texts last, by which a sweep finds its way."""
_LEARNED = re.compile(r"(?:beliefs/([0-9a-f]{32})-\d{6}|reviewed/([0-9a-f]{32}))(?:-[0-9a-f]{8})?\.parquet")
"""Tables of what a student learned from; other beliefs are about texts that it was asked about later."""
_KEY = re.compile(r"[0-9a-f]{32}")
"""How candist names a student, a prompt's head and the embeddings of texts."""
_UNFINISHED = "students"
"""Trainings under way, beside the replies of the spool."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds about the rows: `n_rows` in `n_places`, and what becomes of it."""

    what: str
    n_rows: int
    n_places: int
    remedy: str


class Sweep:
    """One way through a store.

    Args:
        store: of the run.
        forgotten: the rows.
        spool: where this machine keeps replies that are not in the store yet.
        keep_students: let students stay.
        delete: remove what is found; else only count it.
    """

    def __init__(
        self, store: Store, forgotten: Forgotten, spool: Path, *, keep_students: bool = False, delete: bool = False
    ) -> None:
        self._store, self._forgotten, self._spool = store, forgotten, spool
        self._keep_students, self._delete = keep_students, delete
        self.seen: set[str] = set()

    def run(self) -> list[Held]:
        """Everything found, in the order of its removal.

        Raises:
            StoreError: a table that cannot be read; a run at work that holds replies to these rows.
        """
        found = [*self._students(), self._replies(), self._rewritten("set-aside", REPLIES)]
        found += [self._rewritten("dropped", DROPPED), *self._removed()]
        return [held for held in found if held.n_places]

    def count(self, path: str) -> int:
        """Rows of a table that are to be forgotten; their ids, and those made of their texts, are noted."""
        rows = read_columns(self._store, path, ("doc_id", "text"))
        is_gone = self._forgotten.is_id(rows["doc_id"])
        if "text" in rows.columns:
            is_gone = is_gone | self._forgotten.is_text(rows["text"])
        gone = rows.filter(is_gone)
        self.seen.update(gone["doc_id"])
        if "text" in gone.columns:
            self.seen.update(map(content_id, gone["text"]))
        return gone.height

    def _hits(self, folder: str, pattern: str = "") -> dict[str, int]:
        """Tables that hold such rows, and how many."""
        paths = [path for path in self._store.list_paths(folder) if path.endswith(".parquet") and pattern in path]
        return {path: n for path in paths if (n := self.count(path))}

    def _removed(self) -> Iterator[Held]:
        hits = {folder: self._hits(folder) for folder in _MADE_AGAIN}
        embeddings = dict[str, int]()
        if n := sum(hits["texts"].values()) or sum(hits["sample"].values()):
            # They name no row, and those of a pool are of texts that were never drawn: all go.
            known = re.compile(rf"sample/{_KEY.pattern}\.npy")
            embeddings = {path: n for path in self._store.list_paths("sample") if known.fullmatch(path)}
        if self._delete:
            if n:
                self._remove_trainings()
            self._store.delete(chain(embeddings, *hits.values()))
        remedy = "go whole, the next run makes them again at no cost"
        yield Held("embeddings", n, len(embeddings), remedy)
        for folder, found in hits.items():
            yield Held(folder, sum(found.values()), len(found), remedy)

    def _rewritten(self, folder: str, contract: Contract) -> Held:
        hits = self._hits(folder)
        for path in hits if self._delete else ():
            self._without(path, contract, f"{path.removesuffix('.parquet')[:-8]}{secrets.token_hex(4)}.parquet")
            self._store.delete([path])
        return Held(folder, sum(hits.values()), len(hits), "go row by row")

    def _without(self, path: str, contract: Contract, successor: str) -> TableRef:
        """Write a table once more without these rows."""
        frame = decode_table(self._store.read_bytes(path), contract.name)
        return self._store.write_table(successor, frame.filter(~self._forgotten.is_id(frame["doc_id"])), contract)

    def _students(self) -> Iterator[Held]:
        from candist_core.stages.kept_students import forget_in_student

        hits = self._hits("beliefs") | self._hits("reviewed")
        learned = {match[1] or match[2] for path in hits if (match := _LEARNED.fullmatch(path))}
        for key in sorted(learned) if self._delete else ():
            if not (self._keep_students and forget_in_student(self._store, key, self._forgotten)):
                self._remove_student(key, hits)
        if self._delete:
            # What is left are beliefs of students that did not learn from them.
            self._store.delete(path for path in hits)
            if learned:
                self._remove_trainings()
        remedy = "stay, their notes about these rows go" if self._keep_students else "go, the next run distils"
        n_learned = sum(n for path, n in hits.items() if _LEARNED.fullmatch(path))
        yield Held("students that learned from them", n_learned, len(learned), remedy)
        yield Held("beliefs", sum(hits.values()), len(hits), "go with their student, or row by row")

    def _remove_student(self, key: str, hits: Iterable[str]) -> None:
        """Remove a student: first what makes it known, last the tables by which it was found."""
        store = self._store
        store.forget_done("distill", key)
        store.delete(store.list_paths(f"students/{key}"))
        own = [path for path in [*store.list_paths("beliefs"), *store.list_paths("reviewed")] if f"/{key}" in path]
        store.delete(path for path in own if path not in set(hits))
        store.delete(path for path in own if path in set(hits))

    def _remove_trainings(self) -> None:
        """Those under way on this machine: one that was killed has weights already and no student to be found by."""
        for path in (self._spool / _UNFINISHED).glob("*") if not self._keep_students else ():
            if _KEY.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _replies(self) -> Held:
        folders = {path.split("/")[1] for path in self._store.list_paths("replies")}
        spooled = {path.name for path in self._spool.glob("*") if path.is_dir()}
        n = n_heads = 0
        for head in sorted(filter(_KEY.fullmatch, folders | spooled)):
            found = sum(self._hits(f"replies/{head}").values()) + self._in_spool(head)
            if found and self._delete:
                StoreReplyLog(self._store, head, "forget", self._spool).remove(self._forgotten.is_id)
                if self._in_spool(head):
                    raise StoreError(
                        f"spool folder {self._spool / head}", "replies to these rows that a run at work holds", "none",
                        "wait for its end and run this again",
                    )  # fmt: skip
            n, n_heads = n + found, n_heads + bool(found)
        return Held("replies", n, n_heads, "go row by row; those of other rows with such a text are asked for again")

    def _in_spool(self, head: str) -> int:
        """Replies to these rows that are not in the store yet."""
        n = 0
        for path in sorted((self._spool / head).glob("*.jsonl")):
            ids = [doc_id for line in path.read_bytes().splitlines() if (doc_id := _doc_id(line)) is not None]
            n += int(self._forgotten.is_id(pl.Series(ids, dtype=pl.String)).sum())
        return n


def read_columns(store: Store, path: str, names: Iterable[str]) -> pl.DataFrame:
    """Those of the named columns that a table has; no rows of one that candist did not write.

    Raises:
        StoreError: it cannot be read.
    """
    data = store.read_bytes(path)
    try:
        if "contract" not in pl.read_parquet_metadata(BytesIO(data)):
            return pl.DataFrame(schema=dict.fromkeys(names, pl.String()))
        there = pl.read_parquet_schema(BytesIO(data))
        return pl.read_parquet(BytesIO(data), columns=[name for name in names if name in there])
    except pl.exceptions.PolarsError as error:
        step = "delete it and run again; what can be made again will be"
        raise StoreError(f"store {store.uri}, object {path}", "a file that cannot be read", "Parquet", step) from error


def _doc_id(line: bytes) -> str | None:
    """The row of one line of a spool; None for a line that death has cut."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return str(value.get("doc_id")) if isinstance(value, dict) else None
