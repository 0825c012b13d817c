"""Candidate sets, one at a time and as matrices.

n texts, k labels. S is the candidate mask, (n, k) bool: S[i, j] says that label j stands in set i.
R is the rank table, (n, k) int: 0 for the teacher's first label, 1 for its second, -1 outside the set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Status(StrEnum):
    """What became of one question to the teacher."""

    OK = "ok"
    ABSTAINED = "abstained"
    UNPARSED = "unparsed"
    REFUSED = "refused"
    FAILED = "failed"
    UNREAD = "unread"
    """Not asked: the teacher reads a sample of the corpus, and this text is not in it."""


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """Labels that the teacher holds possible, its single best first; empty unless `status` is ok."""

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    status: Status = Status.OK


def rank_table(candidates: Sequence[Sequence[str]] | pl.Series, labels: Sequence[str]) -> NDArray[np.int16]:
    """R, (n, k): the place of each label in each set, -1 outside it. A label that is not known is passed over.

    Example:
        >>> rank_table([["b", "a"], []], ["a", "b", "c"]).tolist()
        [[1, 0, -1], [-1, -1, -1]]
    """
    column = {name: j for j, name in enumerate(labels)}
    ranks: NDArray[np.int16] = np.full((len(candidates), len(labels)), -1, dtype=np.int16)
    # Rows of a series one by one take four times as long as all at once.
    for i, names in enumerate(candidates.to_list() if isinstance(candidates, pl.Series) else candidates):
        for rank, name in enumerate(names):
            if (j := column.get(name)) is not None:
                ranks[i, j] = rank
    return ranks


def candidate_mask(candidates: Sequence[Sequence[str]] | pl.Series, labels: Sequence[str]) -> NDArray[np.bool_]:
    """S, (n, k): which labels stand in each set.

    Example:
        >>> candidate_mask([["b"], ["a", "c"]], ["a", "b", "c"]).astype(int).tolist()
        [[0, 1, 0], [1, 0, 1]]
    """
    mask: NDArray[np.bool_] = np.greater_equal(rank_table(candidates, labels), 0)
    return mask


def has_candidates(S: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows of S, (n,) bool, with at least one label: the ones a student can learn from.

    Example:
        >>> has_candidates(np.array([[False, True], [False, False]])).tolist()
        [True, False]
    """
    kept: NDArray[np.bool_] = np.asarray(S.any(axis=1))
    return kept
