"""The report of a version, or of a run that has labelled everything: what its template is filled with."""

import json
from dataclasses import asdict

import polars as pl

from candist_core.doubtful import MAX_CHARS, MAX_SHOWN, Doubtful
from candist_core.edges.report.facts import cost_facts, lineage_facts, measures
from candist_core.edges.report.frame import render_page
from candist_core.edges.report.learning import learning_plots
from candist_core.edges.report.plots import all_plots
from candist_core.labels import MIN_CONFIDENCE
from candist_core.manifest import Manifest
from candist_core.spec import TaskSpec
from candist_core.tally import Tally
from candist_core.verdict import by_weight, failed_checks, judge, measured, reference

MAX_CLASSES = 300
"""Labels in the table; of more, those with most texts to review are shown."""

_NUMBERS_OF_LABEL = ("label", "n", "share", "n_review", "mean_confidence", "precision", "recall")
_REASONS = {
    "student and teacher disagree": "The student, which never saw the teacher's answer, prefers another of the labels.",
    "student prefers a label outside the set": "The student, which never saw the teacher's answer, would choose one "
    "that the teacher did not name.",
    "low confidence": "Teacher and student agree, but neither is sure.",
    "teacher gave no answer": "The label is the student's alone.",
    "teacher did not read it": "The label is the student's alone: the teacher read a sample of the corpus.",
}


class Page:
    """Collects the rows of a version part by part, and renders its report.

    Memory: a part, 300 rows, and counts by label.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._tally = Tally(spec)
        self._doubtful = Doubtful()

    def add(self, rows: pl.DataFrame) -> None:
        """Take some rows of published/1."""
        self._tally.add(rows)
        self._doubtful.add(rows)

    def render(self, manifest: Manifest, *, is_numbered: bool = True, is_published: bool = True) -> bytes:
        """The page, UTF-8.

        Args:
            manifest: the version, or what a run would publish.
            is_numbered: False while a version is published: its number is given at the commit, after this page.
            is_published: False for a run whose labels stand in no version.
        """
        tally, doubtful = self._tally, self._doubtful.rows
        return render_page(
            "page.html",
            manifest=manifest,
            is_numbered=is_numbered,
            is_published=is_published,
            reference=reference(manifest),
            verdict=judge(manifest, tally, is_published),
            tally=tally,
            findings=by_weight(manifest),
            failed=failed_checks(manifest),
            gold=measured(manifest),
            measures=measures(manifest, tally),
            plots=[
                *all_plots(tally, self._spec.label_names, manifest.metrics.audit, manifest.sampling is not None),
                *learning_plots(manifest.sampling),
            ],
            classes=_class_rows(tally, self._spec),
            n_classes=len(self._spec.labels),
            reasons=[(reason, n, _explained(reason)) for reason, n in _by_count(tally.reasons)],
            doubtful=list(doubtful.iter_rows(named=True)),
            has_gold=tally.n_gold > 0,
            max_shown=MAX_SHOWN,
            max_chars=MAX_CHARS,
            min_confidence=MIN_CONFIDENCE,
            passed=[(check.name, check.observed, check.wanted) for check in manifest.checks if check.passed],
            costs=cost_facts(manifest),
            lineage=lineage_facts(manifest, is_numbered and is_published),
            config=json.dumps(manifest.config, indent=2, ensure_ascii=False),
        )

    def numbers(self, manifest: Manifest) -> bytes:
        """What the page tells in numbers, as JSON under metrics/1: answer, measures, labels, findings, checks, cost."""
        tally = self._tally
        verdict = judge(manifest, tally)
        told = {
            "contract": "metrics/1",
            "dataset": manifest.dataset,
            "version": manifest.version,
            "answer": verdict.answer,
            "because": verdict.because,
            "measures": [asdict(fact) for fact in measures(manifest, tally)],
            "labels": [
                {name: row[name] for name in _NUMBERS_OF_LABEL}
                for row in _class_rows(tally, self._spec, len(self._spec.labels))
            ],
            "findings": [finding.model_dump() for finding in by_weight(manifest)],
            "checks": [check.model_dump() for check in manifest.checks],
            "cost": [asdict(fact) for fact in cost_facts(manifest)],
            "metrics": manifest.metrics.model_dump(mode="json"),
            "quality": manifest.quality and manifest.quality.model_dump(mode="json", exclude={"findings"}),
        }
        return json.dumps(told, indent=1, ensure_ascii=False).encode()


def _explained(reason: str) -> str:
    return next((words for start, words in _REASONS.items() if reason.startswith(start)), "")


def _by_count(frame: pl.DataFrame) -> list[tuple[str, int]]:
    return list(frame.sort("n", frame.columns[0], descending=[True, False]).iter_rows())


def _class_rows(tally: Tally, spec: TaskSpec, most: int = MAX_CLASSES) -> list[dict[str, object]]:
    """A line for each label; precision and recall where rows with gold allow one."""
    labels = pl.DataFrame(
        [(label.name, label.description) for label in spec.labels],
        schema={"label": pl.String, "description": pl.String},
        orient="row",
    )
    confusion = tally.confusion
    right = confusion.filter(pl.col("gold") == pl.col("label")).select("label", right="n")
    judged = confusion.group_by("label").agg(judged=pl.col("n").sum())
    true = confusion.group_by(pl.col("gold").alias("label")).agg(true=pl.col("n").sum())
    table = labels
    for part in (tally.classes, right, judged, true):
        table = table.join(part, on="label", how="left", maintain_order="left")
    table = table.with_columns(pl.exclude("label", "description").fill_null(0)).with_columns(
        share=pl.col("n") / max(1, tally.n_rows),
        review_share=_ratio("n_review", "n"),
        mean_confidence=_ratio("confidence", "n"),
        precision=_ratio("right", "judged"),
        recall=_ratio("right", "true"),
        bar=100 * pl.col("n") / max(1, int(table["n"].max() or 1)),  # type: ignore[arg-type]
    )
    table = table.with_columns(review_bar=pl.col("bar") * pl.col("review_share").fill_null(0))
    if table.height > most:
        table = table.sort("n_review", "n", "label", descending=[True, True, False]).head(most)
    return list(table.iter_rows(named=True))


def _ratio(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
