"""The doubtful rows that a report shows: few enough to read, and every label among them.

Invariant: at most `MAX_SHOWN` rows are held between two parts, and which they are does not depend on the parts.
"""

import polars as pl

MAX_SHOWN = 300
"""As many as a person reads in an afternoon; a page of them stays below half a megabyte."""

MAX_CHARS = 700
MAX_CANDIDATES = 8


class Doubtful:
    """Rows that want review: label by label in turn each label's least sure one, equal texts once.

    `rows` has doc_id, text (cut), is_cut, label, confidence, candidates (the first 8), n_candidates, source, reason
    and gold, least sure first.

    Example:
        >>> rows = pl.DataFrame({"doc_id": ["1", "2", "3"], "text": ["x", "y", "z"], "label": ["a", "a", "b"],
        ...     "confidence": [0.5, 0.4, 0.7], "candidates": [["a"]] * 3, "source": ["teacher"] * 3,
        ...     "needs_review": [True] * 3, "reason": ["low confidence"] * 3})
        >>> doubtful = Doubtful(max_shown=2)
        >>> doubtful.add(rows)
        >>> doubtful.rows["doc_id"].to_list()
        ['2', '3']
    """

    def __init__(self, max_shown: int = MAX_SHOWN) -> None:
        self._max_shown = max_shown
        self._kept: pl.DataFrame | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Look at some rows of published/1."""
        new = _brief(rows.filter("needs_review"))
        both = new if self._kept is None else pl.concat([self._kept, new])
        # A row that is passed over here never comes back: rows seen later only move it further down its label.
        place = pl.col("confidence").rank("ordinal").over("label").alias("place")
        self._kept = (
            both.unique("hash", keep="first", maintain_order=True)
            # Equal texts have equal hashes: which of their rows came first cannot change what is kept.
            .sort("confidence", "hash")
            .with_columns(place)
            .sort("place", "confidence", "hash")
            .head(self._max_shown)
            .drop("place")
        )

    @property
    def rows(self) -> pl.DataFrame:
        """The rows, least sure first."""
        kept = pl.DataFrame() if self._kept is None else self._kept
        return kept.sort("confidence", "hash").drop("hash") if kept.width else kept


def _brief(rows: pl.DataFrame) -> pl.DataFrame:
    """What is shown of rows, texts cut."""
    gold = pl.col("gold") if rows.schema.get("gold") == pl.String() else pl.lit(None, dtype=pl.String)
    return rows.select(
        "doc_id",
        "label",
        pl.col("confidence").cast(pl.Float64),
        "source",
        "reason",
        text=pl.col("text").str.slice(0, MAX_CHARS),
        is_cut=pl.col("text").str.len_chars() > MAX_CHARS,
        candidates=pl.col("candidates").list.head(MAX_CANDIDATES),
        n_candidates=pl.col("candidates").list.len(),
        gold=gold,
        hash=pl.col("text").hash(),
    )
