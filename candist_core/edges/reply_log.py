"""Where paid replies are kept: a spool on this machine at once, chunks in the store soon, one table a part at last.

A reply is in the operating system's hands before `append` returns, so the death of the process loses none. The spool
of a dead process is brought into the store by the next `lookup`; a lock that dies with its holder tells the dead from
the living. Invariant: at every moment each appended reply lies in a spool or in the store. Of two replies to one
request, the first counts.
"""

import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import polars as pl

from candist_core.errors import StoreError
from candist_core.ports import Reply, TableStore
from candist_core.tables import REPLIES

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Chunks are small and far away: reading is waiting.
_READERS = 8


class StoreReplyLog:
    """The replies of one teacher; new ones are written under the name of one part.

    `append` may run in one thread while `flush` runs in another.
    """

    def __init__(self, store: TableStore, teacher_key: str, part: str, spool_dir: Path) -> None:
        for what, name in (("teacher key", teacher_key), ("part", part)):
            if not _NAME.fullmatch(name):
                raise StoreError(f"reply log, {what}", repr(name), "letters, digits, . _ -", "give it a plain name")
        self._store, self._part = store, part
        self._folder = f"replies/{teacher_key}"
        self._spool_dir = spool_dir / teacher_key
        self._spool: int | None = None
        self._spool_path: Path | None = None
        self._pending: dict[str, Reply] = {}
        self._n_chunks = 0
        # `_appending` guards spool and pending for an instant, `_flushing` one write to the store at a time.
        self._appending, self._flushing = Lock(), Lock()

    def lookup(self, keys: Iterable[str]) -> Mapping[str, Reply]:
        """Replies kept by any process that asked the same teacher, by request key.

        Raises:
            StoreError: the spool or the store cannot be read.
        """
        wanted = pl.Series("request_key", list(keys), dtype=pl.String)
        self._recover()
        found: dict[str, Reply] = {}
        seen: set[str] = set()
        is_whole = False
        while not is_whole:
            paths = [path for path in self._paths() if path not in seen]
            with ThreadPoolExecutor(_READERS) as readers:
                frames = list(readers.map(lambda path: self._matching(path, wanted), paths))
            # What its own part merged away meanwhile stands under another name: list again.
            is_whole = all(frame is not None for frame in frames)
            seen.update(paths)
            for row in chain.from_iterable(frame.iter_rows(named=True) for frame in frames if frame is not None):
                found.setdefault(row["request_key"], Reply(**row))
        with self._appending:
            unflushed = dict(self._pending)
        for key in wanted:
            if key in unflushed:
                found.setdefault(key, unflushed[key])
        return found

    def append(self, reply: Reply) -> None:
        """Keep one reply from now on: it is with the operating system when this returns."""
        line = json.dumps(asdict(reply)).encode() + b"\n"
        with self._appending:
            if reply.request_key in self._pending:
                return
            try:
                spool = self._open_spool() if self._spool is None else self._spool
                _write(spool, line)
            except OSError as error:
                raise self._unusable(error) from error
            self._pending[reply.request_key] = reply

    def flush(self) -> None:
        """Bring what was appended into the store, as one chunk."""
        with self._flushing:
            with self._appending:
                batch = dict(self._pending)
            if not batch:
                return
            self._write_chunk(batch.values())
            with self._appending:
                for key in batch:
                    del self._pending[key]
                if not self._pending and self._spool is not None:
                    os.ftruncate(self._spool, 0)

    def close(self) -> None:
        """Flush, merge this part's chunks into one table, and remove the spool."""
        self.flush()
        own = re.compile(re.escape(f"{self._folder}/{self._part}-") + r"\d+-[0-9a-f]{8}\.parquet")
        chunks = [path for path in self._paths() if own.fullmatch(path)]
        if len(chunks) > 1:
            columns = list(REPLIES.columns)
            frames = [_decoded(data, path, columns) for path in chunks if (data := self._read(path)) is not None]
            # None are left when another process has just closed the same part.
            if frames:
                self._write_table(pl.concat(frames).unique("request_key", keep="first", maintain_order=True))
            # Only now: a death before this leaves replies twice, never none.
            self._store.delete(chunks)
        with self._appending:
            if self._spool is not None and self._spool_path is not None:
                self._spool_path.unlink(missing_ok=True)
                os.close(self._spool)
                self._spool = self._spool_path = None

    def _paths(self) -> list[str]:
        return [path for path in self._store.list_paths(self._folder) if path.endswith(".parquet")]

    def _read(self, path: str) -> bytes | None:
        """One chunk; None when it was merged away since it was listed."""
        try:
            return self._store.read_bytes(path)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _matching(self, path: str, wanted: pl.Series) -> pl.DataFrame | None:
        if (data := self._read(path)) is None:
            return None
        # Most chunks hold none of the keys, and keys are a small part of a chunk.
        keys = _decoded(data, path, ["request_key"])["request_key"]
        if not keys.is_in(wanted.implode()).any():
            return pl.DataFrame(schema=REPLIES.columns)
        frame = _decoded(data, path, list(REPLIES.columns))
        return frame.join(wanted.to_frame(), on="request_key", how="semi", maintain_order="left")

    def _write_chunk(self, replies: Iterable[Reply]) -> None:
        rows = [asdict(reply) for reply in replies]
        self._write_table(pl.DataFrame(rows, schema=REPLIES.columns))

    def _write_table(self, frame: pl.DataFrame) -> None:
        path = f"{self._folder}/{self._part}-{self._n_chunks:06d}-{secrets.token_hex(4)}.parquet"
        self._store.write_table(path, frame, REPLIES)
        self._n_chunks += 1

    def _open_spool(self) -> int:
        """Make and lock a spool file of our own."""
        self._spool_dir.mkdir(parents=True, exist_ok=True)
        while True:
            path = self._spool_dir / f"{self._part}-{secrets.token_hex(8)}.jsonl"
            spool = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o600)
            fcntl.flock(spool, fcntl.LOCK_EX)
            if os.fstat(spool).st_nlink:
                self._spool, self._spool_path = spool, path
                return spool
            # Taken for a dead one's between its making and its locking; it was empty then.
            os.close(spool)

    def _recover(self) -> None:
        """Bring the spools of dead processes into the store and remove them."""
        try:
            for path in sorted(self._spool_dir.glob("*.jsonl")):
                if (spool := _open_if_dead(path)) is None:
                    continue
                with spool:
                    replies: dict[str, Reply] = {}
                    for reply in _replies_in(spool, path):
                        replies.setdefault(reply.request_key, reply)
                    if replies:
                        with self._flushing:
                            self._write_chunk(replies.values())
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        found = (error.strerror or type(error).__name__).lower()
        return StoreError(f"spool folder {self._spool_dir}", found, "a folder to write to", "free it or choose another")


def _decoded(data: bytes, path: str, columns: list[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(BytesIO(data), columns=columns)
    except pl.exceptions.PolarsError as error:
        thing, step = f"kept replies {path}", "delete that file and run again; its texts are asked again"
        raise StoreError(thing, "a file that cannot be read", "a table under replies/1", step) from error


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _open_if_dead(path: Path) -> BinaryIO | None:
    """A dead process's spool, locked; None while its process lives, or when another has recovered it."""
    try:
        spool = path.open("r+b")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        spool.close()
        return None
    return spool


def _replies_in(spool: BinaryIO, path: Path) -> Iterator[Reply]:
    n_bad = 0
    for line in spool:
        try:
            reply = Reply(**json.loads(line))
        except (ValueError, TypeError):
            # As a rule the last line, cut by death: a cut JSON object is never JSON.
            n_bad += 1
            continue
        yield reply
    if n_bad:
        logger.warning("%d lines of the spool %s hold no whole reply and are dropped", n_bad, path)
