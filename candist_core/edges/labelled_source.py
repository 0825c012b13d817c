"""Files of labelled texts, shots or an audit, in any format and place that a corpus may have."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches

from candist_core.config import ACCESS, AuditConfig, Location, SourceConfig
from candist_core.edges.source import find_files, read_batches
from candist_core.errors import ConfigError, SourceError
from candist_core.ingest import SourceBatch
from candist_core.schema import as_text
from candist_core.shots import Shot, to_shots
from candist_core.teacher_config import ShotsConfig

logger = logging.getLogger(__name__)

# More than anyone labels by hand; each is embedded when shots are chosen by likeness.
_MAX_ROWS = 100_000
_MAX_SHOWN_COLUMNS = 20


def read_labelled(config: ShotsConfig | AuditConfig, place: Location, labels: Sequence[str]) -> tuple[Shot, ...]:
    """The labelled texts that a group of settings names; none where its `uri` is empty.

    Args:
        config: which file and which columns.
        place: how it is reached (endpoint, region, profile); its own URI does not matter.
        labels: the task's.

    Raises:
        ConfigError: nothing there, a row that cannot be read, a column that is not there, a label that the task does
            not have, no labelled text, more than 100,000 rows.
        TransientError: the network, or a server, failed.
    """
    if config.uri is None:
        return ()
    group = "audit" if isinstance(config, AuditConfig) else "shots"
    thing = f"{group}.uri {config.uri}"
    source = SourceConfig(uri=config.uri, **place.model_dump(include=ACCESS))
    rows: list[tuple[str | None, str | None]] = []
    try:
        for batch in read_batches(source, find_files(source)):
            rows += _rows_of(batch, config, group, thing)
            if len(rows) > _MAX_ROWS:
                found, step = f"more than {_MAX_ROWS:,} rows", "give fewer: that many nobody labels by hand"
                raise ConfigError(thing, found, f"at most {_MAX_ROWS:,}", step)
    except SourceError as error:
        raise ConfigError(thing, error.found, error.wanted, f"correct {group}.uri or the file") from error
    shots = to_shots(rows, labels, thing)
    logger.info("read %d labelled texts out of %d rows of %s", len(shots), len(rows), thing)
    return shots


def _rows_of(
    batch: SourceBatch, config: ShotsConfig | AuditConfig, group: str, thing: str
) -> list[tuple[str | None, str | None]]:
    if batch.bad:
        line, why = batch.bad[0]
        raise ConfigError(f"{thing}, line {line}", why, "a row that can be read", "correct or remove that line")
    if not batch.rows.height:
        return []
    texts = _column(batch, config.text, f"{group}.text", thing)
    return list(zip(texts, _column(batch, config.label, f"{group}.label", thing), strict=True))


def _column(batch: SourceBatch, name: str, setting: str, thing: str) -> list[str | None]:
    if name not in batch.rows.columns:
        near = get_close_matches(name, batch.rows.columns, n=1)
        known = ", ".join(batch.rows.columns[:_MAX_SHOWN_COLUMNS])
        step = f"set {setting}: {near[0]}" if near else f"set {setting} to one of: {known}"
        raise ConfigError(thing, f"no column {name!r}", f"the column that {setting} names", step)
    texts: list[str | None] = as_text(batch.rows[name]).to_list()
    return texts
