"""The content of a version, file by file: examples joined with their labels, rejects, the student.

Labels are of distinct texts and examples are rows, so a row's label may lie in an earlier shard. Invariant: the same
tables give the same files, byte by byte, however the rows were cut into shards.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

import polars as pl

from candist_core.config import RunConfig
from candist_core.errors import ContractError
from candist_core.manifest import Counts, VersionFile
from candist_core.parquet import encode_table
from candist_core.ports import TableStore
from candist_core.rejects import count_reasons
from candist_core.reports import RunReports
from candist_core.tables import EXAMPLES, LABELS, REJECTS, Contract, TableRef, empty

PUBLISHED = Contract(
    "published/1",
    {"doc_id": pl.String(), "text": pl.String()} | LABELS.columns,
    key="doc_id",
    nullable=LABELS.nullable,
    is_open=True,
)
"""Beside these stand gold, if there was one, and the user's own columns."""

# Rows of one part: about 10 MB of short texts.
_PART_ROWS = 50_000
_NO_SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a version with its bytes, or where they lie.

    Of data the schema and rows that want review are told, of rejects their reasons. `source` is a path in the run's
    store, for files that are copied as streams.
    """

    file: VersionFile
    data: bytes = b""
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    n_review: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A version's files without their bytes, and what is in them. `splits` has rows by the files' first name."""

    files: tuple[VersionFile, ...]
    schema: Mapping[str, pl.DataType]
    splits: dict[str, int]
    counts: Counts


def describe(parts: Iterable[Part], n_texts: int) -> Content:
    """Take note of every part and let its bytes go.

    Raises:
        ContractError: no row has a label.
    """
    files: list[VersionFile] = []
    schema: Mapping[str, pl.DataType] = {}
    splits: dict[str, int] = {}
    reasons: Mapping[str, int] = {}
    n_review = n_rejects = 0
    for part in parts:
        files.append(part.file)
        rows = part.file.rows or 0
        if part.file.path == "rejects.parquet":
            n_rejects, reasons = rows, part.reasons
        elif part.schema:
            schema = part.schema
            n_review += part.n_review
            name = part.file.path.removeprefix("data/").rpartition("-")[0]
            splits[name] = splits.get(name, 0) + rows
    if not splits:
        raise ContractError(LABELS.name, "no row with a label", "at least one to publish")
    counts = Counts(
        rows=sum(splits.values()),
        texts=n_texts,
        needs_review=n_review,
        rejects=n_rejects,
        reject_reasons=dict(reasons),
    )
    return Content(tuple(files), schema, splits, counts)


def assemble(work: TableStore, config: RunConfig, reports: RunReports) -> Iterator[Part]:
    """Every file of a version: data parts of 50,000 rows, rejects, and the student where it is wanted.

    Memory: one part for each split, the rejects, the ids of texts that stand in several rows, and the labels of
    those: about 0.1 GB for a million such texts (measured).

    Raises:
        ContractError: labels that do not fit the texts, or a row that would have two.
    """
    splits = _Splits(has_gold=reports.ingested.n_gold > 0)
    unlabelled: list[pl.DataFrame] = []
    for rows in _labelled_shards(work, reports):
        has_label = rows["label"].is_not_null()
        unlabelled.append(rows.filter(~has_label).select("doc_id", "same_as"))
        yield from splits.add(rows.filter(has_label))
    yield from splits.rest()
    rejects = _rejects(work, reports, unlabelled)
    yield replace(_part("rejects.parquet", rejects, REJECTS), reasons=count_reasons(rejects))
    if config.publish.include_student:
        for stored in reports.student.files:
            path = f"student/{stored.uri.removeprefix(reports.student.folder).lstrip('/')}"
            # Its hash is known since training and holds once more when it is copied.
            yield Part(VersionFile(path=path, size_bytes=stored.size_bytes, sha256=stored.sha256), source=stored.uri)


def _labelled_shards(work: TableStore, reports: RunReports) -> Iterator[pl.DataFrame]:
    """Each shard of examples with the columns of labels, null for rows without a label.

    Texts, and so the shards of labels, are in the order in which examples first show them: what a shard of examples
    needs lies in the next shards of labels, or is the label of a text that was seen before and is kept.
    """
    ingested, predicted = reports.ingested, reports.predicted
    if len(ingested.texts) != len(predicted):
        raise ContractError(LABELS.name, f"{len(predicted)} shards of labels", f"{len(ingested.texts)} as of texts")
    shared = _shared_texts(work, ingested.examples) if ingested.n_texts < ingested.n_examples else None
    coming = iter(zip(ingested.texts, predicted, strict=True))
    near, kept = [empty(LABELS)], empty(LABELS)
    n_shown = n_loaded = 0
    for examples in ingested.examples:
        rows = work.read_table(examples)
        n_shown += int((rows["doc_id"] == rows["same_as"]).sum())
        while n_loaded < n_shown:
            texts, report = next(coming)
            n_loaded += texts.rows
            near.append(work.read_table(report.labels))
        known = pl.concat([kept, *near]).rename({"doc_id": "same_as"})
        yield _join(rows, known)
        # The last shard loaded is needed again if some of its texts are yet to be shown.
        near, passed = (near[-1:], near[:-1]) if n_loaded > n_shown else ([], near)
        if shared is not None:
            kept = pl.concat([kept, *(labels.join(shared, on="doc_id", how="semi") for labels in passed)])


def _shared_texts(work: TableStore, examples: Iterable[TableRef]) -> pl.DataFrame:
    """doc_id of each text that stands in several rows."""
    ids = (work.read_table(table, columns=["doc_id", "same_as"]) for table in examples)
    shared = [frame.filter(pl.col("doc_id") != pl.col("same_as"))["same_as"].unique() for frame in ids]
    return pl.concat(shared).unique().alias("doc_id").to_frame()


def _join(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    try:
        return rows.join(known, on="same_as", how="left", validate="m:1", maintain_order="left")
    except pl.exceptions.ComputeError as error:
        raise ContractError(LABELS.name, "two labels for one text", "one for each") from error


class _Splits:
    """Collects rows by split and cuts them into parts of equal length."""

    def __init__(self, has_gold: bool) -> None:
        self._has_gold = has_gold
        self._waiting: dict[str, pl.DataFrame] = {}
        self._n_parts: dict[str, int] = {}
        self._files: dict[str, str] = {}

    def add(self, rows: pl.DataFrame) -> Iterator[Part]:
        """Take some rows and give the parts that they fill."""
        named = rows.with_columns(pl.col("split").fill_null(_NO_SPLIT))
        for group in named.partition_by("split", maintain_order=True):
            split = group["split"][0]
            waiting = pl.concat([self._waiting[split], group]) if split in self._waiting else group
            while waiting.height >= _PART_ROWS:
                yield self._cut(split, waiting[:_PART_ROWS])
                waiting = waiting[_PART_ROWS:]
            self._waiting[split] = waiting

    def rest(self) -> Iterator[Part]:
        """What has not filled a part."""
        for split, rows in self._waiting.items():
            if rows.height:
                yield self._cut(split, rows)

    def _cut(self, split: str, rows: pl.DataFrame) -> Part:
        others = [name for name in rows.columns if name not in EXAMPLES.columns and name not in PUBLISHED.columns]
        frame = rows.select(*PUBLISHED.columns, *(["gold"] if self._has_gold else []), *others)
        number = self._n_parts.get(split, 0)
        self._n_parts[split] = number + 1
        path = f"data/{self._file_of(split)}-{number:05d}.parquet"
        return _part(path, frame, PUBLISHED, split, n_review=int(frame["needs_review"].sum()))

    def _file_of(self, split: str) -> str:
        """A file's first name for a split: its word characters, as the Hugging Face Hub wants them."""
        if split not in self._files:
            name = free = re.sub(r"\W+", "_", split, flags=re.ASCII).strip("_")[:40] or "split"
            taken = {other.casefold() for other in self._files.values()}
            number = 1
            while free.casefold() in taken:
                number += 1
                free = f"{name}_{number}"
            self._files[split] = free
        return self._files[split]


def _rejects(work: TableStore, reports: RunReports, unlabelled: list[pl.DataFrame]) -> pl.DataFrame:
    """All rejects of the run, and a line for each row whose text has no label and no other reject."""
    tables = (reports.ingested.rejects, *(report.rejects for report in reports.annotated))
    told = pl.concat([work.read_table(table) for table in tables])
    rest = pl.concat(unlabelled).join(told, on="doc_id", how="anti", maintain_order="left")
    detail = pl.format("its text, that of row {}, has no label", "same_as")
    return pl.concat([told, rest.select("doc_id", stage=pl.lit("publish"), reason=pl.lit("unlabelled"), detail=detail)])


def _part(path: str, frame: pl.DataFrame, contract: Contract, split: str | None = None, n_review: int = 0) -> Part:
    part = _plain_part(path, encode_table(frame, contract))
    file = part.file.model_copy(update={"rows": frame.height, "split": split})
    return Part(file, part.data, frame.schema, n_review)


def _plain_part(path: str, data: bytes) -> Part:
    return Part(VersionFile(path=path, size_bytes=len(data), sha256=sha256(data).hexdigest()), data)
