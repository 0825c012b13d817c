"""What is to be labelled: the labels, their order, and how the teacher is asked.

The order of `labels` is the order of the columns of every (n, k) matrix.
Invariant: two equal specs have equal fingerprints, on every machine.
"""

import json
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_WORDS = {
    "api": "API",
    "env": "variable",
    "id": "id",
    "lora": "LoRA",
    "n": "number",
    "psi": "PSI",
    "s": "(seconds)",
    "uri": "path or URL",
    "url": "URL",
    "usd": "US dollars",
}


def titled(name: str, _: Any = None) -> str:
    """What a setting is called in a form.

    Example:
        >>> titled("timeout_s"), titled("max_usd"), titled("uri")
        ('Timeout (seconds)', 'Max US dollars', 'Path or URL')
    """
    words = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


class Settings(BaseModel):
    """Base of everything a user may set: frozen, unknown keys refused, each with a title for the form."""

    model_config = ConfigDict(frozen=True, extra="forbid", field_title_generator=titled)


class Strategy(StrEnum):
    """How the teacher is asked for labels (CanDist, tables 1 and 5)."""

    SA = "sa"
    CA_ADD = "ca_add"
    CA_ALL = "ca_all"


class LabelSpec(Settings):
    """One label."""

    name: str = Field(min_length=1, max_length=200, description="Name of the label, as it stands in the data.")
    description: str = Field("", max_length=2000, description="What the label means, in one sentence, for the teacher.")
    examples: tuple[str, ...] = Field((), description="Texts that plainly carry this label.")


class TaskSpec(Settings):
    """The labelling task: instruction, labels in order, strategy.

    Example:
        >>> spec = TaskSpec(labels=[LabelSpec(name="spam"), LabelSpec(name="ham")])
        >>> spec.label_names
        ('spam', 'ham')
    """

    instruction: str = Field(
        "Each text is to be sorted into one of the labels.",
        min_length=1,
        max_length=20_000,
        description="One paragraph for the teacher: what the texts are and what the labels sort them by.",
    )
    labels: tuple[LabelSpec, ...] = Field(
        description="The labels, at least two, each with a name and a description.",
        # For the form alone; the sentence of the validator below tells more.
        json_schema_extra={"minItems": 2},
    )
    strategy: Strategy = Field(
        Strategy.CA_ADD,
        description="sa: one label a text. ca_add: one label, and others only when unsure. ca_all: all that may apply.",
    )
    max_candidates: int = Field(5, ge=1, le=100, description="Labels in a candidate set, at most.")

    @model_validator(mode="after")
    def _labels_are_usable(self) -> Self:
        names = [label.name.strip() for label in self.labels]
        if len(names) < 2:
            raise ValueError(f"found {len(names)} label(s), wanted at least 2; add labels under task.labels")
        seen: dict[str, str] = {}
        for name in names:
            if not name:
                raise ValueError("found a blank label name, wanted a name; name it or remove it under task.labels")
            if (other := seen.get(name.casefold())) is not None:
                raise ValueError(
                    f"found the label {name!r} twice (as {other!r}), wanted names that differ by more than case; "
                    "remove one under task.labels"
                )
            seen[name.casefold()] = name
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names in column order, k of them."""
        return tuple(label.name for label in self.labels)

    @property
    def fingerprint(self) -> str:
        """BLAKE2b-128 of the canonical JSON, 32 hex digits."""
        return fingerprint(self.model_dump(mode="json"))


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spare space: equal values, equal text.

    Example:
        >>> canonical_json({"b": 1, "a": "é"})
        '{"a":"é","b":1}'
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def fingerprint(value: object) -> str:
    """BLAKE2b-128 of a value's canonical JSON, 32 hex digits."""
    return blake2b(canonical_json(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
