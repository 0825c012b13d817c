"""The dataset card: a README.md that people and the Hugging Face Hub read.

Names and descriptions of labels, splits and columns are the user's and may hold anything: the YAML head is written by
a YAML library and in the Markdown every character with a meaning is escaped. There is no date in it, so that equal
content has an equal card.
"""

import re
from collections.abc import Mapping, Sequence

import yaml

from candist_core.config import RunConfig
from candist_core.manifest import Counts
from candist_core.reports import EvaluateReport
from candist_core.sampling import SamplingReport

_COLUMNS = {
    "doc_id": "the row's id",
    "text": "the text",
    "label": "the final label",
    "confidence": "how sure that label is, from 0 to 1",
    "candidates": "labels that the teacher held possible, its best first",
    "teacher_label": "the teacher's best label; null where it gave none",
    "source": "who decided: `agreed`, `student` or `teacher`",
    "needs_review": "whether a person should look at the row",
    "reason": "why; null where no review is wanted",
    "gold": "label given by a person, where there is one; never used for labelling",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    config: RunConfig,
    version: str,
    splits: Mapping[str, int],
    columns: Sequence[str],
    counts: Counts,
    metrics: EvaluateReport,
    sampling: SamplingReport | None = None,
) -> str:
    """Write the card of one version.

    Args:
        config: the run.
        version: the version's id.
        splits: rows of each split, by the name that its files begin with.
        columns: columns of the data.
        counts: rows of the version.
        metrics: what is known of the labels.
        sampling: which texts the teacher read, where it did not read all.
    """
    parts = [_head(config, splits, counts), _about(config, version, counts)]
    parts += [_quality(metrics), _labels(config, metrics), _columns(columns), _making(config, sampling)]
    return "\n\n".join(parts) + "\n"


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
    head = {
        "pretty_name": config.dataset,
        "task_categories": ["text-classification"],
        "tags": ["candist", "candidate-labels", "weak-supervision"],
        "size_categories": [next((size for limit, size in _SIZES if counts.rows < limit), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _about(config: RunConfig, version: str, counts: Counts) -> str:
    return (
        f"# {escaped(config.dataset)}\n\n{counts.rows:,} texts, each with one of {len(config.task.labels)} labels, the "
        "set of labels that a large language model held possible, and a confidence. "
        f"{counts.needs_review:,} rows are marked for review; {counts.rejects:,} rejects, with reasons, are in "
        f"`rejects.parquet`.\n\nVersion `{version}`, made with candist.\n\n"
        '```python\nimport polars as pl\n\nlabels = pl.read_parquet("data/*.parquet")\n```'
    )


def _quality(metrics: EvaluateReport) -> str:
    rows = [
        ("labels in a candidate set, on average", f"{metrics.mean_set_size:.2f}"),
        ("final label is among the candidates", f"{100 * metrics.agreement:.1f} %"),
        ("mean confidence", f"{metrics.mean_confidence:.3f}"),
    ]
    if (gold := metrics.gold) is not None:
        rows += [
            ("gold label is among the candidates", str(gold.coverage)),
            ("teacher's best label is the gold label", str(gold.teacher_accuracy)),
            ("final label is the gold label", str(gold.final_accuracy)),
            ("the same, where no review is wanted", str(gold.kept_accuracy)),
            ("macro F1", f"{gold.macro_f1:.3f}"),
        ]
    remark = (
        "" if gold is None else f"\n\nShares against gold are over {gold.final_accuracy.n:,} rows, with 95 % intervals."
    )
    return "## Quality\n\n" + _table(("measure", "value"), rows) + remark


def _labels(config: RunConfig, metrics: EvaluateReport) -> str:
    rows = [
        (escaped(label.name), escaped(label.description), f"{metrics.class_counts.get(label.name, 0):,}")
        for label in config.task.labels
    ]
    return "## Labels\n\n" + _table(("label", "meaning", "rows"), rows)


def _columns(columns: Sequence[str]) -> str:
    rows = [(escaped(name), _COLUMNS.get(name, "from the corpus")) for name in columns]
    return "## Columns\n\n" + _table(("column", "meaning"), rows)


def _making(config: RunConfig, sampling: SamplingReport | None) -> str:
    teacher = escaped(f"{config.teacher.kind} {config.teacher.model_name}")
    student = escaped(config.student.model)
    sentence = "" if sampling is None else str(sampling)
    told = f" {escaped(sentence[:1].upper() + sentence[1:])}." if sentence else ""
    return (
        f"## How it was made\n\nThe teacher ({teacher}, strategy {escaped(config.task.strategy)}) named the labels "
        f"it held possible for each text. A student ({student}, method {escaped(config.student.method)}) "
        "learnt from these sets and gave each text its final label (CanDist, Xia et al., ACL 2025, arXiv "
        f"2506.03857).{told}\n\n"
        f"Instruction to the teacher: {escaped(config.task.instruction)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
