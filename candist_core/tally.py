"""What the rows of a version come to, counted part by part: memory is bounded by the labels, not by the rows.

n rows, k labels. Invariant: the counts are those of all rows together, however the rows were cut into parts.
"""

import polars as pl

from candist_core.spec import TaskSpec

FINE_BINS = 1000
"""Confidences are counted in bins this fine: a curve from them is off by at most a thousandth."""


class Tally:
    """Counts over published rows; each is a frame that `add` keeps up to date.

    `classes`: label, n, n_review, confidence (sum).
    `reasons`: reason, n; `sources`: source, n.
    `confidences`: bin in [0, 1000), n, n_review, confidence (sum), kept (sum over rows that want no review), n_gold,
    n_right; bin b holds ((b, b + 1] / 1000).
    `sizes`: size of the candidate set, n, n_gold, n_covered, n_first_right.
    `confusion`: gold, label, n; rows whose gold is a label of the spec.

    Example:
        >>> from candist_core.spec import LabelSpec
        >>> rows = pl.DataFrame({"label": ["a"], "confidence": [0.9], "candidates": [["a", "b"]],
        ...     "teacher_label": ["a"], "source": ["agreed"], "needs_review": [False], "reason": [None]})
        >>> tally = Tally(TaskSpec(labels=[LabelSpec(name="a"), LabelSpec(name="b")]))
        >>> tally.add(rows)
        >>> tally.n_rows, tally.classes.rows()
        (1, [('a', 1, 0, 0.9)])
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._names = list(spec.label_names)
        count: pl.DataType = pl.Int64()
        mass: pl.DataType = pl.Float64()
        self.classes = pl.DataFrame(schema={"label": pl.String(), "n": count, "n_review": count, "confidence": mass})
        self.reasons = pl.DataFrame(schema={"reason": pl.String(), "n": count})
        self.sources = pl.DataFrame(schema={"source": pl.String(), "n": count})
        judged = {"n_gold": count, "n_right": count}
        self.confidences = pl.DataFrame(
            schema={"bin": count, "n": count, "n_review": count, "confidence": mass, "kept": mass} | judged
        )
        self.sizes = pl.DataFrame(
            schema={"size": count, "n": count, "n_gold": count, "n_covered": count, "n_first_right": count}
        )
        self.confusion = pl.DataFrame(schema={"gold": pl.String(), "label": pl.String(), "n": count})

    def add(self, rows: pl.DataFrame) -> None:
        """Count some rows of published/1, with or without a column `gold`."""
        seen = self._judged(rows)
        n, n_review = pl.len().alias("n"), pl.col("needs_review").sum().alias("n_review")
        mass = pl.col("confidence").sum()
        kept = pl.col("confidence").filter(~pl.col("needs_review")).sum().alias("kept")
        n_gold, n_right = pl.col("gold").count().alias("n_gold"), pl.col("is_right").sum().alias("n_right")
        n_first = pl.col("is_first_right").sum().alias("n_first_right")
        n_covered = pl.col("is_covered").sum().alias("n_covered")
        doubtful, with_gold = seen.filter("needs_review"), seen.filter(pl.col("gold").is_not_null())
        self.classes = _merged(self.classes, seen.group_by("label").agg(n, n_review, mass))
        self.reasons = _merged(self.reasons, doubtful.group_by("reason").agg(n))
        self.sources = _merged(self.sources, seen.group_by("source").agg(n))
        fine = seen.group_by("bin").agg(n, n_review, mass, kept, n_gold, n_right)
        self.confidences = _merged(self.confidences, fine)
        self.sizes = _merged(self.sizes, seen.group_by("size").agg(n, n_gold, n_covered, n_first))
        self.confusion = _merged(self.confusion, with_gold.group_by("gold", "label").agg(n), n_keys=2)

    @property
    def n_rows(self) -> int:
        """Rows counted."""
        return int(self.confidences["n"].sum())

    @property
    def n_review(self) -> int:
        """Rows that want review."""
        return int(self.confidences["n_review"].sum())

    @property
    def kept_confidence(self) -> float | None:
        """Mean confidence of the rows that want no review; None where there are none."""
        n_kept = self.n_rows - self.n_review
        return float(self.confidences["kept"].sum() / n_kept) if n_kept else None

    @property
    def n_gold(self) -> int:
        """Rows whose gold is a label of the spec."""
        return int(self.confidences["n_gold"].sum())

    def _judged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns that are counted, and what gold says of each row."""
        gold = pl.col("gold") if rows.schema.get("gold") == pl.String() else pl.lit(None, dtype=pl.String)
        confidence = pl.col("confidence").cast(pl.Float64)
        # A float32 just above a bound, such as 0.8, belongs to the bin below it.
        fine = ((confidence * FINE_BINS).round(4).ceil() - 1).clip(0, FINE_BINS - 1).cast(pl.Int64)
        return rows.select(
            "label",
            "source",
            "reason",
            "needs_review",
            confidence,
            bin=fine,
            size=pl.col("candidates").list.len().cast(pl.Int64),
            gold=pl.when(gold.is_in(self._names)).then(gold),
            first="teacher_label",
            candidates="candidates",
        ).with_columns(
            is_right=(pl.col("label") == pl.col("gold")).fill_null(False),
            is_first_right=(pl.col("first") == pl.col("gold")).fill_null(False),
            is_covered=pl.col("gold").is_in(pl.col("candidates")).fill_null(False),
        )


def _merged(known: pl.DataFrame, new: pl.DataFrame, n_keys: int = 1) -> pl.DataFrame:
    """Sums of two tables of counts, by their first columns, in the order of these."""
    keys = known.columns[:n_keys]
    both = pl.concat([known, new.select(pl.col(name).cast(dtype) for name, dtype in known.schema.items())])
    return both.group_by(keys).sum().sort(keys)
