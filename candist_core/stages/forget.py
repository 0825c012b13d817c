"""Forget: rows out of everything that a run keeps, and out of every later version.

A list in the store names them by hashes (`candist_core.forgotten`), and ingest obeys it; then the store is swept by
that list. The list comes first and tables with texts last, so a sweep that was killed is finished by the next one,
whose rows need not be named again. Invariant: a published version is never changed; those that hold such rows are told
of.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from candist_core.columns import Columns
from candist_core.config import RunConfig
from candist_core.edges.scan import told_rows
from candist_core.edges.source import find_files, read_batches
from candist_core.edges.store import Store, open_store
from candist_core.errors import ConfigError, ContractError, StoreError, TransientError
from candist_core.forgotten import (
    Forgotten,
    content_id,
    keep_forgotten,
    open_forgotten,
    read_forgotten,
    with_content_ids,
    with_rows,
)
from candist_core.manifest import Manifest
from candist_core.stages.publish import open_publish_store
from candist_core.stages.spool import spool_dir
from candist_core.stages.sweep import Held, Sweep, read_columns
from candist_core.stages.versions import Version, scan_version
from candist_core.versions import list_versions, read_numbered

_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class Holder:
    """A published version that still holds rows; `n_rows` is None where it cannot be read.

    The latest cannot be removed before there is a next one.
    """

    number: int
    version: str
    n_rows: int | None
    is_latest: bool


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What forgetting found. `n_unknown` of the `n_asked` stand in neither the store nor a version.

    `n_shared` texts of these rows stand in other rows too, and stay there.
    """

    held: tuple[Held, ...]
    holders: tuple[Holder, ...]
    n_asked: int
    n_unknown: int
    n_shared: int


def read_ids(path: Path) -> list[str]:
    """Ids from a file, one a line.

    Raises:
        ConfigError: no such file, or no id in it.
    """
    try:
        # Spreadsheets write a byte order mark; an id may hold what `splitlines` takes for the end of a line.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found = (getattr(error, "strerror", None) or "no UTF-8 text").lower()
        raise ConfigError(f"file {path}", found, "ids, one a line", "correct it") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise ConfigError(f"file {path}", "no id", "ids, one a line", "correct it")
    return ids


def read_texts(config: RunConfig, path: Path) -> list[str]:
    """Texts from a file that is written as the corpus is, with the same columns of the text.

    Raises:
        SourceError: it is not.
    """
    source = config.source.model_copy(update={"uri": str(path), "id": None, "gold": None, "split": None})
    columns, texts = Columns(source), []
    for batch in read_batches(source, find_files(source)):
        texts += columns.read(batch.rows, batch.uri)[0]["text"].drop_nulls().to_list()
    return texts


def forget_rows(
    config: RunConfig,
    ids: Iterable[str] = (),
    texts: Iterable[str] = (),
    *,
    delete: bool = False,
    keep_students: bool = False,
) -> Forgetting:
    """Find everything about some rows, and about those of earlier calls, and remove it if `delete` is set.

    Nothing may run over the same store meanwhile. Rows are those of the corpus that runs of this name read; in a store
    that several corpora share, replies to rows of the same id go for all of them, and are asked for again.

    Args:
        config: the run.
        ids: of rows, as in the version.
        texts: as in the corpus, in all rows that hold them.
        delete: remove what may go, and leave these rows out from now on; else only tell of it.
        keep_students: let students stay that learned from these rows.

    Raises:
        StoreError: a table cannot be read; a run at work holds replies to these rows.
        ConfigError: nothing is asked for, neither now nor earlier.
    """
    ids, texts, store = set(ids), set(texts), open_store(config.store)
    known = (open_forgotten if delete else read_forgotten)(store, config.name)
    wanted = with_rows(known, ids if config.source.id else (), texts)
    wanted = wanted if config.source.id else with_content_ids(wanted, ids)
    if not wanted:
        raise ConfigError("forget", "no row to forget", "ids or texts", "name them with --ids, --id or --texts")
    wanted, n_shared = _with_aliases(store, wanted)
    if delete:
        # First of all: from here on no run takes these rows in, whatever becomes of this process.
        keep_forgotten(store, config.name, known, wanted)
    sweep = Sweep(store, wanted, spool_dir(store, config.store), keep_students=keep_students, delete=delete)
    # Before the versions are looked into: what may go must not stay because one of them cannot be read.
    held = tuple(sweep.run())
    seen: set[str] = set()
    holders = tuple(_holders(config, wanted, seen))
    asked = ids | set(map(content_id, texts))
    return Forgetting(held, holders, len(asked), len(asked - seen - sweep.seen), n_shared)


def _with_aliases(store: Store, wanted: Forgotten) -> tuple[Forgotten, int]:
    """Add the other ids under which tables know these texts; how many texts stay because other rows have them too.

    Tables know a text by its first row, and by an id made of it where the corpus was read before its id column was
    named.
    """
    tables = [path for path in store.list_paths("examples") if path.endswith(".parquet")]
    texts, aliases = set[str](), set[str]()
    for path in tables:
        rows = read_columns(store, path, ("doc_id", "text"))
        is_text = wanted.is_text(rows["text"])
        aliases.update(rows.filter(is_text)["doc_id"])
        texts.update(rows.filter(~is_text & wanted.is_id(rows["doc_id"]))["text"])
    shared = set[str]()
    for path in tables if texts else ():
        rows = read_columns(store, path, ("doc_id", "text"))
        others = rows.filter(pl.col("text").is_in(list(texts)) & ~wanted.is_id(rows["doc_id"]))
        shared.update(text for doc_id, text in others.iter_rows() if not doc_id.startswith(content_id(text)))
    return with_rows(wanted, also=aliases | set(map(content_id, texts - shared))), len(shared)


def _holders(config: RunConfig, wanted: Forgotten, seen: set[str]) -> Iterator[Holder]:
    """Every number of the data set whose version holds such rows, among its labels or its rejects."""
    target = open_publish_store(config)
    numbers = list_versions(target, config.dataset)
    known: dict[str, int | None] = {}
    latest = read_numbered(target, config.dataset, numbers[-1]).version if numbers else ""
    for number in numbers:
        manifest = read_numbered(target, config.dataset, number)
        if manifest.version not in known:
            known[manifest.version] = _count_in(target, manifest, wanted, seen)
        if known[manifest.version] != 0:
            yield Holder(number, manifest.version, known[manifest.version], manifest.version == latest)


def _count_in(target: Store, manifest: Manifest, wanted: Forgotten, seen: set[str]) -> int | None:
    n, version = 0, Version(manifest, target)
    try:
        with told_rows(f"version {version.uri}"):
            rows = scan_version(version).select("doc_id", "text")
            for batch in rows.collect_batches(chunk_size=_ROWS_AT_ONCE, maintain_order=True):
                gone = batch.filter(wanted.is_id(batch["doc_id"]) | wanted.is_text(batch["text"]))
                seen.update(gone["doc_id"], map(content_id, gone["text"]))
                n += gone.height
        rejects = read_columns(target, f"{manifest.folder}/rejects.parquet", ("doc_id",))["doc_id"]
    except (StoreError, ContractError, TransientError):
        # Told of as one that nobody could look into; a damaged version must not keep the others' rows.
        return None
    return n + int(wanted.is_id(rejects).sum())
