"""Changes: what a run's rows are beside those of the version that is the latest now."""

import logging

import polars as pl

from candist_core.changes import count_changes, row_hashes
from candist_core.config import RunConfig
from candist_core.edges.scan import told_rows
from candist_core.edges.store import Store, open_store
from candist_core.errors import ContractError, StoreError, TransientError
from candist_core.reports import RunReports, VersionChanges
from candist_core.stages.versions import Version, scan_version
from candist_core.versions import list_versions, read_numbered

logger = logging.getLogger(__name__)


def changes_since_latest(target: Store, config: RunConfig, reports: RunReports) -> VersionChanges | None:
    """Count added, changed, removed and kept rows; None for a first version, or beside one that cannot be read.

    Args:
        target: where versions are published.
        config: the run.
        reports: what it has labelled.
    """
    if not (numbers := list_versions(target, config.dataset)):
        return None
    latest = read_numbered(target, config.dataset, numbers[-1])
    version = Version(latest, target)
    try:
        with told_rows(f"version {version.uri}"):
            before = row_hashes(scan_version(version))
    except (StoreError, ContractError, TransientError) as error:
        # A damaged version is mended by publishing the next one, which must not fail for it. Nor for a store that fails
        # right now: a count is only information, and what is to be published has been paid for.
        logger.warning("changes since version %d are not counted: %s", latest.number, error)
        return None
    return count_changes(latest.number, latest.version, before, _rows_of_run(config, reports))


def _rows_of_run(config: RunConfig, reports: RunReports) -> pl.DataFrame:
    """Hashes of all rows that have a label, a shard in memory at a time."""
    store = open_store(config.store)
    tables = (store.read_table(one.labels, columns=["doc_id", "label"]) for one in reports.predicted)
    labels = pl.concat(
        [table.select(same_as=pl.col("doc_id").hash(), label=pl.col("label").hash()) for table in tables]
    )
    rows = []
    for shard in reports.ingested.examples:
        shown = store.read_table(shard, columns=["doc_id", "text", "same_as"])
        rows.append(shown.select(pl.col("doc_id", "text", "same_as").hash()))
    return pl.concat(rows).join(labels, on="same_as", how="inner").select("doc_id", "text", "label")
