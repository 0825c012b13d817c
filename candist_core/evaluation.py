"""What is known of a run's labels, with gold and without, counted shard by shard.

Memory hangs on the number of labels, not of rows. Gold is read here and nowhere before: it measures and teaches
nothing.
"""

from collections import Counter
from typing import Any

import polars as pl

from candist_core.candidates import Status
from candist_core.gold import GoldCounts
from candist_core.metrics import wilson
from candist_core.reports import EvaluateReport
from candist_core.spec import TaskSpec

_MAX_UNKNOWN = 20


class EvaluationCounts:
    """Shards of final labels, annotations and gold, added up."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec, self.gold = spec, GoldCounts(spec.label_names)
        self._n_rows, self._n_review, self._n_answered, self._n_agreed = 0, 0, 0, 0
        self._confidence, self._n_labelled = 0.0, 0
        self._n_unread, self._n_unread_right = 0, 0
        self._sizes, self._statuses = Counter[int](), Counter[str]()
        self._classes, self._firsts, self._unknown = Counter[str](), Counter[str](), Counter[str]()

    def add(self, labels: pl.DataFrame, annotations: pl.DataFrame, gold: pl.DataFrame | None) -> None:
        """Count a shard.

        Args:
            labels: labels/1.
            annotations: annotations/1, of the same rows and of those without a label.
            gold: doc_id and gold, null where there is none; None when the corpus has no gold.
        """
        answered = labels.filter(pl.col("candidates").list.len() > 0)
        self._n_rows += pl.concat([labels["doc_id"], annotations["doc_id"]]).n_unique()
        self._n_labelled += labels.height
        self._n_review += int(labels["needs_review"].sum())
        self._n_answered += answered.height
        self._n_agreed += answered.select(pl.col("label").is_in(pl.col("candidates")).sum()).item()
        self._confidence += float(labels["confidence"].cast(pl.Float64).sum())
        self._statuses.update(_counted(annotations["status"]))
        # What the teacher did not read tells nothing of its sets.
        asked = annotations.filter(pl.col("status") != Status.UNREAD)
        self._sizes.update(_counted(asked["candidates"].list.len()))
        self._classes.update(_counted(labels["label"]))
        self._firsts.update(_counted(asked["candidates"].list.first()))
        if gold is not None:
            known = gold.drop_nulls("gold").select("doc_id", "gold")
            is_label = pl.col("gold").is_in(list(self.spec.label_names))
            self._unknown.update(_counted(known.filter(~is_label)["gold"]))
            known = known.filter(is_label)
            self.gold.add(labels, asked, known)
            unread = annotations.filter(pl.col("status") == Status.UNREAD).select("doc_id")
            right = labels.join(unread, on="doc_id", how="semi").join(known, on="doc_id")
            self._n_unread += right.height
            self._n_unread_right += right.select((pl.col("label") == pl.col("gold")).sum()).item()

    def report(self) -> EvaluateReport:
        """What the shards add up to; `gold` is None where no row has a label of the task as gold.

        With gold, shares of the labels are over the labelled rows, shares of the teacher over the rows it read; a
        teacher that gave no label is wrong there and covers nothing. Lift is over the sets that are not empty.
        """
        n_filled = self._sizes.total() - self._sizes[0]
        unknown = sorted(self._unknown.items(), key=lambda value: (-value[1], value[0]))
        return EvaluateReport(
            n_rows=self._n_rows,
            n_labelled=self._n_labelled,
            n_review=self._n_review,
            mean_set_size=sum(size * n for size, n in self._sizes.items()) / max(n_filled, 1),
            set_sizes={size: n for size, n in sorted(self._sizes.items()) if n},
            statuses=dict(sorted(self._statuses.items())),
            class_counts={name: self._classes[name] for name in self.spec.label_names},
            teacher_counts={name: self._firsts[name] for name in self.spec.label_names},
            agreement=self._n_agreed / max(self._n_answered, 1),
            mean_confidence=self._confidence / max(self._n_labelled, 1),
            gold=self.gold.report(),
            unread=wilson(self._n_unread_right, self._n_unread) if self._n_unread else None,
            unknown_gold=dict(unknown[:_MAX_UNKNOWN]),
        )


def evaluate(
    labels: pl.DataFrame, annotations: pl.DataFrame, gold: pl.DataFrame | None, spec: TaskSpec
) -> EvaluateReport:
    """Sum up final labels that are one shard; see `EvaluationCounts`.

    Example:
        >>> from candist_core.spec import LabelSpec
        >>> from candist_core.tables import ANNOTATIONS, LABELS, empty
        >>> spec = TaskSpec(labels=[LabelSpec(name="spam"), LabelSpec(name="ham")])
        >>> gold = pl.DataFrame({"doc_id": ["a", "b"], "gold": ["ham", "eggs"]})
        >>> evaluate(empty(LABELS), empty(ANNOTATIONS), gold, spec).unknown_gold
        {'eggs': 1}
    """
    counts = EvaluationCounts(spec)
    counts.add(labels, annotations, gold)
    return counts.report()


def _counted(values: pl.Series) -> dict[Any, int]:
    return dict(values.value_counts().iter_rows())
