"""Where paid replies are kept: a spool on this machine at once, chunks in the store soon, one table a part at last.

A reply is in the operating system's hands before `append` returns, so the death of the process loses none. The spool
of a dead process is brought into the store by the next `lookup`; a lock that dies with its holder tells the dead from
the living. Chunks never change, so what is known of one holds until it is gone (see `reply_index`). Invariant: at every
moment each appended reply lies in a spool or in the store. Of two replies to one request the first counts: that of the
chunk whose path sorts first; merging keeps a part's chunks in that order, and what is not in the store yet comes last.
"""

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import polars as pl
from pydantic import TypeAdapter, ValidationError

from candist_core.edges.reply_index import READERS, index_of
from candist_core.errors import ContractError, StoreError
from candist_core.ports import Reply, TableStore
from candist_core.tables import REPLIES, check, empty

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Compiled once from the dataclass: about 1 microsecond a reply, where `asdict` and `json` take 12.
_LINE = TypeAdapter(Reply)
_FIELDS = tuple(field.name for field in fields(Reply))
_values_of = attrgetter(*_FIELDS)
# A few shards' worth; more are read back from the store.
_MAX_OWN_ROWS = 20_000


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
        self._index = index_of(store, self._folder)
        self._spool_dir = spool_dir / teacher_key
        self._spool: int | None = None
        self._spool_path: Path | None = None
        self._pending: dict[str, Reply] = {}
        self._n_chunks = 0
        # Chunks written here, so that merging them reads none back.
        self._own: dict[str, pl.DataFrame] = {}
        # `_appending` guards spool and pending for an instant, `_flushing` one write to the store at a time.
        self._appending, self._flushing = Lock(), Lock()

    def lookup(self, keys: Iterable[str]) -> Mapping[str, Reply]:
        """Replies kept by any process that asked the same teacher, by request key.

        Raises:
            StoreError: the spool or the store cannot be read.
        """
        wanted = pl.Series("request_key", list(dict.fromkeys(keys)), dtype=pl.String)
        self._recover()
        # Before the store is read: what a flush moves there meanwhile is then found in one of the two.
        with self._appending:
            unflushed = dict(self._pending)
        found = {key: unflushed[key] for key in wanted if key in unflushed}
        return found | {reply.request_key: reply for reply in self._stored(wanted)}

    @property
    def has_any(self) -> bool:
        """Whether the store held any reply of this teacher at the last lookup, or one was appended since."""
        return bool(self._pending) or self._index.n_entries > 0

    def is_empty(self) -> bool:
        """Whether no process has kept any reply, as far as the store and this machine's spools tell now."""
        self.lookup(())
        return not self.has_any

    def append(self, reply: Reply) -> None:
        """Keep one reply from now on: it is with the operating system when this returns."""
        line = _LINE.dump_json(reply) + b"\n"
        with self._appending:
            if reply.request_key in self._pending:
                return
            # Before the write: where that fails, the next flush may still bring the reply into the store.
            self._pending[reply.request_key] = reply
            try:
                spool = self._open_spool() if self._spool is None else self._spool
                _write(spool, line)
            except OSError as error:
                raise self._unusable(error) from error

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

    def set_aside(self, keys: Iterable[str]) -> int:
        """Put the replies to these requests where no lookup finds them; they stay in the store, under `set-aside/`.

        Nobody else may write to the same log meanwhile.

        Returns:
            Replies set aside.
        """
        wanted = pl.Series("request_key", list(dict.fromkeys(keys)), dtype=pl.String)
        # Brings what dead processes left into the store, and the index up to date.
        self.lookup(wanted)
        self.flush()
        found: set[str] = set()
        for path in self._index.find(wanted):
            if (frame := self._frame(path)) is None:
                continue
            is_wanted = frame["request_key"].is_in(wanted.implode())
            if gone := frame.filter(is_wanted)["request_key"].to_list():
                token = secrets.token_hex(4)
                aside = f"{self._folder.replace('replies/', 'set-aside/', 1)}/{Path(path).stem}-{token}.parquet"
                self._store.write_table(aside, frame.filter(is_wanted), REPLIES)
                self._replace(path, f"{path.rpartition('-')[0]}-{token}.parquet", frame.filter(~is_wanted))
                found.update(gone)
        return len(found)

    def remove(self, is_gone: Callable[[pl.Series], pl.Series]) -> int:
        """Remove the replies about some rows for good, by their doc_id; those of dead processes' spools as well.

        Nobody else may write to the same log meanwhile.

        Returns:
            Replies removed.
        """
        self.lookup(())
        self.flush()
        n = 0
        for path in self._paths():
            if (frame := self._frame(path)) is None:
                continue
            gone = is_gone(frame["doc_id"])
            if gone.any():
                self._replace(path, f"{path.rpartition('-')[0]}-{secrets.token_hex(4)}.parquet", frame.filter(~gone))
                n += int(gone.sum())
        return n

    def _replace(self, path: str, successor: str, frame: pl.DataFrame) -> None:
        """Put another chunk in the place of one, its rank among the others kept."""
        if frame.height:
            self._store.write_table(successor, frame, REPLIES)
            self._index.add(successor, frame["request_key"])
        self._store.delete([path])
        self._index.forget([path])
        self._own.pop(path, None)

    def close(self) -> None:
        """Flush, merge this part's chunks into one table, and remove the spool.

        Where the store takes no reply, the spool stays and is let go: the next `lookup` of anybody brings it in.
        """
        try:
            self.flush()
            self._merge_chunks()
        finally:
            with self._appending:
                if self._spool is not None and self._spool_path is not None:
                    if not self._pending:
                        self._spool_path.unlink(missing_ok=True)
                    # A lock that outlived this would make its replies a living process's, for all time to come.
                    os.close(self._spool)
                    self._spool = self._spool_path = None

    def _merge_chunks(self) -> None:
        own = re.compile(re.escape(f"{self._folder}/{self._part}-") + r"\d+-[0-9a-f]{8}\.parquet")
        chunks = [path for path in self._paths() if own.fullmatch(path)]
        if len(chunks) > 1:
            with ThreadPoolExecutor(READERS) as readers:
                frames = [frame for frame in readers.map(self._frame, chunks) if frame is not None]
            # None are left when another process has just closed the same part.
            if frames:
                self._write_table(pl.concat(frames).unique("request_key", keep="first", maintain_order=True))
            # Only now: a death before this leaves replies twice, never none.
            self._store.delete(chunks)

    def _frame(self, path: str) -> pl.DataFrame | None:
        """A chunk's rows, from memory where it was written here of late; None when it is gone."""
        if (frame := self._own.get(path)) is not None:
            return frame
        data = self._read(path)
        return None if data is None else _rows(data, path)

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

    def _stored(self, wanted: pl.Series) -> list[Reply]:
        """The store's first reply to each key, out of chunks that hold one or that this process never read."""
        frames: dict[str, pl.DataFrame] = {}
        gone: set[str] = set()

        def read(path: str) -> bytes | None:
            if (data := self._read(path)) is None:
                gone.add(path)
            return data

        def keys_of(path: str) -> pl.Series | None:
            if (data := read(path)) is None:
                return None
            keys = _keys(data, path)
            if keys.is_in(wanted.implode()).any():
                frames[path] = _rows(data, path, wanted)
            return keys

        def fetch(path: str) -> None:
            if (data := read(path)) is not None:
                frames[path] = _rows(data, path, wanted)

        n_gone = -1
        # What its own part merged away meanwhile stands under another name: list again.
        while len(gone) > n_gone:
            n_gone = len(gone)
            self._index.refresh(lambda: [path for path in self._paths() if path not in gone], keys_of)
            with ThreadPoolExecutor(READERS) as readers:
                list(readers.map(fetch, set(self._index.find(wanted)) - frames.keys() - gone))
        rows = pl.concat([empty(REPLIES), *(frames[path] for path in sorted(frames))])
        first = rows.unique("request_key", keep="first", maintain_order=True)
        return [Reply(*row) for row in first.select(_FIELDS).iter_rows()]

    def _write_chunk(self, replies: Iterable[Reply]) -> None:
        columns = zip(*map(_values_of, replies), strict=True)
        self._write_table(pl.DataFrame(dict(zip(_FIELDS, columns, strict=True)), schema=REPLIES.columns))

    def _write_table(self, frame: pl.DataFrame) -> None:
        path = f"{self._folder}/{self._part}-{self._n_chunks:06d}-{secrets.token_hex(4)}.parquet"
        self._store.write_table(path, frame, REPLIES)
        if sum(map(len, self._own.values())) < _MAX_OWN_ROWS:
            self._own[path] = frame
        self._index.add(path, frame["request_key"])
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
        """Bring the spools of dead processes into the store and remove them; wait for whoever is about it already."""
        try:
            # None is left once another has brought it into the store.
            if not any(self._spool_dir.glob("*.jsonl")):
                return
            with (self._spool_dir / ".recovering").open("wb") as turn:
                # A spool that another one recovers is locked, as one at work is; its chunk has to be there first.
                fcntl.flock(turn, fcntl.LOCK_EX)
                for path in sorted(self._spool_dir.glob("*.jsonl")):
                    self._recover_one(path)
        except OSError as error:
            raise self._unusable(error) from error

    def _recover_one(self, path: Path) -> None:
        if (spool := _open_if_dead(path)) is None:
            return
        with spool:
            replies: dict[str, Reply] = {}
            for reply in _replies_in(spool, path):
                replies.setdefault(reply.request_key, reply)
            if replies:
                with self._flushing:
                    self._write_chunk(replies.values())
            path.unlink(missing_ok=True)

    def _unusable(self, error: OSError) -> StoreError:
        found = (error.strerror or type(error).__name__).lower()
        return StoreError(f"spool folder {self._spool_dir}", found, "a folder to write to", "free it or choose another")


def _keys(data: bytes, path: str) -> pl.Series:
    with _named(path):
        schema = {"request_key": REPLIES.columns["request_key"]}
        return pl.scan_parquet(BytesIO(data), schema=schema, extra_columns="ignore").collect()["request_key"]


def _rows(data: bytes, path: str, wanted: pl.Series | None = None) -> pl.DataFrame:
    """A chunk's rows, or those under the wanted keys; columns that an older version did not write are null."""
    with _named(path):
        rows = pl.scan_parquet(BytesIO(data), schema=REPLIES.columns, missing_columns="insert", extra_columns="ignore")
        if wanted is not None:
            rows = rows.filter(pl.col("request_key").is_in(wanted.implode()))
        return check(rows.collect(), REPLIES)


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, ContractError) as error:
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
            reply = _LINE.validate_json(line)
        except ValidationError:
            # As a rule the last line, cut by death: a cut JSON object is never JSON.
            n_bad += 1
            continue
        yield reply
    if n_bad:
        logger.warning("%d lines of the spool %s hold no whole reply and are dropped", n_bad, path)
