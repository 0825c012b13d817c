"""Preflight: what would stop a run anyway is told before anything is started or paid."""

import os

from candist_core.columns import Columns
from candist_core.config import RunConfig
from candist_core.edges.labelled_source import read_audit
from candist_core.edges.lineage import check_client
from candist_core.edges.openai_teacher import check_endpoint, usable_key
from candist_core.edges.own_expectations import check_own_settings
from candist_core.edges.redis_limit import open_redis_limit
from candist_core.edges.source import find_files, read_batches
from candist_core.edges.store import Store
from candist_core.errors import SourceError, StoreError
from candist_core.stages.check import expected_balance
from candist_core.stages.plan import plan_annotation
from candist_core.stages.publish import open_publish_store
from candist_core.teacher_config import TeacherKind

_PEEK_ROWS = 100


def preflight(config: RunConfig, *, will_ask: bool = True) -> None:
    """Look at corpus, audit, recorded replies, keys, limits, prices, checks and the place to publish; changes nothing.

    A key in a Prefect Secret block is looked for when the run has begun.

    Args:
        config: the run.
        will_ask: the teacher is to be asked, which takes a key; an estimate asks nobody.

    Raises:
        BadInputError: the first that is not as a run needs it.
    """
    _peek(config)
    plan_annotation(config)
    # Else its labels would be read only when all is annotated and paid for.
    read_audit(config.audit, config.source, config.task.label_names)
    if config.checks.expectations:
        # Only for these: importing Great Expectations takes seconds.
        check_own_settings(config)
    # A reference that is not there would be missed only when all is paid for.
    expected_balance(config, of_teacher=True)
    for teacher in config.teachers:
        if teacher.kind is TeacherKind.OPENAI:
            check_endpoint(teacher)
            open_redis_limit(teacher)
    if will_ask:
        check_keys(config)
    if config.publish.lineage_url:
        check_client()
    _check_place(open_publish_store(config), config.dataset)


def check_keys(config: RunConfig) -> None:
    """See that each teacher that needs a key of the environment has one.

    Raises:
        TeacherError: the first that has none, or one that no header can hold.
    """
    for teacher in config.teachers:
        if teacher.kind is TeacherKind.OPENAI and teacher.api_key_block is None:
            usable_key(teacher, None)


def _peek(config: RunConfig) -> None:
    """Look for the configured columns in the first rows that can be read."""
    columns = Columns(config.source)
    for batch in read_batches(config.source, find_files(config.source), _PEEK_ROWS):
        if batch.rows.height:
            columns.read(batch.rows, batch.uri)
            return
    raise SourceError(f"corpus {config.source.uri}", "no row that can be read", "at least one", "check the files")


def _check_place(store: Store, dataset: str) -> None:
    """A bucket must answer; a folder must be there to write in, or able to be made."""
    store.list_paths(f"{dataset}/manifests")
    if store.local_root is None:
        return
    place = next(folder for folder in (store.local_root, *store.local_root.parents) if folder.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        found = "a file" if not place.is_dir() else "no right to write there"
        raise StoreError(f"publish.uri {store.uri}", found, "a folder to write in", "choose another place")
