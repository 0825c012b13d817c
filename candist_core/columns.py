"""The columns that matter in a corpus, and names for all the others.

Invariant: no column of the user's has, in our tables, the name of one of ours.
"""

from difflib import get_close_matches

import polars as pl

from candist_core.config import SourceConfig
from candist_core.errors import SourceError
from candist_core.schema import as_text
from candist_core.tables import EXAMPLES, LABELS
from candist_core.template import parse_template

# More columns, or more splits, than anyone means to have: a sign of data taken for names.
_MAX_COLUMNS = 1000
_MAX_SPLITS = 100
_RESERVED = {*EXAMPLES.columns, *LABELS.columns}


class Columns:
    """Finds the columns that matter in each batch and names the others."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._template = parse_template(source.text)
        self._needed = [*self._template.fields, *([source.id] if source.id else [])]
        self._consumed = {self._template.column, source.id, source.gold, source.split}
        self._names: dict[str, str] = {}
        self._splits: set[str] = set()
        self._seen: dict[str, None] = {}
        self._uri = ""

    def read(self, frame: pl.DataFrame, uri: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Find the columns in some rows of one file.

        Returns:
            Each row's doc_id, text, split, gold as text, is_blank (no field of the text holds anything) and is_broken
            (NUL, or bytes that are no UTF-8); and the user's other columns under their names in the tables.

        Raises:
            SourceError: a needed column that is not in the file, or holds lists or structs; too many splits or columns.
        """
        source = self._source
        self._seen.update(dict.fromkeys(frame.columns))
        # Later batches of a file may lack a column: JSON lines need not spell out what is null.
        if frame.height and uri != self._uri:
            self._uri = uri
            for name in self._needed:
                _require(name, frame.columns, uri)
        parts = pl.DataFrame([_texts(frame, name, uri).alias(f"{i}") for i, name in enumerate(self._template.fields)])
        pieces = [pl.lit(self._template.tail)]
        for i, literal in reversed(list(enumerate(self._template.literals))):
            pieces = [pl.lit(literal), pl.col(f"{i}").fill_null(""), *pieces]
        rows = pl.DataFrame(
            {
                "doc_id": _none_if_blank(_texts(frame, source.id, uri)),
                "text": parts.select(pl.concat_str(pieces)).to_series(),
                "split": _none_if_blank(_texts(frame, source.split, uri)),
                "gold": _none_if_blank(_texts(frame, source.gold, uri)),
                "is_blank": parts.select(pl.all_horizontal(is_blank(pl.all()))).to_series(),
                "is_broken": _is_broken(frame, self._needed),
            }
        )
        self._count_splits(rows["split"])
        others = frame.select([name for name in frame.columns if name not in self._consumed])
        return rows, others.rename(self._name)

    def require_all_seen(self) -> None:
        """Refuse gold and split columns that no row of the corpus had."""
        for name in (self._source.gold, self._source.split):
            if name is not None:
                _require(name, list(self._seen), self._source.uri)

    def _count_splits(self, split: pl.Series) -> None:
        self._splits.update(split.drop_nulls().unique())
        if len(self._splits) > _MAX_SPLITS:
            raise SourceError(
                f"corpus {self._source.uri}, column {self._source.split!r}", f"more than {_MAX_SPLITS} splits",
                "a few such as train and test", "choose another column as source.split",
            )  # fmt: skip

    def _name(self, name: str) -> str:
        """A column's name in the tables: its own, unless candist has a column of that name."""
        if name not in self._names:
            if len(self._names) >= _MAX_COLUMNS:
                raise SourceError(
                    f"corpus {self._source.uri}", f"more than {_MAX_COLUMNS} columns", "fewer",
                    "keep what varies out of the names of fields",
                )  # fmt: skip
            taken, free = _RESERVED | set(self._names.values()), name or "unnamed"
            while free in taken:
                free += "_source"
            self._names[name] = free
        return self._names[name]


def refuse_unparted(found: list[str], uri: str) -> None:
    """Refuse a file of one column whose name holds several, parted by what is no comma.

    Raises:
        SourceError: naming what the columns look separated by.
    """
    for sign, said in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")) if len(found) == 1 else ():
        if sign in found[0]:
            step = "write it again with commas" + (", or name it .tsv" if sign == "\t" else "")
            raise SourceError(f"corpus {uri}", f"columns that look separated by {said}", "by commas", step)


def _require(name: str, found: list[str], uri: str) -> None:
    if name in found:
        return
    refuse_unparted(found, uri)
    near = get_close_matches(name, found, n=1, cutoff=0.5)
    shown = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
    hint = f"did you mean {near[0]!r}?" if near else "set source.text, id, gold and split to columns that are there"
    raise SourceError(f"corpus {uri}", f"the columns {shown}", f"a column {name!r}", hint)


def _texts(frame: pl.DataFrame, name: str | None, uri: str) -> pl.Series:
    """One column as text; null where the batch lacks it."""
    if name is None or name not in frame.columns:
        return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    if frame.schema[name].is_nested():
        found = f"the type {frame.schema[name]}"
        raise SourceError(f"corpus {uri}, column {name!r}", found, "text or numbers", "choose another column")
    return as_text(frame[name])


def is_blank(text: pl.Expr) -> pl.Expr:
    """Whether a text is null or white space alone."""
    return text.fill_null("").str.strip_chars() == ""


def _none_if_blank(text: pl.Series) -> pl.Series:
    return text.to_frame("x").select(pl.when(~is_blank(pl.col("x"))).then(pl.col("x"))).to_series()


def _is_broken(frame: pl.DataFrame, names: list[str]) -> pl.Series:
    """Rows where one of the columns holds NUL, which no tokenizer takes, or bytes that are no UTF-8."""
    broken = pl.repeat(False, frame.height, eager=True)
    for name in names:
        if name in frame.columns:
            text = as_text(frame[name])
            broken |= text.str.contains("\0", literal=True).fill_null(value=False)
            if frame.schema[name] == pl.Binary:
                broken |= frame[name].is_not_null() & text.is_null()
    return broken
