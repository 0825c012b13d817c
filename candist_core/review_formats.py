"""Texts to review as other tools read them, and answers as they write them: CSV, Label Studio, Argilla, JSON lines.

In every format a text has its doc_id, its text, its candidates in order and why it was chosen, and the answer is named
`label`. No format shows the final label or pre-selects a candidate: whoever sees a verdict tends to agree with it.

Source, read on 2026-11-21:
    Label Studio, "Choices" tag (labelstud.io/tags/choices): `value="$choices"` loads the choices of each task from its
    data, a list of objects with `value`. "Label Studio JSON format of annotated tasks"
    (labelstud.io/guide/task_format): tasks have `data` and `annotations`, these `result` and `was_cancelled`. JSON-MIN
    and CSV hold a task's data beside one column named like the tag, one row an annotation: label-studio-sdk 2.1.2,
    `converter/converter.py` (`convert_to_json_min`, `get_data`) and `converter/exports/csv2.py`.
    Argilla 2.8.0, `datasets/_io/_disk.py`: `Dataset.from_disk` and `to_disk` share a folder of `records.json`,
    `.argilla/settings.json` and `.argilla/dataset.json`; `records/_resource.py` (`Record.to_dict`): responses by
    question, each with value and user, and the record's status, "completed" once enough people have submitted;
    `records/_io/_generic.py`: flattened, the answers stand under `label.responses`, each with its own status.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import polars as pl

from candist_core.errors import ReviewError
from candist_core.spec import TaskSpec

ANSWER = "label"
"""Name of the answer: a column, a tag of Label Studio, a question of Argilla."""

LABEL_STUDIO_INTERFACE = f"""\
<View>
  <Text name="text" value="$text"/>
  <Choices name="{ANSWER}" toName="text" value="$choices" choice="single" required="true"/>
</View>
"""
"""The labelling interface to paste into a Label Studio project; it shows each task's own choices in order."""

# What a spreadsheet takes for the start of a formula (OWASP, CSV injection).
_FORMULA = r"^[=+\-@\t\r]"
_RESPONSES = f"{ANSWER}.responses"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said of one text. `label` is None where nothing was said, or it was taken back."""

    doc_id: str | None
    text: str | None
    label: str | None
    why: str | None = None


def to_csv(chosen: pl.DataFrame) -> bytes:
    """Chosen texts as CSV: doc_id, text, candidates as `a|b`, why, and an empty label.

    A cell that a spreadsheet would run as a formula gets an apostrophe in front; `read_answers` looks past it.

    Example:
        >>> rows = {"doc_id": ["a"], "text": ["=1+1"], "candidates": [["x", "y"]], "why": ["random"]}
        >>> to_csv(pl.DataFrame(rows)).decode().splitlines()[1]
        "a,'=1+1,x|y,random,"
    """
    flat = chosen.with_columns(pl.col("candidates").list.join("|"), pl.lit(None, dtype=pl.String).alias(ANSWER))
    guarded = flat.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$0"))
    return guarded.write_csv().encode("utf-8", "surrogatepass")


def to_label_studio(chosen: pl.DataFrame, spec: TaskSpec) -> bytes:
    """Chosen texts as tasks for Label Studio: the candidates are the first choices, then come the other labels.

    Example:
        >>> spec = TaskSpec(labels=[{"name": "x"}, {"name": "y"}])
        >>> rows = {"doc_id": ["a"], "text": ["hello"], "candidates": [["y"]], "why": ["random"]}
        >>> json.loads(to_label_studio(pl.DataFrame(rows), spec))[0]["data"]["choices"]
        [{'value': 'y'}, {'value': 'x'}]
    """
    tasks = [
        {
            "data": {
                "doc_id": row["doc_id"],
                "text": row["text"],
                "why": row["why"],
                "choices": [{"value": name} for name in ordered_choices(row["candidates"], spec)],
            }
        }
        for row in chosen.iter_rows(named=True)
    ]
    return json.dumps(tasks, ensure_ascii=False, indent=1).encode()


def ordered_choices(candidates: Iterable[str], spec: TaskSpec) -> list[str]:
    """The candidates, then every other label in the order of the task."""
    return list(dict.fromkeys([*candidates, *spec.label_names]))


def to_argilla(chosen: pl.DataFrame, spec: TaskSpec, name: str) -> dict[str, bytes]:
    """Chosen texts as the folder that Argilla's `Dataset.from_disk` takes: each file's bytes by its path.

    A question of Argilla has the same options for every record, so the candidates stand in order in a field of their
    own beside the text.

    Example:
        >>> spec = TaskSpec(labels=[{"name": "x"}, {"name": "y"}])
        >>> rows = {"doc_id": ["a"], "text": ["hello"], "candidates": [["y", "x"]], "why": ["random"]}
        >>> print(json.loads(to_argilla(pl.DataFrame(rows), spec, "mine")["records.json"])[0]["fields"]["candidates"])
        1. y
        2. x
    """
    guidelines = "\n".join([spec.instruction, "", *(f"- {label.name}: {label.description}" for label in spec.labels)])
    settings = {
        "guidelines": guidelines,
        "questions": [
            {
                "name": ANSWER,
                "title": "Which label fits?",
                "required": True,
                "settings": {
                    "type": "label_selection",
                    "options": [{"value": label, "text": label} for label in spec.label_names],
                },
            }
        ],
        "fields": [_argilla_field("text"), _argilla_field("candidates")],
        "vectors": [],
        "metadata": [{"name": "why", "settings": {"type": "terms"}, "visible_for_annotators": False}],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }
    records = [_argilla_record(row) for row in chosen.iter_rows(named=True)]
    dataset = {"name": name, "status": "draft", "guidelines": guidelines, "allow_extra_metadata": False}
    files = {"records.json": records, ".argilla/settings.json": settings, ".argilla/dataset.json": dataset}
    return {path: json.dumps(value, ensure_ascii=False, indent=1).encode() for path, value in files.items()}


def _argilla_field(name: str) -> dict[str, Any]:
    return {"name": name, "title": name, "required": True, "settings": {"type": "text", "use_markdown": False}}


def _argilla_record(row: Mapping[str, Any]) -> dict[str, Any]:
    numbered = [f"{place}. {name}" for place, name in enumerate(row["candidates"], start=1)]
    return {
        "id": row["doc_id"],
        "fields": {"text": row["text"], "candidates": "\n".join(numbered) or "any label"},
        "metadata": {"why": row["why"]},
        "suggestions": {},
        "responses": {},
        "vectors": {},
    }


def read_answers(data: bytes, name: str) -> list[Answer]:
    r"""Answers out of a file: CSV, JSON lines, or JSON as Label Studio and Argilla export it.

    Several people may have answered one text, each a row. In JSON lines a later line about a text replaces an earlier
    one. Skipped texts, drafts and discarded records are passed over.

    Args:
        data: the file's bytes.
        name: its name, whose ending tells CSV and JSON apart.

    Raises:
        ReviewError: no such format, or a file that is not what its ending says.

    Example:
        >>> read_answers(b'doc_id,label\na,spam\nb,\n', "answers.csv")
        [Answer(doc_id='a', text=None, label='spam', why=None)]
    """
    thing, ending = f"answers {name}", name.rpartition(".")[2].casefold()
    if ending in ("csv", "tsv"):
        found = [_from_row(row) for row in _said_by_people(_csv_rows(data, thing), thing)]
    elif ending == "jsonl":
        lines = _said_by_people(_json_lines(data, thing), thing)
        latest = {answer.doc_id or answer.text: answer for answer in map(_from_row, lines)}
        found = list(latest.values())
    elif ending == "json":
        found = [answer for item in _json_items(data, thing) for answer in _from_item(item)]
    else:
        raise ReviewError(thing, f"the ending {ending!r}", "csv, tsv, json or jsonl", "name it by what it holds")
    return [answer for answer in found if answer.label is not None and (answer.doc_id or answer.text)]


def _said_by_people(rows: Iterable[Any], thing: str) -> Iterator[Any]:
    """The same rows, but no file of final labels: taken as answers they would praise themselves."""
    for row in rows:
        if isinstance(row, dict) and "needs_review" in row:
            step = "write one for people to fill in with `candist review export`"
            raise ReviewError(thing, "labels that candist gave (`candist labels`)", "answers of people", step)
        yield row


def _csv_rows(data: bytes, thing: str) -> list[dict[str, Any]]:
    try:
        head = data.decode("utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=head.count)
        frame = pl.read_csv(BytesIO(data), separator=separator, infer_schema=False)
    except (UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        found = "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else "rows that cannot be read"
        raise ReviewError(thing, found, "CSV in UTF-8", "save it as CSV UTF-8 again") from error
    if ANSWER not in frame.columns or not {"doc_id", "text"} & set(frame.columns):
        shown = ", ".join(frame.columns[:20])
        raise ReviewError(thing, f"the columns {shown}", f"doc_id or text, and {ANSWER}", "name the columns so")
    return frame.to_dicts()


def _json_lines(data: bytes, thing: str) -> list[dict[str, Any]]:
    rows = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            # A process that was killed while it wrote leaves half a line at the end.
            if number == len(lines):
                break
            raise ReviewError(f"{thing}, line {number}", "no JSON", "an object a line", "correct that line") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _json_items(data: bytes, thing: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ReviewError(thing, "no JSON", "an export of Label Studio or Argilla", "export it again") from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ReviewError(
            thing, "something else", "a list of tasks or records", "export it as JSON, JSON-MIN or with to_json"
        )
    return value


def _from_item(item: Mapping[str, Any]) -> list[Answer]:
    """The answers in one task of Label Studio, one record of Argilla, or one flat object."""
    if isinstance(item.get("data"), dict) and isinstance(item.get("annotations"), list):
        return [_answer(item["data"], label) for label in _annotated(item["annotations"])]
    if isinstance(item.get("fields"), dict):
        record = {**item["fields"], **(item.get("metadata") or {}), "doc_id": item.get("id")}
        is_done = item.get("status") in (None, "completed")
        given = (item.get("responses") or {}).get(ANSWER) or []
        return [_answer(record, response.get("value")) for response in given if is_done and isinstance(response, dict)]
    if _RESPONSES in item:
        values = item[_RESPONSES] or []
        states = item.get(f"{_RESPONSES}.status") or ["submitted"] * len(values)
        record = {"doc_id": item.get("id"), **item}
        return [_answer(record, value) for value, state in zip(values, states, strict=False) if state == "submitted"]
    return [_from_row(item)]


def _annotated(annotations: Sequence[Any]) -> list[object]:
    """The first choice of each annotation that was not skipped."""
    labels: list[object] = []
    for annotation in annotations:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        results = [result for result in annotation.get("result") or [] if isinstance(result, dict)]
        labels += [
            (result.get("value") or {}).get("choices")
            for result in results
            if result.get("type") == "choices" and result.get("from_name", ANSWER) == ANSWER
        ]
    return labels


def _from_row(row: Mapping[str, Any]) -> Answer:
    return _answer(row, row.get(ANSWER))


def _answer(row: Mapping[str, Any], value: object) -> Answer:
    doc_id, text, why = (_text(row.get(name)) for name in ("doc_id", "text", "why"))
    # A list holds one choice, or says less than a label.
    label = value[0] if isinstance(value, list) and len(value) == 1 else value
    named = label.strip() if isinstance(label, str) else ""
    return Answer(doc_id, text, named or None, why)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
