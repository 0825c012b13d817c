"""The dataset card: a README.md that people and the Hugging Face Hub read.

Names and descriptions of labels, splits and columns are the user's and may hold anything: the YAML head is written by
a YAML library and in the Markdown every character with a meaning is escaped. There is no date in it, so that equal
content has an equal card.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from candist_core.config import RunConfig
from candist_core.manifest import Counts, Manifest
from candist_core.reports import EvaluateReport, GoldReport
from candist_core.sampling import SamplingReport
from candist_core.teacher_config import TeacherKind

COLUMN_MEANINGS = {
    "doc_id": "the row's id",
    "text": "the text",
    "label": "the final label",
    "confidence": "how sure that label is, from 0 to 1",
    "candidates": "labels that the teacher held possible, its best first",
    "teacher_label": "the teacher's best label; null where it gave none",
    "source": "who decided: `agreed`, `student`, `teacher`, or `reviewed` by a person",
    "needs_review": "whether a person should look at the row",
    "reason": "why; null where no review is wanted",
    "gold": "label given by a person, where there is one; never used for labelling",
}
"""What candist's own columns hold; others are the user's."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(config: RunConfig, manifest: Manifest, splits: Mapping[str, int], columns: Sequence[str]) -> str:
    """Write the card of one version.

    Args:
        config: the run.
        manifest: the version's, its number apart.
        splits: rows of each split, by the name that its files begin with.
        columns: columns of the data.
    """
    parts = [_head(config, splits, manifest.counts), _about(config, manifest), _quality(manifest.metrics)]
    parts += [
        _attention(manifest),
        _labels(config, manifest.metrics),
        _columns(columns),
        _making(config, manifest.sampling),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    r"""Text as Markdown that shows it letter by letter, on one line.

    Example:
        >>> print(escaped("a|b <i>"))
        a\|b \<i\>
    """
    # Of characters that are no text, such as escapes for a terminal, a mark is left.
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$&:@-])", r"\\\1", line)


def _head(config: RunConfig, splits: Mapping[str, int], counts: Counts) -> str:
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits]
    head: dict[str, Any] = {"pretty_name": config.dataset}
    if config.publish.license:
        head["license"] = config.publish.license
    if config.publish.language:
        head["language"] = list(config.publish.language)
    head |= {
        "task_categories": ["text-classification"],
        "tags": ["candist", "candidate-labels", "weak-supervision"],
        "size_categories": [next((size for limit, size in _SIZES if counts.rows < limit), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _about(config: RunConfig, manifest: Manifest) -> str:
    counts = manifest.counts
    grown = f"\n\nRows {manifest.changes}." if manifest.changes else ""
    return (
        f"# {escaped(config.dataset)}\n\n{counts.rows:,} texts, each with one of {len(config.task.labels)} labels, the "
        f"set of labels that {_teachers(config)} held possible, and a confidence. "
        f"{counts.needs_review:,} rows are marked for review; {counts.rejects:,} rejects, with reasons, are in "
        f"`rejects.parquet`.\n\nVersion `{manifest.version}`, made with candist. "
        "Machines read `croissant.json` (MLCommons Croissant)."
        f"{grown}\n\n"
        '```python\nimport polars as pl\n\nlabels = pl.read_parquet("data/*.parquet")\n```'
    )


def _teachers(config: RunConfig) -> str:
    """What the teachers are, in words."""
    are_models = [teacher.kind is not TeacherKind.ZEROSHOT for teacher in config.teachers]
    if len(are_models) > 1:
        return f"{len(are_models)} teachers"
    return "a large language model" if are_models[0] else "a zero-shot classifier (similarity to the labels' meanings)"


def _quality(metrics: EvaluateReport) -> str:
    rows = [
        ("labels in a candidate set, on average", f"{metrics.mean_set_size:.2f}"),
        ("final label is among the candidates", f"{100 * metrics.agreement:.1f} %"),
        ("mean confidence", f"{metrics.mean_confidence:.3f}"),
    ]
    parts = ["## Quality\n\n" + _table(("measure", "value"), rows)]
    if metrics.gold is not None:
        n = metrics.gold.final_accuracy.n
        parts.append(f"Against gold, {n:,} rows, with 95 % intervals:\n\n{_accuracy(metrics.gold, 'gold')}")
    if metrics.audit is not None:
        n = metrics.audit.final_accuracy.n
        words = (
            f"Against an audit, {n:,} texts labelled by a person, with 95 % intervals; final labels as they were before"
        )
        parts.append(f"{words}:\n\n{_accuracy(metrics.audit, 'audited')}")
    if len(parts) == 1:
        parts.append("No row has a label given by a person: how often the labels are right is not measured.")
    return "\n\n".join(parts)


def _accuracy(found: GoldReport, word: str) -> str:
    rows = [
        (f"{word} label is among the candidates", str(found.coverage)),
        (f"teacher's best label is the {word} label", str(found.teacher_accuracy)),
        (f"final label is the {word} label", str(found.final_accuracy)),
        ("the same, where no review is wanted", str(found.kept_accuracy)),
        ("macro F1", f"{found.macro_f1:.3f}"),
    ]
    return _table(("measure", "value"), rows)


def _attention(manifest: Manifest) -> str:
    """Checks that failed and findings that warn; empty where there are none."""
    lines = [f"- {escaped(str(check))}" for check in manifest.checks if not check.passed]
    if manifest.quality is not None:
        serious = (found for found in manifest.quality.findings if found.severity != "note")
        lines += [f"- {escaped(f'{one.name}: {one.evidence} {one.consequence}')}" for one in serious]
    return "## Warnings\n\n" + "\n".join(dict.fromkeys(lines)) if lines else ""


def _labels(config: RunConfig, metrics: EvaluateReport) -> str:
    rows = [
        (escaped(label.name), escaped(label.description), f"{metrics.class_counts.get(label.name, 0):,}")
        for label in config.task.labels
    ]
    return "## Labels\n\n" + _table(("label", "meaning", "rows"), rows)


def _columns(columns: Sequence[str]) -> str:
    rows = [(escaped(name), COLUMN_MEANINGS.get(name, "from the corpus")) for name in columns]
    return "## Columns\n\n" + _table(("column", "meaning"), rows)


def _making(config: RunConfig, sampling: SamplingReport | None) -> str:
    named = ", ".join(escaped(f"{teacher.kind} {teacher.model_name}") for teacher in config.teachers)
    is_one = len(config.teachers) == 1
    student = escaped(config.student.model)
    sentence = "" if sampling is None else str(sampling)
    told = f" {escaped(sentence[:1].upper() + sentence[1:])}." if sentence else ""
    return (
        f"## How it was made\n\nThe teacher{'' if is_one else 's'} ({named}, strategy {escaped(config.task.strategy)}) "
        f"named the labels that {'it' if is_one else 'they'} held possible for each text. A student ({student}, method "
        f"{escaped(config.student.method)}) learnt from these sets and gave each text its final label (CanDist, Xia et "
        f"al., ACL 2025, arXiv 2506.03857).{told}\n\n"
        f"Instruction to the teacher: {escaped(config.task.instruction)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
