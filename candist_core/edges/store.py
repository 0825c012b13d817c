"""A store: tables, objects and done-markers under one root, on disk or in a bucket.

Tables are Parquet, their contract's name in the file's metadata, equal frames in equal bytes. Invariant: whoever
reads sees an object whole or not at all, and nothing is called done before everything it names is stored.
"""

import errno
import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, ValidationError

from candist_core.config import Location
from candist_core.edges.filesystem import Place, http_answer, open_place, told
from candist_core.edges.multipart import PIECE_BYTES, put_stream
from candist_core.errors import BadInputError, StoreError, TransientError
from candist_core.parquet import decode_table, encode_table
from candist_core.paths import check_relative
from candist_core.ports import ReportT
from candist_core.reports import StoredFile
from candist_core.tables import Contract, TableRef

log = logging.getLogger(__name__)

_DONE = "done/1"
UNFINISHED = ".candist-"
"""How the names of local writes in progress begin; a listing passes them over."""

# Up to this many objects of one folder are asked for one by one; for more, one listing is cheaper.
_ASK_SINGLY = 8
# What `os.link` says on file systems without hard links, such as exFAT and some network shares.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}
# fsspec's memory file system has no create-only write of its own; it is shared by the threads of one process.
_memory_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Store:
    """The `TableStore` of `candist_core.ports` over one place; small, and picklable."""

    place: Place

    @property
    def uri(self) -> str:
        """The root as the user wrote it."""
        return self.place.uri

    @property
    def local_root(self) -> Path | None:
        """The root as a folder of this machine; None for a bucket."""
        return self.place.local_root

    def write_table(self, path: str, frame: pl.DataFrame, contract: Contract) -> TableRef:
        """Check the frame, write it whole, read its size back, and say where it lies.

        Raises:
            ContractError: the frame is not what the contract says.
            StoreError: no such bucket, no right to write, no room.
            TransientError: the network, or a server, failed.
        """
        data = encode_table(frame, contract)
        self.write_bytes(path, data)
        return TableRef(path, contract.name, frame.height, sha256(data).hexdigest(), len(data))

    def read_table(self, ref: TableRef, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The table's rows, or only some of its columns, in the order of the file.

        Raises:
            ContractError: a contract this version does not know, or not the one that the file was written under.
            StoreError: the table is gone, or its bytes are not those that were written.
        """
        data = self.read_bytes(ref.uri)
        if len(data) != ref.size_bytes or sha256(data).hexdigest() != ref.sha256:
            raise StoreError(
                self._thing(ref.uri), "other bytes than were written", f"sha256 {ref.sha256[:12]}…",
                "delete it and run again",
            )  # fmt: skip
        return decode_table(data, ref.contract, columns)

    def find_done(self, stage: str, key: str, report: type[ReportT]) -> ReportT | None:
        """The report that an earlier run left for these inputs, if its tables still stand.

        A marker that is torn, of another stage, or of another kind of report counts as none.
        """
        path = _marker(stage, key)
        if self._sizes([path])[path] is None:
            return None
        try:
            found = report.model_validate(_opened(self.read_bytes(path), report))
        except (ValueError, ValidationError) as error:
            log.warning("done-marker %s is not usable (%s), its work is done again", path, type(error).__name__)
            return None
        wanted = dict(_stored_objects(found))
        sizes = self._sizes(wanted)
        return found if all(sizes[path] == size for path, size in wanted.items()) else None

    def mark_done(self, stage: str, key: str, report: BaseModel) -> None:
        """Write the done-marker, last of all: everything that the report names is stored."""
        envelope = {"contract": _DONE, "report": type(report).__name__, "value": report.model_dump(mode="json")}
        self.write_bytes(_marker(stage, key), json.dumps(envelope, ensure_ascii=False, indent=1).encode())

    def forget_done(self, stage: str, key: str) -> None:
        """Remove a done-marker, so that the work is done again."""
        self.delete([_marker(stage, key)])

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write one object whole, then read its size back."""
        with self._writing(path) as full:
            if self.place.protocol == "file":
                with _local_temp(Path(full), [data]) as temp:
                    os.replace(temp, full)
            else:
                self.place.fs.pipe_file(full, data)
        self._check_size(path, len(data))

    def write_chunks(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write one object whole from a stream, then read its size back; only on `memory://` and the like is it held.

        Raises:
            what the stream raises: nothing is written.
        """
        counted = _Counted(chunks)
        with self._writing(path) as full:
            if self.place.protocol == "file":
                with _local_temp(Path(full), counted) as temp:
                    os.replace(temp, full)
            elif self.place.protocol == "s3":
                put_stream(self.place.fs, full, iter(counted))
            else:
                self.place.fs.pipe_file(full, b"".join(counted))
        self._check_size(path, counted.n_bytes)

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write one object only if there is none yet; False when there was one. Of many at once, one succeeds.

        Raises:
            StoreError: also for a file system that cannot promise this.
        """
        with self._writing(path) as full:
            if self.place.protocol == "file":
                return _create_local(Path(full), data)
            if self.place.protocol not in ("s3", "memory"):
                raise StoreError(
                    f"store {self.uri}", f"the protocol {self.place.protocol!r}, which may overwrite others' work",
                    "a local path or s3://", "publish to one of these",
                )  # fmt: skip
            try:
                with _memory_lock if self.place.protocol == "memory" else nullcontext():
                    self.place.fs.pipe_file(full, data, mode="create")
            except OSError as error:
                # By status, not by class: for one and the same 412, stores differ in the error that s3fs makes of it.
                if isinstance(error, FileExistsError) or http_answer(error)[0] in (409, 412):
                    return False
                raise
        return True

    def read_bytes(self, path: str) -> bytes:
        """One object."""
        with self._told(path) as full:
            return bytes(self.place.fs.cat_file(full))

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """One object in parts of 8 MB."""
        with self._told(path) as full:
            file = self.place.fs.open(full, "rb", block_size=PIECE_BYTES, cache_type="none")
        with file:
            while True:
                with self._told(path):
                    chunk = file.read(PIECE_BYTES)
                if not chunk:
                    return
                yield chunk

    def list_paths(self, prefix: str) -> list[str]:
        """Every object below a prefix (a folder), sorted; empty when there is none."""
        return sorted(self.list_sizes(prefix))

    def list_sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes of each object below a prefix (a folder), by its path."""
        root = self.place.root.rstrip("/") + "/"
        # The root itself is "", so that a store can be listed as a whole.
        with self._told(prefix) if prefix else told(f"store {self.uri}", StoreError):
            found = self.place.find(self.place.path_of(prefix))
        below = {name[len(root) :]: int(info["size"]) for name, info in found.items() if name.startswith(root)}
        folder = f"{prefix}/" if prefix else ""
        return {
            path: size
            for path, size in below.items()
            if path.startswith(folder) and not path.rpartition("/")[2].startswith(UNFINISHED)
        }

    def list_folders(self, prefix: str = "") -> list[str]:
        """Names of the folders right below a prefix, sorted; what lies in them is not listed."""
        found: list[dict[str, Any]] = []
        with self._told(prefix) if prefix else told(f"store {self.uri}", StoreError), absent_is_fine():
            found = self.place.fs.ls(self.place.path_of(prefix), detail=True)
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no error."""
        for path in paths:
            with self._told(path) as full, absent_is_fine():
                self.place.fs.rm_file(full)

    def _sizes(self, paths: Iterable[str]) -> dict[str, int | None]:
        """Size of each object, None where there is none."""
        sizes: dict[str, int | None] = dict.fromkeys(paths)
        folders = defaultdict(list)
        for path in sizes:
            folders[path.rpartition("/")[0]].append(path)
        for folder, members in folders.items():
            if len(members) > _ASK_SINGLY:
                listed = self.list_sizes(folder)
                sizes.update({path: listed.get(path) for path in members})
                continue
            for path in members:
                with self._told(path) as full, absent_is_fine():
                    info = self.place.fs.info(full)
                    sizes[path] = int(info["size"]) if info["type"] == "file" else None
        return sizes

    @contextmanager
    def _writing(self, path: str) -> Iterator[str]:
        with self._told(path) as full:
            try:
                yield full
            except FileNotFoundError as error:
                if self.place.protocol != "file":
                    raise
                # The folder was made a moment before: somebody, such as `candist gc`, removes things there.
                raise TransientError(self._thing(path), "its folder is gone since it was made") from error

    def _check_size(self, path: str, wanted: int) -> None:
        if self._sizes([path])[path] != wanted:
            raise TransientError(self._thing(path), "its size is not what was written")

    def _thing(self, path: str) -> str:
        return f"store {self.uri}, object {path}"

    @contextmanager
    def _told(self, path: str) -> Iterator[str]:
        check_relative(path)
        with told(self._thing(path), StoreError):
            yield self.place.path_of(path)


def open_store(location: Location) -> Store:
    """The store at a location: a path, `file://`, `s3://`, `memory://`, or another URL known to fsspec.

    Nothing is touched until the first call of a method.

    Raises:
        StoreError: no such protocol, no bucket in the URL, a password in the URL, a place that is read only.

    Example:
        >>> store = open_store(Location(uri="memory://demo"))
        >>> store.create_bytes("a.json", b"{}"), store.create_bytes("a.json", b"{}"), store.list_paths("")
        (True, False, ['a.json'])
    """
    place = open_place(location)
    if place.protocol == "package":
        raise StoreError(
            f"store {location.uri}", "an installed package", "a place to write", "choose a folder or bucket"
        )
    return Store(place)


def read_uri(location: Location, error: type[BadInputError] = StoreError) -> bytes:
    """One file from anywhere a `Location` can name, `package://` included; mistakes raise `error`."""
    place = open_place(location, error)
    with told(f"file {location.uri}", error):
        return bytes(place.fs.cat_file(place.root))


def fetch_folder(location: Location, into: Path) -> Path:
    """Bring a folder to this machine, as with a student's weights on `s3://`.

    Args:
        location: the folder.
        into: where its files go; made if it is missing.

    Returns:
        Where the files lie: `into`, or the folder itself when it is on this machine already.

    Raises:
        StoreError: there is no such folder, or it is empty.
    """
    place = open_place(location)
    if place.local_root is not None and place.local_root.is_dir():
        return place.local_root
    store = Store(place)
    paths = store.list_paths("")
    if not paths:
        raise StoreError(f"folder {location.uri}", "nothing there", "a folder with files", "correct the path or URL")
    for path in paths:
        target = into / check_relative(path)
        with told(f"folder {into}", StoreError), _local_temp(target, store.read_chunks(path)) as temp:
            os.replace(temp, target)
    return into


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """Let an object be missing, but not its bucket."""
    try:
        yield
    except FileNotFoundError as error:
        if http_answer(error)[1] == "NoSuchBucket":
            raise


def _marker(stage: str, key: str) -> str:
    return f"done/{stage}/{key}.json"


def _opened(data: bytes, report: type[BaseModel]) -> object:
    envelope = json.loads(data)
    if not isinstance(envelope, dict) or envelope.get("contract") != _DONE or envelope.get("report") != report.__name__:
        raise ValueError("not the marker of such a report")
    return envelope.get("value")


def _stored_objects(value: object) -> Iterator[tuple[str, int]]:
    """Path and size of every table and file that a report names, however deep."""
    if isinstance(value, (TableRef, StoredFile)):
        yield value.uri, value.size_bytes
    elif isinstance(value, BaseModel):
        yield from _stored_objects([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, dict):
        yield from _stored_objects(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _stored_objects(part)


class _Counted:
    """Chunks, and how many bytes of them have passed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self.n_bytes = chunks, 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.n_bytes += len(chunk)
            yield chunk


@contextmanager
def _local_temp(target: Path, chunks: Iterable[bytes]) -> Iterator[Path]:
    """The bytes in a file beside the target, on disk for good; removed in the end if it is still there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.parent / f"{UNFINISHED}{uuid4().hex}"
    try:
        with temp.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        yield temp
    finally:
        temp.unlink(missing_ok=True)


def _create_local(target: Path, data: bytes) -> bool:
    with _local_temp(target, [data]) as temp:
        try:
            # A link appears with its content and never replaces anything; `open("xb")` would show an empty file first.
            os.link(temp, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_unlinked(target, data)
    return True


def _create_unlinked(target: Path, data: bytes) -> bool:
    try:
        with target.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True
