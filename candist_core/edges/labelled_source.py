"""Files of labelled texts, shots or an audit, in any format and place that a corpus may have."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from candist_core.config import ACCESS, AuditConfig, Location, SourceConfig
from candist_core.edges.source import find_files, read_batches
from candist_core.errors import ConfigError, SourceError
from candist_core.ingest import SourceBatch
from candist_core.paths import public_uri
from candist_core.schema import as_text
from candist_core.shots import Shot, to_shots
from candist_core.teacher_config import ShotsConfig

logger = logging.getLogger(__name__)

# More than anyone labels by hand; each is embedded when shots are chosen by likeness.
_MAX_ROWS = 100_000
_MAX_SHOWN_COLUMNS = 20
_RANDOM, _DOUBTFUL = "random", "doubtful"

Rows = list[tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label that a person gave a text. Only texts drawn at random tell how good the others' labels are."""

    label: str
    is_random: bool


def read_labelled(config: ShotsConfig, place: Location, labels: Sequence[str]) -> tuple[Shot, ...]:
    """The labelled texts that `shots` names; none where its `uri` is empty.

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
    thing = f"shots.uri {config.uri}"
    rows: Rows = []
    for batch in _batches(config, place, "shots", thing):
        texts = _column(batch, config.text, "shots.text", thing)
        rows += zip(texts, _column(batch, config.label, "shots.label", thing), strict=True)
    shots = to_shots(rows, labels, thing)
    logger.info("read %d labelled texts out of %d rows of %s", len(shots), len(rows), public_uri(config.uri))
    return shots


def read_audit(config: AuditConfig, place: Location, labels: Sequence[str]) -> Mapping[str, Verdict]:
    """The verdicts that `audit` names, by text without outer space; none where its `uri` is empty.

    A text that stands there both as random and as doubtful was drawn at random. See `read_labelled` for the rest.

    Raises:
        ConfigError: also for a text with two labels, and for a reason that is neither random nor doubtful.
    """
    if config.uri is None:
        return {}
    thing = f"audit.uri {config.uri}"
    rows: dict[bool, Rows] = {True: [], False: []}
    for batch in _batches(config, place, "audit", thing):
        texts = _column(batch, config.text, "audit.text", thing)
        for row in zip(texts, _column(batch, config.label, "audit.label", thing), _whys(batch, config), strict=True):
            rows[_is_random(row[2], config, thing)].append(row[:2])
    found: dict[str, Verdict] = {}
    for shot in to_shots([*rows[True], *rows[False]], labels, thing):
        first = found.setdefault(shot.text.strip(), Verdict(shot.label, is_random=True))
        if first.label != shot.label:
            both = f"two labels, {first.label!r} and {shot.label!r}, for one text"
            raise ConfigError(thing, both, "one for each", "decide for one of them")
    random = {text.strip() for text, _ in rows[True] if text}
    return {text: verdict if text in random else Verdict(verdict.label, False) for text, verdict in found.items()}


def _whys(batch: SourceBatch, config: AuditConfig) -> list[str | None]:
    if config.why is None or config.why not in batch.rows.columns:
        return [None] * batch.rows.height
    whys: list[str | None] = as_text(batch.rows[config.why]).to_list()
    return whys


def _is_random(why: str | None, config: AuditConfig, thing: str) -> bool:
    word = (why or _RANDOM).strip().casefold() or _RANDOM
    if word not in (_RANDOM, _DOUBTFUL):
        step = "set audit.why to the column that tells them apart, or to null where all were drawn at random"
        raise ConfigError(thing, f"{word[:40]!r} in the column {config.why!r}", f"{_RANDOM} or {_DOUBTFUL}", step)
    return word == _RANDOM


def _batches(config: ShotsConfig | AuditConfig, place: Location, group: str, thing: str) -> Iterator[SourceBatch]:
    """The batches of a file that have rows, all of them readable, up to the most that anyone labels."""
    source = SourceConfig(uri=config.uri or "", **place.model_dump(include=ACCESS))
    n_rows = 0
    try:
        for batch in read_batches(source, find_files(source)):
            if batch.bad:
                line, why = batch.bad[0]
                wanted, step = "a row that can be read", "correct or remove that line"
                raise ConfigError(f"{thing}, line {line}", why, wanted, step)
            n_rows += batch.rows.height
            if n_rows > _MAX_ROWS:
                found, step = f"more than {_MAX_ROWS:,} rows", "give fewer: that many nobody labels by hand"
                raise ConfigError(thing, found, f"at most {_MAX_ROWS:,}", step)
            if batch.rows.height:
                yield batch
    except SourceError as error:
        raise ConfigError(thing, error.found, error.wanted, f"correct {group}.uri or the file") from error


def _column(batch: SourceBatch, name: str, setting: str, thing: str) -> list[str | None]:
    if name not in batch.rows.columns:
        near = get_close_matches(name, batch.rows.columns, n=1)
        known = ", ".join(batch.rows.columns[:_MAX_SHOWN_COLUMNS])
        step = f"set {setting}: {near[0]}" if near else f"set {setting} to one of: {known}"
        raise ConfigError(thing, f"no column {name!r}", f"the column that {setting} names", step)
    texts: list[str | None] = as_text(batch.rows[name]).to_list()
    return texts
