"""Two versions of a data set side by side: changed labels, moved metrics, cost.

Rows are matched by doc_id. Invariant: the moves sum up to the changed labels, and equal versions differ in nothing.
"""

from collections.abc import Iterator

import polars as pl

from candist_core.manifest import Manifest
from candist_core.reports import EvaluateReport, Report, Usage

_MAX_EXAMPLES = 3


class Changed(Report):
    """A row whose label changed; `source` and `confidence` are the second version's."""

    doc_id: str
    text: str
    source: str
    confidence: float


class Move(Report):
    """Rows that went from one label to another, and the first of them."""

    before: str
    after: str
    n: int
    examples: tuple[Changed, ...]


class Moved(Report):
    """One number in both versions; None where a version does not have it."""

    name: str
    before: float | None
    after: float | None


class Comparison(Report):
    """What differs between two versions. `before` and `after` name them: number and id.

    `n_other_text` of the rows in both have another text.
    """

    before: str
    after: str
    n_both: int
    n_only_before: int
    n_only_after: int
    n_changed: int
    n_reviewed: int
    n_other_text: int = 0
    moves: tuple[Move, ...]
    metrics: tuple[Moved, ...]
    new_labels: tuple[str, ...]
    gone_labels: tuple[str, ...]


def compare_versions(first: Manifest, second: Manifest, rows: pl.DataFrame, others: pl.DataFrame) -> Comparison:
    """Lay two versions side by side.

    Args:
        first: manifest of the one.
        second: manifest of the other.
        rows: the first's rows: doc_id, text, label, confidence, source.
        others: the second's.

    Returns:
        Moves with the most rows first, each with its first rows in the order of the second version; metrics that both
        or one has, equal ones included.
    """
    columns = ["doc_id", "text", "label"]
    both = others.join(rows.select(columns), on="doc_id", how="inner", suffix="_before", maintain_order="left")
    changed = both.filter(pl.col("label") != pl.col("label_before"))
    names, others_names = first.spec.label_names, second.spec.label_names
    return Comparison(
        before=_name(first),
        after=_name(second),
        n_both=both.height,
        n_only_before=rows.height - both.height,
        n_only_after=others.height - both.height,
        n_changed=changed.height,
        n_reviewed=int((changed["source"] == "reviewed").sum()),
        n_other_text=int((both["text"] != both["text_before"]).sum()),
        moves=tuple(_moves(changed)),
        metrics=tuple(_moved(first, second)),
        new_labels=tuple(name for name in others_names if name not in names),
        gone_labels=tuple(name for name in names if name not in others_names),
    )


def _name(manifest: Manifest) -> str:
    return f"{manifest.dataset}@{manifest.number} ({manifest.version})"


def _moves(changed: pl.DataFrame) -> Iterator[Move]:
    groups = changed.group_by("label_before", "label", maintain_order=True)
    counts = groups.len().sort("len", "label_before", "label", descending=[True, False, False])
    shown = {key: group for key, group in groups.head(_MAX_EXAMPLES).group_by("label_before", "label")}
    for before, after, n in counts.iter_rows():
        rows = shown[before, after].select("doc_id", "text", "source", "confidence").to_dicts()
        yield Move(before=before, after=after, n=n, examples=tuple(Changed(**row) for row in rows))


def _moved(first: Manifest, second: Manifest) -> Iterator[Moved]:
    one, other = _numbers(first), _numbers(second)
    for name in dict.fromkeys([*one, *other]):
        yield Moved(name=name, before=one.get(name), after=other.get(name))


def _numbers(manifest: Manifest) -> dict[str, float]:
    """What is worth comparing; of gold only where there is gold."""
    metrics: EvaluateReport = manifest.metrics
    usage: Usage = manifest.usage
    numbers: dict[str, float] = {
        "rows": metrics.n_rows,
        "labelled": metrics.n_labelled,
        "want review": metrics.n_review,
        "mean set size": metrics.mean_set_size,
        "agreement": metrics.agreement,
        "mean confidence": metrics.mean_confidence,
    }
    if metrics.gold is not None:
        numbers |= {
            "coverage": metrics.gold.coverage.value,
            "teacher accuracy": metrics.gold.teacher_accuracy.value,
            "final accuracy": metrics.gold.final_accuracy.value,
            "accuracy where no review is wanted": metrics.gold.kept_accuracy.value,
            "macro-F1": metrics.gold.macro_f1,
        }
    model = manifest.student.label_model
    numbers["audited at random"] = 0 if model is None else model.n_audited
    return numbers | {
        "replies": usage.n_requests + usage.n_reused,
        "cost of all replies (USD)": usage.cost_usd + usage.reused_usd,
    }
