"""A starter configuration from a data file and a list of labels, for someone's own corpus."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from candist_core.columns import Columns, refuse_unparted
from candist_core.config import SourceConfig, parse_config
from candist_core.edges.source import find_files, read_batches
from candist_core.errors import ConfigError, SourceError
from candist_core.spec import LabelSpec
from candist_core.teacher_config import TeacherKind

_TEXT_NAMES = ("text", "body", "message", "content", "sentence", "review", "question", "document", "title")
_PEEK_ROWS = 200


@dataclass(frozen=True, slots=True)
class Starter:
    """A configuration as YAML, and what was chosen for the user, in words."""

    text: str
    remark: str


def split_label(entry: str) -> LabelSpec:
    """One label as written by hand: a name, and after a tab or `: ` its description.

    Example:
        >>> split_label("praise: is content").description
        'is content'
    """
    name, _, description = re.sub(r"\t", ": ", entry, count=1).partition(": ")
    if not name.strip():
        raise ConfigError(f"label {entry!r}", "no name", "a name, and a description after a colon", "write one")
    return LabelSpec(name=name.strip(), description=description.strip())


def read_label_file(path: Path) -> list[LabelSpec]:
    """Labels from a file with one a line; blank lines are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"label file {path}",
            getattr(error, "strerror", None) or "no UTF-8 text",
            "one label a line",
            "check the path",
        ) from error
    return [split_label(line) for line in lines if line.strip()]


def starter_yaml(
    data: str,
    labels: Sequence[LabelSpec],
    *,
    text: str | None,
    id_column: str | None,
    gold: str | None,
    name: str | None,
    teacher: TeacherKind,
) -> Starter:
    """Look at the first rows of the corpus and write a configuration that runs as it is.

    Args:
        data: path or URL of the corpus.
        labels: at least two.
        text: the text column or template; guessed when None.
        id_column: column of ids; ids are hashes of the content when None.
        gold: column of human labels, if any.
        name: of the run; taken from the data's file name when None.
        teacher: who is asked.

    Raises:
        SourceError: nothing to read there, or no column that could be the text.
        ConfigError: labels that cannot be used.
    """
    rows = _first_rows(data)
    text = text or _guess_text(rows, data)
    settings: dict[str, Any] = {
        "name": name or _name_of(data),
        "task": {
            "instruction": "Each text is to be sorted into one of the labels.",
            "strategy": "ca_add",
            "labels": [label.model_dump(include={"name", "description"}, exclude_defaults=True) for label in labels],
        },
        "source": {"uri": data, "text": text} | {k: v for k, v in (("id", id_column), ("gold", gold)) if v},
        "teacher": {"kind": str(teacher)},
        "publish": {"uri": "published"},
    }
    if teacher is TeacherKind.REPLAY:
        settings["teacher"] |= {"replies_uri": "replies.jsonl"}
    if teacher is TeacherKind.ZEROSHOT:
        # A guess by similarity is a first look: it is published even where most labels want review.
        settings["checks"] = {"max_review_rate": 1.0}
    columns = Columns(parse_config(settings, "the labels and columns given").source)
    columns.read(rows, data)
    columns.require_all_seen()
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    remark = f"text from {text!r}, " + (f"ids from {id_column!r}" if id_column else "ids from the content")
    return Starter(_HEAD + body, f"{remark}, {len(labels)} labels, teacher {teacher}")


_HEAD = """\
# Every setting and its meaning: see RunConfig in candist_core/config.py. Change any for one run with --set a.b=c.
# teacher.kind zeroshot guesses by similarity, free and offline. For a language model write instead:
#   teacher: {kind: openai, model: gpt-4o-mini}              the key is read from $OPENAI_API_KEY
#   teacher: {kind: openai, model: ..., base_url: "http://localhost:8000/v1"}   vLLM, Ollama and others
# and take checks.max_review_rate out again, if it stands here: it lets a guess pass that leaves most labels to people.
# Say in task.instruction what the texts are, and give each label a description: both help any teacher.
"""


def _first_rows(data: str) -> pl.DataFrame:
    source = SourceConfig(uri=data)
    batches = read_batches(source, find_files(source), _PEEK_ROWS)
    for batch in batches:
        if batch.rows.height:
            return batch.rows
    raise SourceError(f"corpus {data}", "no rows", "at least one", "check the file")


def _guess_text(rows: pl.DataFrame, data: str) -> str:
    refuse_unparted(rows.columns, data)
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    if not texts:
        raise SourceError(
            f"corpus {data}", f"no column of strings among {rows.columns}", "one with the text", "name it with --text"
        )
    named = [name for wanted in _TEXT_NAMES for name in texts if name.casefold() == wanted]
    lengths = {name: rows[name].str.len_chars().mean() or 0.0 for name in texts}
    return named[0] if named else max(texts, key=lambda name: float(str(lengths[name])))


def _name_of(data: str) -> str:
    stem = Path(data.rstrip("/*")).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "corpus"
