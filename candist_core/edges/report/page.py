"""The page itself: what a template is filled with, and the policy under which a browser shows it.

Texts, labels, ids and reasons come from a corpus that nobody vouches for. Invariant: each of them passes `shown` and
the template's escaping, none stands inside a script or a style, and the page's policy lets no other script run.
"""

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from candist_core.doubtful import MAX_CHARS, MAX_SHOWN, Doubtful
from candist_core.edges.report.facts import cost_facts, lineage_facts, measures
from candist_core.edges.report.learning import learning_plots
from candist_core.edges.report.plots import all_plots
from candist_core.edges.report.words import count, dollars, percent, shortened, shown, size
from candist_core.labels import MIN_CONFIDENCE
from candist_core.manifest import Manifest
from candist_core.spec import TaskSpec
from candist_core.tally import Tally
from candist_core.verdict import by_weight, failed_checks, judge, measured, reference, sentence

MAX_CLASSES = 300
"""Labels in the table; of more, those with most texts to review are shown."""

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
        style, script = _asset("page.css"), _asset("page.js")
        template = _environment().from_string(_asset("page.html"))
        html = template.render(
            policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
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
        return html.encode()


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever a template prints passes here; markup of our own is no plain str.
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters |= {
        "count": count, "percent": percent, "dollars": dollars, "size": size, "short": shortened,
        "sentence": sentence,
    }  # fmt: skip
    return environment


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is fetched and only these two run, known by their hashes."""
    kinds = {"style-src": style, "script-src": script}
    hashed = [f"{kind} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for kind, text in kinds.items()]
    return "; ".join(["default-src 'none'", *hashed, "base-uri 'none'", "form-action 'none'"])


def _explained(reason: str) -> str:
    return next((words for start, words in _REASONS.items() if reason.startswith(start)), "")


def _by_count(frame: pl.DataFrame) -> list[tuple[str, int]]:
    return list(frame.sort("n", frame.columns[0], descending=[True, False]).iter_rows())


def _class_rows(tally: Tally, spec: TaskSpec) -> list[dict[str, object]]:
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
    if table.height > MAX_CLASSES:
        table = table.sort("n_review", "n", "label", descending=[True, True, False]).head(MAX_CLASSES)
    return list(table.iter_rows(named=True))


def _ratio(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))
