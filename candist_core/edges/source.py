"""The corpus: one file, a folder or a glob of Parquet, JSONL or CSV, plain or gzipped, on disk or in a bucket.

Invariant: a file is read only in the state in which it was found.
"""

import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from candist_core.config import SourceConfig, SourceFormat
from candist_core.edges.filesystem import Place, open_place, told
from candist_core.edges.readers import line_blocks, read_csv, read_jsonl, read_parquet
from candist_core.errors import EmptySourceError, SourceError
from candist_core.ingest import SourceBatch
from candist_core.reports import SourceFile

_ENDINGS = {
    ".parquet": SourceFormat.PARQUET,
    ".pq": SourceFormat.PARQUET,
    ".jsonl": SourceFormat.JSONL,
    ".ndjson": SourceFormat.JSONL,
    ".json": SourceFormat.JSONL,
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.CSV,
}


_BLOCK_BYTES = 8 << 20


def find_files(source: SourceConfig) -> tuple[SourceFile, ...]:
    """The files of a corpus, sorted by path.

    In a folder, what has a name that begins with `.` or `_` is passed over, and so is a file whose ending is not that
    of the format, unless that leaves none and the format is set.

    Returns:
        Each file with its size and a token that changes when it does: the ETag of an object; size and time of
        change (nanoseconds) of a local file.

    Raises:
        EmptySourceError: nothing there.
        SourceError: no file of a known format, several formats in one folder.
        TransientError: the network, or a server, failed.
    """
    place, found = _find(source)
    if not found:
        raise _nothing_at(source)
    formats = {path: _format_of(path) for path in found}
    if source.format is SourceFormat.AUTO:
        chosen = {path: kind for path, kind in formats.items() if kind is not None}
    else:
        chosen = {path: kind for path, kind in formats.items() if kind is source.format}
        chosen = chosen or dict.fromkeys(found, source.format)
    if not chosen:
        raise SourceError(
            f"corpus {source.uri}", f"no known ending, as in {os.path.basename(min(found))!r}",
            f"one of {', '.join(_ENDINGS)}, also with .gz", "set source.format",
        )  # fmt: skip
    if source.format is SourceFormat.AUTO and len(kinds := sorted(set(chosen.values()))) > 1:
        raise SourceError(
            f"corpus {source.uri}", f"files of the formats {' and '.join(kinds)}", "one format",
            "set source.format, or give a glob such as folder/*.jsonl",
        )  # fmt: skip
    return tuple(
        SourceFile(uri=place.uri_of(path), size_bytes=int(found[path]["size"]), etag=_token(place, found[path]))
        for path in sorted(chosen)
    )


def read_batches(
    source: SourceConfig, files: tuple[SourceFile, ...], batch_rows: int = 20_000
) -> Iterator[SourceBatch]:
    """Read the files in their order, at most `batch_rows` rows at a time.

    No more of a file is held than one batch (of Parquet: about a row group). Types are those of the file; in CSV every
    column is text, so that an id such as 007 stays what it is. A row that cannot be read is told with its line.

    Raises:
        SourceError: a file that changed since `find_files`, is not of its format, or cannot be read.
        TransientError: the network, or a server, failed.
    """
    for file in files:
        kind = _format_of(file.uri) if source.format is SourceFormat.AUTO else source.format
        with _open(source, file) as raw:
            if kind is SourceFormat.PARQUET:
                yield from read_parquet(raw, file.uri, batch_rows)
                continue
            name = file.uri.lower()
            stream = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
            blocks = line_blocks(_reader(stream, file.uri), batch_rows, file.uri)
            if kind is SourceFormat.CSV:
                yield from read_csv(blocks, file.uri, "\t" if name.removesuffix(".gz").endswith(".tsv") else ",")
            else:
                yield from read_jsonl(blocks, file.uri)


def _nothing_at(source: SourceConfig) -> EmptySourceError:
    """A relative path counts from where the command runs, which is not always where its YAML lies."""
    if "://" in source.uri or os.path.isabs(os.path.expanduser(source.uri)):
        return EmptySourceError(f"corpus {source.uri}", "no file", "at least one", "correct source.uri")
    step = "start it in the folder that source.uri counts from, or write the whole path"
    return EmptySourceError(f"corpus {source.uri}", f"no file at {os.path.abspath(source.uri)}", "at least one", step)


def _find(source: SourceConfig) -> tuple[Place, dict[str, dict[str, Any]]]:
    """The place of a corpus and the files in it, each with what the file system says of it."""
    place = open_place(source, SourceError)
    with told(f"corpus {source.uri}", SourceError):
        info = _info(place)
        if info is not None and info["type"] == "file":
            return place, {place.root: info}
        if info is not None or not glob.has_magic(source.uri):
            return place, _visible(place.fs.find(place.root, detail=True), place.root)
    head, mark, tail = source.uri.rpartition("://")
    parts = tail.split("/")
    n_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    # The pattern may be all there is ("*.csv"), or all but the root ("/*.csv").
    base = "/".join(parts[:n_fixed]) or ("/" if n_fixed else "")
    place = open_place(source.model_copy(update={"uri": f"{head}{mark}{base}" or "."}), SourceError)
    with told(f"corpus {source.uri}", SourceError):
        pattern = "/".join([glob.escape(place.root.rstrip("/")), *parts[n_fixed:]])
        found = place.fs.glob(pattern, detail=True)
    return place, _visible({path: info for path, info in found.items() if info["type"] == "file"}, place.root)


def _info(place: Place) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = place.fs.info(place.root)
    except FileNotFoundError:
        return None
    return info


def _visible(found: dict[str, dict[str, Any]], root: str) -> dict[str, dict[str, Any]]:
    folder = root.rstrip("/") + "/"
    below = {path: path.removeprefix(folder).split("/") for path in found if path.startswith(folder)}
    return {path: found[path] for path, parts in below.items() if not any(part[:1] in "._" for part in parts)}


def _format_of(name: str) -> SourceFormat | None:
    ending = os.path.splitext(name.lower().removesuffix(".gz"))[1]
    return _ENDINGS.get(ending)


def _token(place: Place, info: dict[str, Any]) -> str:
    if etag := info.get("ETag"):
        return str(etag).strip('"')
    if place.local_root is not None:
        return f"{info['size']}-{os.stat(info['name']).st_mtime_ns}"
    return str(place.fs.ukey(info["name"]))


@contextmanager
def _open(source: SourceConfig, file: SourceFile) -> Iterator[IO[bytes]]:
    place = open_place(source.model_copy(update={"uri": file.uri}), SourceError)
    with told(f"corpus {file.uri}", SourceError):
        token = _token(place, place.fs.info(place.root))
        if token != file.etag:
            raise SourceError(f"corpus {file.uri}", "a file changed while the run went on", "one at rest", "run again")
        # s3fs would fetch 50 MiB at a time, also for one small column of a Parquet file.
        raw = place.fs.open(place.root, "rb", block_size=_BLOCK_BYTES)
    with raw:
        yield raw


def _reader(stream: Any, uri: str) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        with told(f"corpus {uri}", SourceError):
            try:
                return bytes(stream.read(size))
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise SourceError(
                    f"corpus {uri}", "data that is not gzip or is cut off", "a whole .gz file", "pack it again"
                ) from error

    return read
