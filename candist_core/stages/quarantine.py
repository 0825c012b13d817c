"""Quarantine: rows that checks found at fault, and what a person decides about them.

Each annotated shard leaves a table `quarantine/<key>.parquet` of the rows behind its failed checks: set aside, or the
reason why the run was stopped. Asking anew puts the replies to them under `set-aside/`, where nobody looks for
replies, and forgets that their shards are done; dropping writes them under `dropped/`, by the run's name, and every
later run of that name leaves them out as rejects. Both take effect in the next run.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import polars as pl

from candist_core.config import RunConfig
from candist_core.edges.store import Store, open_store
from candist_core.errors import ConfigError, SourceError
from candist_core.parquet import decode_table
from candist_core.stages.annotate import quarantine_path
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import Plan, Role, dropped_folder, plan_annotation
from candist_core.stages.sample import find_asked
from candist_core.stages.teachers import open_reply_log
from candist_core.tables import DROPPED, QUARANTINE, TableRef, empty
from candist_core.teacher_config import TeacherKind


@dataclass(frozen=True, slots=True)
class Retry:
    """Rows to ask anew: their replies that are kept, and what those cost; None where no price is known."""

    n_rows: int
    n_replies: int
    cost_usd: float | None


def list_quarantine(config: RunConfig, checks: Sequence[str] = (), ids: Sequence[str] = ()) -> pl.DataFrame:
    """The rows of a run that checks found at fault: doc_id, check, value, on_fail; a row once for each check.

    Args:
        config: the run; its corpus has been read by an earlier run or estimate.
        checks: only those behind these checks; all when empty.
        ids: only these rows; all when empty.

    Raises:
        SourceError: the corpus has not been read yet, or was changed since.
        ConfigError: a check or a row that is not among them.
    """
    shards = _shards(config, plan_annotation(config), open_store(config.store))
    return _chosen(pl.concat([empty(QUARANTINE), *(rows for _, rows in shards)]), checks, ids)


def foresee_retry(config: RunConfig, rows: pl.DataFrame) -> Retry:
    """What asking anew about rows of `list_quarantine` would cost: as much as the replies to them did."""
    plan, store = plan_annotation(config), open_store(config.store)
    n, cost_usd, is_priced = 0, 0.0, True
    for shard, _ in _shards(config, plan, store):
        for role in plan.roles:
            keys = _keys(plan, role, store, shard, rows)
            for reply in open_reply_log(plan, role, store, "quarantine").lookup(keys).values():
                n, cost_usd = n + 1, cost_usd + (reply.cost_usd or 0.0)
                is_priced &= reply.cost_usd is not None or role.teacher.kind is not TeacherKind.OPENAI
    return Retry(rows["doc_id"].n_unique(), n, cost_usd if is_priced else None)


def retry_rows(config: RunConfig, rows: pl.DataFrame) -> int:
    """Set aside the replies to rows of `list_quarantine`, so that the next run asks about them anew.

    Nothing else may run over the same store meanwhile.

    Returns:
        Replies set aside; a row whose request was refused or failed had none.
    """
    plan, store, n = plan_annotation(config), open_store(config.store), 0
    for shard, at_fault in list(_shards(config, plan, store)):
        if set(rows["doc_id"]).isdisjoint(at_fault["doc_id"]):
            continue
        for role in plan.roles:
            with closing(open_reply_log(plan, role, store, "quarantine")) as log:
                n += log.set_aside(_keys(plan, role, store, shard, rows))
        # Last: a shard that is still called done would never be asked about again.
        store.forget_done("annotate", plan.key(shard))
        store.delete([quarantine_path(plan, shard)])
    return n


def drop_rows(config: RunConfig, rows: pl.DataFrame) -> int:
    """Leave rows of `list_quarantine` out of every later run of this name, as rejects.

    Returns:
        Rows dropped.
    """
    entries = rows.select(*DROPPED.columns).unique("doc_id", keep="first", maintain_order=True)
    if entries.height:
        # A file for each decision, so that two at once lose nothing.
        path = f"{dropped_folder(config)}/{secrets.token_hex(8)}.parquet"
        open_store(config.store).write_table(path, entries, DROPPED)
    return entries.height


def _shards(config: RunConfig, plan: Plan, store: Store) -> Iterator[tuple[TableRef, pl.DataFrame]]:
    """Each shard that has rows at fault, with them."""
    if (ingested := find_ingested(config)) is None:
        found, wanted = "no run over its files as they are now", "a run that has begun"
        raise SourceError(f"corpus {config.source.uri}", found, wanted, "run it first")
    there = set(store.list_paths("quarantine"))
    for shard in find_asked(config, ingested, plan).texts if there else ():
        if (path := quarantine_path(plan, shard)) in there:
            yield shard, decode_table(store.read_bytes(path), QUARANTINE.name)


def _chosen(rows: pl.DataFrame, checks: Sequence[str], ids: Sequence[str]) -> pl.DataFrame:
    for column, wanted in (("check", checks), ("doc_id", ids)):
        known = rows[column].unique(maintain_order=True).to_list()
        if strange := next((name for name in wanted if name not in known), None):
            there = ", ".join(map(repr, known[:20])) or "nothing"
            raise ConfigError("quarantine", f"no {column} {strange!r}", f"one of {there}", "name one of these")
        if wanted:
            rows = rows.filter(pl.col(column).is_in(list(wanted)))
    return rows


def _keys(plan: Plan, role: Role, store: Store, shard: TableRef, rows: pl.DataFrame) -> list[str]:
    """Keys of all that one teacher was asked about these rows, whole or cut."""
    texts, ids = plan.texts(store, shard), set(rows["doc_id"])
    if ids.isdisjoint(texts["doc_id"]):
        return []
    # Examples of a text's own are chosen for a whole shard at once, so all of it is asked about.
    asked = [one for doc_id, own in plan.requests(role, texts) if doc_id in ids for one in own]
    cut = [shorter for one in asked if (shorter := role.questions.shorter(one)) is not None]
    return [request.key for request in (*asked, *cut)]
