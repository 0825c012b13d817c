"""Verify: derive a run's annotations from its kept replies again, offline, and compare."""

from pathlib import Path

import polars as pl

from candist_core.config import RunConfig
from candist_core.edges.store import open_store
from candist_core.errors import RowError, SourceError
from candist_core.ports import Quotas, Reply, Request
from candist_core.reports import VerifyReport
from candist_core.stages.annotate import derive, find_annotations
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import Plan, Role, plan_annotation
from candist_core.stages.sample import find_asked
from candist_core.tables import TableRef

_MAX_NAMED = 20


class AbsentTeacher:
    """A teacher that is never reached: whatever no kept reply answers fails."""

    quotas = Quotas()

    def __init__(self, role: Role) -> None:
        self._role = role

    @property
    def name(self) -> str:
        """That of the teacher whose place it takes."""
        return self._role.name

    async def ask(self, request: Request) -> Reply:
        """Fail the row.

        Raises:
            RowError: always.
        """
        raise RowError("no kept reply", "nothing is asked while annotations are verified")

    async def close(self, is_kept: bool = True) -> None:
        """Nothing is open."""


def verify_annotations(config: RunConfig) -> VerifyReport:
    """Parse every kept reply anew and compare the candidate sets with the stored ones. Sends and changes nothing.

    Rows that the endpoint failed have no reply and have to be failed here too.

    Raises:
        SourceError: the corpus has not been read into shards yet.
    """
    if (ingested := find_ingested(config)) is None:
        found, wanted = "no run over its files as they are now", "a run that has begun"
        raise SourceError(f"corpus {config.source.uri}", found, wanted, "run it first")
    plan, n_shards, n_rows = plan_annotation(config), 0, 0
    differing: list[str] = []
    shards = find_asked(config, ingested, plan).texts
    for shard in shards:
        if (report := find_annotations(plan, shard)) is not None:
            n_shards += 1
            n_rows += report.annotations.rows
            differing += _differing(plan, shard, report.annotations)
    return VerifyReport(
        n_shards=n_shards,
        n_shards_left=len(shards) - n_shards,
        n_rows=n_rows,
        n_differing=len(differing),
        differing=tuple(differing[:_MAX_NAMED]),
    )


def _differing(plan: Plan, shard: TableRef, annotations: TableRef) -> list[str]:
    """The doc_ids of a shard whose stored row is not what the replies say."""
    stored = open_store(plan.config.store).read_table(annotations)
    derived = derive(plan, shard, Path(shard.uri).stem, lambda role: AbsentTeacher(role))
    if stored.equals(derived):
        return []
    pairs = stored.join(derived, on="doc_id", how="full", coalesce=True, suffix="_now", maintain_order="left")
    same = [pl.col(name).eq_missing(pl.col(f"{name}_now")) for name in stored.columns if name != "doc_id"]
    return pairs.filter(~pl.all_horizontal(same))["doc_id"].to_list()
