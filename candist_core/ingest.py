"""Ingest: rows of any corpus to shards of examples and of distinct texts, and what was rejected with its reason.

Rows come in batches and tables go out through a callable, so that a corpus of any length passes in bounded memory.
Invariants: a shard has exactly `shard_rows` rows, the last what is left; every row of the source is one row of
examples or one of rejects, but for rows to be forgotten, which leave no trace; each distinct text stands in `texts`
once, under the id of its first row.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from candist_core.columns import Columns, is_blank
from candist_core.config import SourceConfig
from candist_core.errors import SourceError
from candist_core.paths import public_uri
from candist_core.rejects import count_reasons, reasons_in_words
from candist_core.reports import IngestReport, SourceFile
from candist_core.schema import Schema, conform, join_schemas, stored_type
from candist_core.seen import Seen, digests, hexdigests
from candist_core.tables import EXAMPLES, REJECTS, TEXTS, Contract, TableRef, empty

WriteTable = Callable[[str, int, pl.DataFrame], TableRef]
ReadTable = Callable[[TableRef], pl.DataFrame]
IsForgotten = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some rows of one file, as read.

    `lines`, (n,) Int64, tells where each row stands in the file, from 1; `bad` holds line and sentence of rows
    that could not be read.
    """

    uri: str
    rows: pl.DataFrame
    lines: pl.Series
    bad: tuple[tuple[int, str], ...] = ()


def ingest(
    batches: Iterable[SourceBatch],
    source: SourceConfig,
    files: tuple[SourceFile, ...],
    write: WriteTable,
    read: ReadTable,
    is_forgotten: IsForgotten | None = None,
) -> IngestReport:
    """Turn the rows of a corpus into shards.

    Memory: some shards, the rejects, and what tells a row from an earlier one: 24 bytes for each text, with an id
    column as many for each id, and the id itself (`candist_core.seen`).

    Args:
        batches: rows in their order.
        source: which columns matter; without an id column, an id is the BLAKE2b-128 of the text in hex, with "-2",
            "-3" and so on behind it for rows that repeat a text.
        files: the files that the batches come from, for the report.
        write: stores one table (contract, index of the shard, frame). A shard of examples is written again at the
            end when later rows brought new columns or other types.
        read: the table that `write` stored.
        is_forgotten: which rows, of doc_id and text, leave no trace.

    Returns:
        The tables. Rejects have one of the reasons empty, oversized, undecodable, no_id, duplicate_id.

    Raises:
        SourceError: a column that is not there, a text that is no text, no usable row.
    """
    columns, ids = Columns(source), _Ids()
    rejects = [empty(REJECTS)]
    examples = _Shards(EXAMPLES, source.shard_rows, write, read)
    texts = _Shards(TEXTS, source.shard_rows, write, read)
    n_rows = n_gold = 0
    for batch in batches:
        rows, others = columns.read(batch.rows, batch.uri)
        if is_forgotten is not None:
            batch, rows, others = _without(is_forgotten(rows), batch, rows, others)
        n_rows += batch.rows.height + len(batch.bad)
        rows = ids.assign(_judge(rows.with_columns(line=batch.lines), source), has_ids=source.id is not None)
        rejects.append(_rejected(rows, batch, source))
        is_usable = rows["reason"].is_null()
        usable = rows.filter(is_usable)
        n_gold += usable.height - usable["gold"].null_count()
        # A frame without columns has no rows to filter.
        kept = others.filter(is_usable) if others.width else others
        examples.add(usable.select(*EXAMPLES.columns).hstack(kept))
        texts.add(usable.filter("is_first").select(*TEXTS.columns))
    columns.require_all_seen()
    rejected = pl.concat(rejects)
    if not examples.n_rows:
        raise _nothing_usable(source, rejected, n_rows)
    return IngestReport(
        examples=examples.finish(),
        texts=texts.finish(),
        rejects=write(REJECTS.name, 0, rejected),
        files=files,
        n_rows=n_rows,
        n_examples=examples.n_rows,
        n_texts=texts.n_rows,
        n_rejects=rejected.height,
        n_gold=n_gold,
        user_columns=tuple(name for name in examples.schema if name not in EXAMPLES.columns),
        reject_reasons=count_reasons(rejected),
    )


def _without(
    is_gone: pl.Series, batch: SourceBatch, rows: pl.DataFrame, others: pl.DataFrame
) -> tuple[SourceBatch, pl.DataFrame, pl.DataFrame]:
    """A batch and what was read of it, without some rows."""
    left = ~is_gone
    shown = replace(batch, rows=batch.rows.filter(left), lines=batch.lines.filter(left))
    return shown, rows.filter(left), others.filter(left) if others.width else others


def _judge(rows: pl.DataFrame, source: SourceConfig) -> pl.DataFrame:
    """Why a row cannot be used, by itself; null where it can."""
    lacks_id = pl.col("doc_id").is_null() if source.id is not None else pl.lit(value=False)
    return rows.with_columns(
        reason=pl.when("is_broken")
        .then(pl.lit("undecodable"))
        .when(lacks_id)
        .then(pl.lit("no_id"))
        .when(pl.col("is_blank") | is_blank(pl.col("text")))
        .then(pl.lit("empty"))
        .when(pl.col("text").str.len_chars() > source.max_chars)
        .then(pl.lit("oversized"))
    )


class _Ids:
    """Gives ids, and tells rows and texts that stood before."""

    def __init__(self) -> None:
        self._ids, self._texts = Seen(), Seen()
        # Ids of the rows whose texts were taken in, batch by batch, and where each batch begins.
        self._taken: list[pa.Array] = []
        self._starts: list[int] = []
        self._times: dict[int, int] = {}

    def assign(self, rows: pl.DataFrame, has_ids: bool) -> pl.DataFrame:
        """Fill doc_id, same_as and is_first of usable rows; those with an id seen before get `duplicate_id`."""
        rows = rows.with_row_index("place")
        usable = rows.filter(pl.col("reason").is_null())
        if has_ids:
            start = self._ids.n
            is_again = self._ids.add(digests(usable["doc_id"].to_list())) != start + np.arange(usable.height)
            again = usable.filter(pl.Series(is_again)).select("place", again=pl.lit("duplicate_id"))
            usable = usable.filter(pl.Series(~is_again))
            rows = rows.join(again, on="place", how="left", maintain_order="left")
            rows = rows.with_columns(pl.coalesce("reason", "again").alias("reason")).drop("again")
        named = self._with_ids(usable) if has_ids else self._by_content(usable)
        both = rows.drop("doc_id").join(named, on="place", how="left", maintain_order="left")
        kept = rows["doc_id"]
        return both.with_columns(
            pl.coalesce("doc_id", kept).alias("doc_id"), pl.col("is_first").fill_null(value=False)
        ).drop("place")

    def _with_ids(self, usable: pl.DataFrame) -> pl.DataFrame:
        start, doc_ids = self._texts.n, usable["doc_id"]
        self._taken.append(doc_ids.to_arrow())
        self._starts.append(start)
        places = self._texts.add(digests(usable["text"].to_list()))
        is_first = places == start + np.arange(usable.height)
        same_as = doc_ids.to_list()
        for row in np.flatnonzero(~is_first).tolist():
            same_as[row] = self._id_at(int(places[row]))
        return usable.select(
            "place", "doc_id", same_as=pl.Series(same_as, dtype=pl.String), is_first=pl.Series(is_first)
        )

    def _id_at(self, place: int) -> str:
        batch = bisect_right(self._starts, place) - 1
        found: str = self._taken[batch][place - self._starts[batch]].as_py()
        return found

    def _by_content(self, usable: pl.DataFrame) -> pl.DataFrame:
        start, found = self._texts.n, digests(usable["text"].to_list())
        places, same_as = self._texts.add(found), hexdigests(found)
        is_first, doc_ids = places == start + np.arange(usable.height), list(same_as)
        for row in np.flatnonzero(~is_first).tolist():
            times = self._times[int(places[row])] = self._times.get(int(places[row]), 1) + 1
            doc_ids[row] = f"{same_as[row]}-{times}"
        columns = {"doc_id": doc_ids, "same_as": same_as}
        return usable.select("place", is_first=pl.Series(is_first)).with_columns(
            pl.Series(name, values, dtype=pl.String) for name, values in columns.items()
        )


def _rejected(rows: pl.DataFrame, batch: SourceBatch, source: SourceConfig) -> pl.DataFrame:
    """The batch's rejects in the order of the file. Details say where and why, and never quote a text."""
    why = {
        "undecodable": "the text or the id holds NUL or bytes that are no UTF-8",
        "no_id": f"no value in column {source.id!r}",
        "empty": "no text",
        "duplicate_id": "an earlier row has the same id",
    }
    too_long = pl.format("{} characters, at most {} are taken", pl.col("text").str.len_chars(), source.max_chars)
    judged = rows.filter(pl.col("reason").is_not_null()).select(
        "doc_id", "line", "reason", detail=pl.col("reason").replace_strict(why, default=None).fill_null(too_long)
    )
    unread = pl.DataFrame(
        [(None, line, "undecodable", detail) for line, detail in batch.bad], schema=judged.schema, orient="row"
    )
    place = pl.format("{}:{}", pl.lit(public_uri(batch.uri)), "line")
    return (
        pl.concat([judged, unread])
        .sort("line", maintain_order=True)
        .select(
            pl.col("doc_id").fill_null(place),
            pl.lit("ingest").alias("stage"),
            "reason",
            pl.format("{}: {}", place, "detail").alias("detail"),
        )
    )


def _nothing_usable(source: SourceConfig, rejected: pl.DataFrame, n_rows: int) -> SourceError:
    if not n_rows:
        return SourceError(f"corpus {source.uri}", "no row", "at least one text", "correct source.uri")
    reasons = reasons_in_words(count_reasons(rejected))
    return SourceError(
        f"corpus {source.uri}", f"no usable row among {n_rows} ({reasons})", "at least one text",
        "look at source.text and source.id",
    )  # fmt: skip


class _Shards:
    """Cuts frames into shards of `shard_rows` rows and brings all of them under one schema."""

    def __init__(self, contract: Contract, shard_rows: int, write: WriteTable, read: ReadTable) -> None:
        self.schema: Schema = {}
        self.n_rows = 0
        self._contract, self._shard_rows = contract, shard_rows
        self._write, self._read = write, read
        self._waiting: list[pl.DataFrame] = []
        self._n_waiting = 0
        self._tables: list[TableRef] = []
        self._stored: list[Schema] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take some rows, and write the shards that they fill."""
        if not frame.height:
            return
        self.schema = join_schemas(self.schema, dict(frame.schema))
        self._waiting.append(frame)
        self._n_waiting += frame.height
        self.n_rows += frame.height
        if self._n_waiting >= self._shard_rows:
            self._cut(self._n_waiting - self._n_waiting % self._shard_rows)

    def finish(self) -> tuple[TableRef, ...]:
        """Write what is left, and write again the shards that later rows gave another schema."""
        if self._n_waiting:
            self._cut(self._n_waiting)
        final = self._target()
        for index, (table, stored) in enumerate(zip(self._tables, self._stored, strict=True)):
            if stored != final:
                frame = conform(self._read(table), self.schema)
                self._tables[index] = self._write(self._contract.name, index, frame)
        return tuple(self._tables)

    def _cut(self, n_rows: int) -> None:
        frame = pl.concat([conform(part, self.schema) for part in self._waiting])
        for start in range(0, n_rows, self._shard_rows):
            shard = frame[start : min(start + self._shard_rows, n_rows)]
            self._tables.append(self._write(self._contract.name, len(self._tables), shard))
            self._stored.append(self._target())
        self._waiting = [frame[n_rows:]] if n_rows < frame.height else []
        self._n_waiting = frame.height - n_rows

    def _target(self) -> Schema:
        return {name: stored_type(dtype) for name, dtype in self.schema.items()}
