"""Quality where gold is known: accuracies and coverage, by size and label, confusion, risk and coverage, reliability.

Shards are counted one after another. Confidences are counted in 1,000 cells of equal width, so that curves are exact
at the bounds of cells and no row need be kept.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.metrics import wilson
from candist_core.reports import ConfusionCell, GoldDetails, GoldReport, NamedShare, ReliabilityBin, RiskPoint

_First = TypeVar("_First", int, str)

CELLS, BINS, MAX_POINTS, MAX_CONFUSIONS = 1_000, 10, 100, 10_000


class ConfidenceCounts:
    """Confidences and whether the labels were right, added up in a thousand cells of equal width on (0, 1].

    Example:
        >>> counts = ConfidenceCounts()
        >>> counts.add(np.array([0.95, 0.91, 0.2]), np.array([True, False, True]))
        >>> [(one.n, one.accuracy.value) for one in counts.bins()]
        [(1, 1.0), (2, 0.5)]
    """

    def __init__(self) -> None:
        self.n, self.right, self._sum = np.zeros(CELLS), np.zeros(CELLS), np.zeros(CELLS)

    def add(self, confidence: NDArray[np.floating], is_right: NDArray[np.bool_]) -> None:
        """Count labels: confidence (n,), is_right (n,)."""
        sure = np.asarray(confidence, dtype=np.float64)
        # Rounded, because a float32 of 0.6 lies above 0.6.
        cell = np.clip(np.ceil(np.round(sure * CELLS, 3)).astype(np.int64) - 1, 0, CELLS - 1)
        self.n += np.bincount(cell, minlength=CELLS)
        self.right += np.bincount(cell, is_right, minlength=CELLS)
        self._sum += np.bincount(cell, sure, minlength=CELLS)

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """Ten bins of equal width, the empty ones left out.

        Source:
            Guo et al., On Calibration of Modern Neural Networks, ICML 2017, figure 1.
        """
        n, right, total = (counts.reshape(BINS, -1).sum(axis=1) for counts in (self.n, self.right, self._sum))
        return tuple(
            ReliabilityBin(
                low=float(b / BINS),
                high=float((b + 1) / BINS),
                n=int(n[b]),
                confidence=float(total[b] / n[b]),
                accuracy=wilson(int(right[b]), int(n[b])),
            )
            for b in np.flatnonzero(n)
        )


class GoldCounts:
    """Rows with gold, added up."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        # By size of the set and gold: rows, of these covered, and with the right first label.
        self._asked, self._covered, self._taught = (Counter[tuple[int, str]]() for _ in range(3))
        self._cells, self._n_kept, self._n_kept_right = Counter[tuple[str, str]](), 0, 0
        self._sure = ConfidenceCounts()

    def add(self, labels: pl.DataFrame, annotations: pl.DataFrame, gold: pl.DataFrame) -> None:
        """Count the rows of a shard whose gold is given.

        Args:
            labels: labels/1.
            annotations: annotations/1.
            gold: doc_id and gold, all of them labels of the task.
        """
        is_in, first = pl.col("gold").is_in(pl.col("candidates")), pl.col("candidates").list.first()
        answers = annotations.join(gold, on="doc_id").select("gold", "candidates")
        for size, name, n, n_covered, n_right in (
            answers.group_by(size=pl.col("candidates").list.len(), name="gold")
            .agg(pl.len(), is_in.sum().alias("covered"), (first == pl.col("gold")).sum().alias("right"))
            .iter_rows()
        ):
            self._asked[size, name] += n
            self._covered[size, name] += n_covered
            self._taught[size, name] += n_right
        labelled = labels.join(gold, on="doc_id").with_columns(right=pl.col("label") == pl.col("gold"))
        for name, label, n in labelled.group_by("gold", "label").len().iter_rows():
            self._cells[name, label] += n
        kept = labelled.filter(~pl.col("needs_review"))["right"]
        self._n_kept, self._n_kept_right = self._n_kept + len(kept), self._n_kept_right + int(kept.sum())
        self._sure.add(labelled["confidence"].to_numpy(), labelled["right"].to_numpy())

    def report(self) -> GoldReport | None:
        """What the rows add up to; None without a labelled row.

        Example:
            >>> counts = GoldCounts(("a", "b"))
            >>> labels = pl.DataFrame({"doc_id": ["1", "2"], "label": ["a", "a"], "confidence": [0.9, 0.6],
            ...     "needs_review": [False, True]})
            >>> answers = pl.DataFrame({"doc_id": ["1", "2"], "candidates": [["a"], ["a", "b"]]})
            >>> counts.add(labels, answers, pl.DataFrame({"doc_id": ["1", "2"], "gold": ["a", "b"]}))
            >>> found = counts.report()
            >>> found.coverage.value, found.final_accuracy.value, round(found.details.calibration_error, 2)
            (1.0, 0.5, 0.35)
        """
        if not self._cells:
            return None
        n_right = sum(self._cells[name, name] for name in self.names)
        of_gold, of_final = _by_first(self._cells), _by_last(self._cells)
        occurring = [name for name in {*of_gold, *of_final} if of_gold[name] + of_final[name]]
        scores = [2 * self._cells[name, name] / (of_gold[name] + of_final[name]) for name in occurring]
        n = self._asked.total()
        return GoldReport(
            teacher_accuracy=wilson(self._taught.total(), n),
            final_accuracy=wilson(n_right, self._cells.total()),
            macro_f1=sum(scores) / len(scores),
            coverage=wilson(self._covered.total(), n),
            kept_accuracy=wilson(self._n_kept_right, self._n_kept),
            lift=self._lift(),
            details=self._details(of_gold, of_final),
        )

    def _lift(self) -> float | None:
        """See `candist_core.metrics.lift`; over sets that are not empty."""
        n = sum(count for (size, _), count in self._asked.items() if size)
        n_further = sum((size - 1) * count for (size, _), count in self._asked.items() if size)
        n_right = self._taught.total()
        if not n_further or n_right == n:
            return None
        return (self._covered.total() - n_right) / n_further * (len(self.names) - 1) * n / (n - n_right)

    def _details(self, of_gold: Counter[str], of_final: Counter[str]) -> GoldDetails:
        asked, covered = _by_last(self._asked), _by_last(self._covered)
        by_size, covered_by_size = _by_first(self._asked), _by_first(self._covered)
        right = Counter({name: self._cells[name, name] for name in self.names})
        cells = sorted(self._cells.items(), key=lambda cell: (-cell[1], cell[0]))[:MAX_CONFUSIONS]
        bins = self._sure.bins()
        gap = sum(each.n * abs(each.confidence - each.accuracy.value) for each in bins)
        return GoldDetails(
            coverage_by_size={size: wilson(covered_by_size[size], n) for size, n in sorted(by_size.items())},
            coverage_by_label=self._shares(covered, asked),
            teacher_by_label=self._shares(_by_last(self._taught), asked),
            recall=self._shares(right, of_gold),
            precision=self._shares(right, of_final),
            confusion=tuple(ConfusionCell(gold=gold, label=label, n=n) for (gold, label), n in cells),
            risk_coverage=tuple(self._risks()),
            reliability=bins,
            calibration_error=float(gap / self._sure.n.sum()),
        )

    def _shares(self, part: Counter[str], whole: Counter[str]) -> tuple[NamedShare, ...]:
        return tuple(NamedShare(name=name, share=wilson(part[name], whole[name])) for name in self.names)

    def _risks(self) -> Iterable[RiskPoint]:
        """At most a hundred points, about evenly spread over the share that is kept."""
        n = self._sure.n
        kept, wrong = _from_the_top(n), _from_the_top(n - self._sure.right)
        total, shown = n.sum(), 0.0
        for cell in np.flatnonzero(n)[::-1]:
            if kept[cell] >= shown + total / MAX_POINTS or kept[cell] == total:
                shown = kept[cell]
                yield RiskPoint(
                    confidence=float(cell / CELLS),
                    kept=float(kept[cell] / total),
                    risk=float(wrong[cell] / kept[cell]),
                )


def _by_first(counts: Counter[tuple[_First, str]]) -> Counter[_First]:
    sums = Counter[_First]()
    for (first, _), n in counts.items():
        sums[first] += n
    return sums


def _by_last(counts: Counter[tuple[_First, str]]) -> Counter[str]:
    sums = Counter[str]()
    for (_, last), n in counts.items():
        sums[last] += n
    return sums


def _from_the_top(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums from each cell to the last."""
    sums: NDArray[np.float64] = counts[::-1].cumsum()[::-1]
    return sums
