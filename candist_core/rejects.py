"""Rejects in numbers and in words: why rows left the pipeline."""

from collections.abc import Mapping

import polars as pl


def count_reasons(rejects: pl.DataFrame) -> dict[str, int]:
    """Rejects by reason, the most frequent first.

    Example:
        >>> count_reasons(pl.DataFrame({"reason": ["empty", "no_id", "no_id"]}))
        {'no_id': 2, 'empty': 1}
    """
    counts = rejects["reason"].value_counts(name="n").sort("n", "reason", descending=[True, False])
    return dict(counts.iter_rows())


def reasons_in_words(reasons: Mapping[str, int], n_shown: int = 5) -> str:
    """Rejects by reason, for a sentence.

    Example:
        >>> reasons_in_words({"duplicate_id": 1197, "empty": 2})
        '1,197 duplicate_id, 2 empty'
    """
    told = [f"{n:,} {reason}" for reason, n in list(reasons.items())[:n_shown]]
    return ", ".join([*told, *(["others"] if len(reasons) > n_shown else [])])
