"""How each format is read: JSONL, CSV, Parquet, each as batches of rows with their places in the file.

Lines and rows count from 1. Invariant: a row that cannot be read ends up in `SourceBatch.bad` with its line and a
sentence that holds none of its content; only a file that is as a whole not of its format ends the run.
"""

import csv
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import IO, Any

import polars as pl

from candist_core.edges.filesystem import explain, http_answer
from candist_core.errors import SourceError, TransientError
from candist_core.ingest import SourceBatch

_CHUNK_BYTES = 4 << 20
# The most that is held of a file without reaching the end of a line, or of a quoted field.
_MAX_LINE_BYTES = 64 << 20
# A batch ends early when its lines are this long together.
_BATCH_BYTES = 32 << 20
# This many first lines without one JSON object: the file is something else.
_HOPELESS_LINES = 100
_NOT_TEXT = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip data without .gz in its name",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
}


def line_blocks(read: Callable[[int], bytes], batch_rows: int, uri: str) -> Iterator[list[bytes]]:
    """Cut a stream into lists of at most `batch_rows` lines, without their ends.

    Args:
        read: gives the next bytes, at most as many as asked for, none at the end.
        batch_rows: lines in a list.
        uri: the file, for errors.

    Raises:
        SourceError: the file begins like one of another kind, or a line has no end within 64 MiB.
    """
    lines: list[bytes] = []
    n_bytes = 0
    chunk = read(_CHUNK_BYTES)
    for magic, what in _NOT_TEXT.items():
        if chunk.startswith(magic):
            raise SourceError(f"corpus {uri}", what, "UTF-8 text", "correct source.format or the file's ending")
    rest = chunk.removeprefix(b"\xef\xbb\xbf")
    while chunk:
        *whole, rest = rest.split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise SourceError(f"corpus {uri}", "a line of more than 64 MiB", "shorter lines", "correct the file")
        lines += whole
        n_bytes += len(chunk)
        end = len(lines) if n_bytes >= _BATCH_BYTES else len(lines) - len(lines) % batch_rows
        for start in range(0, end, batch_rows):
            yield lines[start : min(start + batch_rows, end)]
        if end:
            lines, n_bytes = lines[end:], 0
        chunk = read(_CHUNK_BYTES)
        rest += chunk
    if rest:
        lines.append(rest)
    for start in range(0, len(lines), batch_rows):
        yield lines[start : start + batch_rows]


def read_jsonl(blocks: Iterator[list[bytes]], uri: str) -> Iterator[SourceBatch]:
    """One JSON object a line; blank lines are passed over."""
    line = 1
    for lines in blocks:
        kept = [(line + i, text) for i, text in enumerate(lines) if text.strip()]
        if kept:
            batch = _read_json_fast(kept, uri) or _read_json_singly(kept, uri)
            if line == 1 and not batch.rows.height and len(kept) >= _HOPELESS_LINES:
                raise SourceError(
                    f"corpus {uri}", f"no JSON object in its first {len(kept)} lines", "one object a line",
                    "correct source.format or the file",
                )  # fmt: skip
            yield batch
        line += len(lines)


def _read_json_fast(kept: list[tuple[int, bytes]], uri: str) -> SourceBatch | None:
    """All lines at once, or None when any of them is odd."""
    data = b"\n".join(text for _, text in kept)
    try:
        frame = pl.read_ndjson(BytesIO(data), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None
    # polars turns half a surrogate pair into NUL without a word.
    if frame.height != len(kept) or (b"\\ud" in data.lower() and _may_hold_nul(frame)):
        return None
    return SourceBatch(uri, frame, pl.Series([line for line, _ in kept], dtype=pl.Int64))


def _may_hold_nul(frame: pl.DataFrame) -> bool:
    return any(
        column.dtype.is_nested() or (column.dtype == pl.String and column.str.contains("\0", literal=True).any())
        for column in frame
    )


def _read_json_singly(kept: list[tuple[int, bytes]], uri: str) -> SourceBatch:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    bad: list[tuple[int, str]] = []
    for line, text in kept:
        try:
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError("no object")
            # Half a surrogate pair passes through JSON but is no text.
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeError:
            bad.append((line, "the line holds bytes or escapes that are no UTF-8 text"))
        except (ValueError, RecursionError):
            bad.append((line, "the line is not one JSON object"))
        else:
            rows.append(row)
            lines.append(line)
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names], height=len(rows))
    return SourceBatch(uri, frame, pl.Series(lines, dtype=pl.Int64), tuple(bad))


def _column(name: str, values: list[Any]) -> pl.Series:
    """Values as one column; of several types, as text."""
    try:
        return pl.Series(name, values, strict=True)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        texts = [
            value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in values
        ]
        return pl.Series(name, texts, dtype=pl.String)


def read_csv(blocks: Iterator[list[bytes]], uri: str, delimiter: str = ",") -> Iterator[SourceBatch]:
    """Delimited text with a header, quoted as in RFC 4180; fields may hold line ends. Every column is text.

    Raises:
        SourceError: no header, a column twice, a quoted field that does not end within 64 MiB.
    """
    # The limit belongs to the process and is only ever raised; `_Feed` bounds what is held.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * _MAX_LINE_BYTES))
    feed = _Feed(blocks, uri)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    names = _header(reader, uri)
    rows: list[list[str]] = []
    lines: list[int] = []
    bad: list[tuple[int, str]] = []
    n_blocks = feed.n_blocks
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            bad.append((start, f"the row is not well quoted (read to line {reader.line_num})"))
            continue
        finally:
            feed.n_quiet_bytes = 0
        if feed.n_blocks > n_blocks:
            yield _csv_batch(names, rows, lines, bad, uri)
            rows, lines, bad, n_blocks = [], [], [], feed.n_blocks
        if len(row) == len(names):
            rows.append(row)
            lines.append(start)
        elif row:
            bad.append((start, f"the row has {len(row)} fields, the header has {len(names)}"))
    yield _csv_batch(names, rows, lines, bad, uri)


class _Feed:
    """Lines of text, with their ends, for a CSV reader; bytes that are no UTF-8 become lone surrogates."""

    def __init__(self, blocks: Iterator[list[bytes]], uri: str) -> None:
        self.n_blocks = 0
        self.n_quiet_bytes = 0
        self._lines = self._read(blocks, uri)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self, blocks: Iterator[list[bytes]], uri: str) -> Iterator[str]:
        for block in blocks:
            data = b"\n".join(block)
            self.n_blocks += 1
            if self.n_quiet_bytes > _MAX_LINE_BYTES:
                raise SourceError(f"corpus {uri}", "a quote that does not close", "closed quotes", "correct the file")
            # The reader sets this back at the end of each row.
            self.n_quiet_bytes += len(data)
            for line in data.decode("utf-8", "surrogateescape").split("\n"):
                yield line + "\n"


def _header(reader: Iterator[list[str]], uri: str) -> list[str]:
    try:
        names = next((row for row in reader if row), [])
        "".join(names).encode()
    except (csv.Error, UnicodeError) as error:
        raise SourceError(
            f"corpus {uri}", "no readable header", "a line of column names", "correct the file"
        ) from error
    # pandas writes its index under an empty name.
    names = [name.strip() or f"column_{i}" for i, name in enumerate(names, start=1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(f"corpus {uri}", f"the column {twice!r} twice", "each column once", "rename one")
    return names


def _csv_batch(
    names: list[str], rows: list[list[str]], lines: list[int], bad: list[tuple[int, str]], uri: str
) -> SourceBatch:
    if not rows:
        rows_of_none = pl.DataFrame(schema=dict.fromkeys(names, pl.String()))
        return SourceBatch(uri, rows_of_none, pl.Series([], dtype=pl.Int64), tuple(bad))
    try:
        columns = [
            pl.Series(name, values, dtype=pl.String)
            for name, values in zip(names, zip(*rows, strict=True), strict=True)
        ]
    except UnicodeEncodeError:
        is_text = [_is_text(row) for row in rows]
        bad += [
            (line, "the row holds bytes that are no UTF-8") for line, ok in zip(lines, is_text, strict=True) if not ok
        ]
        kept = [row for row, ok in zip(rows, is_text, strict=True) if ok]
        kept_lines = [line for line, ok in zip(lines, is_text, strict=True) if ok]
        return _csv_batch(names, kept, kept_lines, bad, uri)
    return SourceBatch(uri, pl.DataFrame(columns), pl.Series(lines, dtype=pl.Int64), tuple(bad))


def _is_text(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_parquet(raw: IO[bytes], uri: str, batch_rows: int) -> Iterator[SourceBatch]:
    """Rows of a Parquet file; the line of a row is its number.

    Raises:
        SourceError: not Parquet, damaged, a column twice or of a type that polars cannot hold.
        TransientError: the network, or a server, failed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 1
    try:
        # With a buffer, columns stream page by page; else a row group is read whole.
        file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
        names = file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SourceError(f"corpus {uri}", f"the column {twice!r} twice", "each column once", "rename one")
        for batch in file.iter_batches(batch_size=batch_rows):
            yield _parquet_batch(batch, uri, line)
            line += batch.num_rows
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise _unreadable(uri) from error
    except OSError as error:
        failure = explain(error, f"corpus {uri}", SourceError)
        # pyarrow tells of damaged data by an OSError without an errno that comes from no server.
        is_damage = error.errno is None and http_answer(error)[0] is None and not isinstance(failure, TransientError)
        raise (_unreadable(uri) if is_damage else failure) from error


def _unreadable(uri: str) -> SourceError:
    return SourceError(
        f"corpus {uri}", "no Parquet file that can be read", "a whole one", "write it again or correct source.format"
    )


def _parquet_batch(batch: Any, uri: str, line: int) -> SourceBatch:
    """One Arrow batch; pyarrow does not look into its strings, and polars trusts that they are UTF-8."""
    import pyarrow as pa

    lines = pl.int_range(line, line + batch.num_rows, eager=True)
    bad: tuple[tuple[int, str], ...] = ()
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        rows = {row for column in batch.columns for row in _rows_without_text(column)}
        kept = [row not in rows for row in range(batch.num_rows)]
        bad = tuple((line + row, "the row holds bytes that are no UTF-8") for row in sorted(rows))
        batch, lines = batch.filter(pa.array(kept)), lines.filter(pl.Series(kept))
    return SourceBatch(uri, pl.DataFrame(pl.from_arrow(batch)), lines, bad)


def _rows_without_text(column: Any) -> list[int]:
    """Rows of a string column that hold no UTF-8; an invalid column of any other type is an error."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if column.type not in (pa.string(), pa.large_string()):
            raise
        wide = pa.large_binary() if column.type == pa.large_string() else pa.binary()
        return [row for row, value in enumerate(column.cast(wide).to_pylist()) if not _is_utf8(value)]
    return []


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False
