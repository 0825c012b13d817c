"""One final label and one confidence for every text, from what teacher and student say together.

n texts, k labels. P is a student's belief, (n, k), best that of one which never saw the text's answer. What is made
of it and the teacher's set is the label model's (`candist_core.label_model`); this module adds the words: where a
label comes from, and why it wants review. Invariant: every text gets one label, and a label that a person gave stays.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.candidates import Status, rank_table
from candist_core.errors import ContractError, StudentError
from candist_core.label_model import confidence, posterior
from candist_core.reports import LabelModel
from candist_core.spec import TaskSpec
from candist_core.tables import LABELS, check

MIN_CONFIDENCE = 0.8
"""Labels less sure than this want review: 124 of the 1,200 texts of the sample corpus; of the others one is wrong."""


def final_labels(
    annotations: pl.DataFrame,
    P: NDArray[np.floating],
    spec: TaskSpec,
    model: LabelModel,
    reviewed: Mapping[str, str] | None = None,
    min_confidence: float = MIN_CONFIDENCE,
) -> pl.DataFrame:
    """Give every text its most probable label.

    `source` is reviewed where a person gave the label, agreed when the final label is the first choice of both,
    teacher when it is the teacher's first against the student, else student. `reason` tells why a label wants
    review: the teacher gave no answer, or the confidence is below `min_confidence`, and why that is: the student's
    first choice is outside the set, or another one within it, or neither is sure. A text that the teacher did not read
    wants review for a low confidence alone.

    Args:
        annotations: annotations/1, n rows.
        P: a student's belief, (n, k) in [0, 1], rows as in `annotations`, columns as in the spec.
        spec: the labels.
        model: how the two become a posterior and a confidence.
        reviewed: labels that a person gave, by doc_id: sure, and in no need of review.
        min_confidence: confidence below which a label wants review.

    Returns:
        labels/1, n rows in the same order.

    Raises:
        ContractError: P has not n rows and k columns.
        StudentError: P holds a number that is no probability.

    Example:
        >>> from candist_core.label_model import fit_label_model
        >>> from candist_core.spec import LabelSpec
        >>> spec = TaskSpec(labels=[LabelSpec(name="spam"), LabelSpec(name="ham")])
        >>> annotations = pl.DataFrame({"doc_id": ["a"], "candidates": [["ham"]], "status": ["ok"]})
        >>> P = np.array([[0.6, 0.4]])
        >>> final_labels(annotations, P, spec, fit_label_model(np.array([[-1, 0]]), {True: P})).row(0)[1::4]
        ('ham', 'teacher')
    """
    _check_belief(P, annotations.height, len(spec.labels))
    answers = _known_candidates(annotations, spec)
    belief = posterior(rank_table(answers["candidates"], spec.label_names), P, model)
    names = np.array(spec.label_names, dtype=object)
    given = [(reviewed or {}).get(doc_id) for doc_id in answers["doc_id"]]
    rows = answers.with_columns(
        given=pl.Series(given, dtype=pl.String),
        found=pl.Series(names[belief.argmax(axis=1)].tolist(), dtype=pl.String),
        preferred=pl.Series(names[P.argmax(axis=1)].tolist(), dtype=pl.String),
        sure=pl.Series(confidence(belief.max(axis=1, initial=0.0), model), dtype=pl.Float32),
    ).with_columns(
        label=pl.coalesce("given", "found"),
        confidence=pl.when(pl.col("given").is_null()).then("sure").otherwise(pl.lit(1.0, dtype=pl.Float32)),
    )
    return check(_with_verdict(rows, min_confidence).select(*LABELS.columns), LABELS)


def _check_belief(P: NDArray[np.floating], n: int, k: int) -> None:
    if P.shape != (n, k):
        raise ContractError("labels/1", f"a student's belief of shape {P.shape}", f"{(n, k)}, texts by labels")
    is_usable = np.isfinite(P).all(axis=1) & (P >= 0).all(axis=1) & (P.sum(axis=1) > 0)
    if n_wrong := int((~is_usable).sum()):
        raise StudentError(
            "the student's belief",
            f"{n_wrong} of {n} texts with numbers that are no probabilities",
            "numbers from 0 to 1, not all 0",
            "train it anew with a smaller student.learning_rate",
        )


def _known_candidates(annotations: pl.DataFrame, spec: TaskSpec) -> pl.DataFrame:
    element = pl.element()
    known = element.filter(element.is_in(list(spec.label_names))).unique(maintain_order=True)
    return annotations.select(
        "doc_id", pl.col("candidates").cast(pl.List(pl.String)).list.eval(known), "status"
    ).with_columns(teacher_label=pl.col("candidates").list.first())


def _with_verdict(rows: pl.DataFrame, min_confidence: float) -> pl.DataFrame:
    """Add source, reason and needs_review."""
    label, first, preferred = pl.col("label"), pl.col("teacher_label"), pl.col("preferred")
    is_teachers = label.eq_missing(first)
    verdict = rows.with_columns(
        source=pl.when(pl.col("given").is_not_null())
        .then(pl.lit("reviewed"))
        .when(is_teachers & (preferred == first))
        .then(pl.lit("agreed"))
        .when(is_teachers)
        .then(pl.lit("teacher"))
        .otherwise(pl.lit("student")),
        reason=pl.when(pl.col("given").is_not_null())
        .then(None)
        .when(first.is_null() & (pl.col("status") != Status.UNREAD))
        .then(pl.lit("teacher gave no answer: ") + pl.col("status"))
        .when(pl.col("confidence") >= min_confidence)
        .then(None)
        .when(first.is_null())
        .then(pl.lit("teacher did not read it, low confidence"))
        .when(~preferred.is_in(pl.col("candidates")))
        .then(pl.lit("student prefers a label outside the set"))
        .when(preferred != first)
        .then(pl.lit("student and teacher disagree"))
        .otherwise(pl.lit("low confidence")),
    )
    return verdict.with_columns(needs_review=pl.col("reason").is_not_null())
