"""People's answers laid beside the version that was reviewed, and joined with what was answered before.

Invariant: an answer counts only for a text that the version holds as the person saw it, and each text has one label.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import polars as pl

from candist_core.errors import ReviewError
from candist_core.names import names_of
from candist_core.reports import Report
from candist_core.review import ReviewEstimate, Why, estimate_version, settle
from candist_core.review_formats import Answer

# Spreadsheets cut a cell at 32,767 characters.
_COMPARED_CHARS = 1_000
_MAX_SHOWN_CHARS = 60


class ReviewReport(Report):
    """What came of a file of answers. Counts are of distinct texts, `n_unknown` and `n_changed` of answers."""

    n_random: int
    n_doubtful: int
    n_unknown: int
    n_changed: int
    n_disputed: int
    n_corrected: int
    estimate: ReviewEstimate | None

    @property
    def n_answered(self) -> int:
        """Texts with a label out of this file."""
        return self.n_random + self.n_doubtful


@dataclass
class _Said:
    """What was said of one text."""

    row: Mapping[str, object]
    votes: list[str] = field(default_factory=list)
    is_random: bool = False


def match_answers(
    answers: Iterable[Answer], frame: pl.DataFrame, labels: Sequence[str], thing: str
) -> tuple[pl.DataFrame, ReviewReport]:
    """Find the text that each answer is about, and settle on a label where several people answered.

    An answer is found by its doc_id, or else by its text. One about a text that reads otherwise in the version is left
    out, and so is a text on which no label has more than half of the votes. An answer that does not say why its text
    was chosen is taken as doubtful: only what is known to be random may calibrate.

    Args:
        answers: from `read_answers`.
        frame: the version's rows.
        labels: the task's; case, outer space and underscores do not matter in an answer.
        thing: where the answers come from, for errors.

    Returns:
        text, answer, why, and the version's label, teacher_label, candidates, confidence, a row for each text; and
        what came of the file.

    Raises:
        ReviewError: a label that the task does not have, or no answer about a text of the version.

    Example:
        >>> rows = {"doc_id": ["1"], "text": ["hello"], "label": ["spam"], "teacher_label": ["spam"]}
        >>> rows |= {"candidates": [["spam"]], "confidence": [0.6]}
        >>> said = [Answer("1", "hello ", "Ham", "random"), Answer("2", None, "ham")]
        >>> table, report = match_answers(said, pl.DataFrame(rows), ["spam", "ham"], "f.csv")
        >>> table["answer"].to_list(), report.n_corrected, report.n_unknown
        (['ham'], 1, 1)
    """
    rows = _rows_about(frame, said := list(answers))
    by_id, by_text = {row["doc_id"]: row for row in rows}, {_bare(str(row["text"])): row for row in rows}
    found: dict[str, _Said] = {}
    n_unknown = n_changed = 0
    for answer in said:
        doc_id, text = answer.doc_id or "", answer.text or ""
        row = by_id.get(doc_id) or by_id.get(_unguarded(doc_id)) or by_text.get(_bare(text))
        if row is None:
            n_unknown += 1
        elif text and _bare(text) != _bare(str(row["text"])):
            n_changed += 1
        else:
            one = found.setdefault(str(row["text"]).strip(), _Said(row))
            one.votes.append(_known(answer.label or "", labels, thing))
            one.is_random |= (answer.why or "").strip().casefold() == Why.RANDOM
    if not found:
        held = f"{len(said)} answers, {n_changed} of them about texts that read otherwise now" if said else "no answer"
        raise ReviewError(thing, held, "answers about texts of the version", "name the version that was exported")
    table = _table(found.values())
    return table, ReviewReport(
        n_random=int((table["why"] == Why.RANDOM).sum()),
        n_doubtful=int((table["why"] == Why.DOUBTFUL).sum()),
        n_unknown=n_unknown,
        n_changed=n_changed,
        n_disputed=len(found) - table.height,
        n_corrected=int((table["answer"] != table["label"]).sum()),
        estimate=estimate_version(table),
    )


def join_reviews(before: Iterable[tuple[str, str, str]], table: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Text, label and why of all that was ever answered; the newer label counts, and once random is always random.

    Example:
        >>> now = pl.DataFrame({"text": ["a"], "answer": ["ham"], "why": ["doubtful"]})
        >>> join_reviews([("a", "spam", "random"), ("b", "spam", "doubtful")], now)
        [('a', 'ham', 'random'), ('b', 'spam', 'doubtful')]
    """
    joined: dict[str, tuple[str, str, str]] = {}
    for text, label, why in (*before, *table.select("text", "answer", "why").iter_rows()):
        known = joined.get(text.strip())
        reason = str(Why.RANDOM) if known is not None and known[2] == Why.RANDOM else why
        joined[text.strip()] = (text, label, reason)
    return list(joined.values())


def _rows_about(frame: pl.DataFrame, answers: Sequence[Answer]) -> list[dict[str, object]]:
    """The version's rows that an answer may be about, of rows with one text the first last."""
    columns = ["doc_id", "text", "label", "teacher_label", "candidates", "confidence"]
    ids = {name for answer in answers if answer.doc_id for name in (answer.doc_id, _unguarded(answer.doc_id))}
    named = frame.select(columns).filter(pl.col("doc_id").is_in(ids))
    texts = {_bare(answer.text) for answer in answers if answer.text is not None}
    if texts <= {_bare(text) for text in named["text"]}:
        return named.reverse().to_dicts()
    bare = pl.col("text").map_elements(_bare, return_dtype=pl.String)
    return pl.concat([named, frame.select(columns).filter(bare.is_in(texts))]).reverse().to_dicts()


def _bare(text: str) -> str:
    """A text as it survives spreadsheets and web pages."""
    return " ".join(_unguarded(text[: 2 * _COMPARED_CHARS]).split())[:_COMPARED_CHARS].strip()


def _unguarded(value: str) -> str:
    """A cell without the apostrophe that `to_csv` may have set before it."""
    return value[1:] if value[:2] in {f"'{sign}" for sign in "=+-@\t\r"} else value


def _known(label: str, labels: Sequence[str], thing: str) -> str:
    if (name := names_of(tuple(labels)).resolve(label)) is not None:
        return name
    near = get_close_matches(label, labels, n=1, cutoff=0.6)
    step = f"did you mean {near[0]!r}?" if near else "correct the answer, or add the label under task.labels"
    raise ReviewError(thing, f"the label {label[:_MAX_SHOWN_CHARS]!r}", "one of the task's labels", step)


def _table(found: Iterable[_Said]) -> pl.DataFrame:
    rows = [
        (str(said.row["text"]), answer, str(Why.RANDOM if said.is_random else Why.DOUBTFUL), said.row)
        for said in found
        if (answer := settle(said.votes)) is not None
    ]
    columns = ("label", "teacher_label", "candidates", "confidence")
    strings, floats = pl.String(), pl.Float64()
    schema = {"text": strings, "answer": strings, "why": strings, "label": strings, "teacher_label": strings}
    return pl.DataFrame(
        [(*row[:3], *(row[3][name] for name in columns)) for row in rows],
        schema=schema | {"candidates": pl.List(strings), "confidence": floats},
        orient="row",
    )
