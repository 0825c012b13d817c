"""Table contracts: which columns a stage promises to the next.

A frame that passes `check` has the contract's columns with their types, no null where
none is allowed, and unique keys. A table crosses a stage border as a `TableRef`, never as a frame.
"""

from dataclasses import dataclass

import polars as pl

from candist_core.errors import ContractError


@dataclass(frozen=True, slots=True)
class TableRef:
    """A stored table. `uri` is relative to its store, `sha256` is of the file's bytes."""

    uri: str
    contract: str
    rows: int
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contract:
    """Name, version and columns of a table; `is_open` lets the user's own columns stand beside them."""

    name: str
    columns: dict[str, pl.DataType]
    key: str | None = None
    nullable: frozenset[str] = frozenset()
    is_open: bool = False


_STR, _F32, _I64 = pl.String(), pl.Float32(), pl.Int64()
_LABELS = pl.List(pl.String())

EXAMPLES = Contract(
    "examples/1",
    # `same_as` is the doc_id of the first row with the same text: the row whose labels this row shares.
    {"doc_id": _STR, "text": _STR, "split": _STR, "gold": _STR, "same_as": _STR},
    key="doc_id",
    nullable=frozenset({"split", "gold"}),
    is_open=True,
)
TEXTS = Contract("texts/1", {"doc_id": _STR, "text": _STR}, key="doc_id")
ANNOTATIONS = Contract(
    "annotations/1",
    {
        "doc_id": _STR,
        "candidates": _LABELS,
        "scores": pl.List(_F32),
        "status": _STR,
        "teacher": _STR,
        "request_key": _STR,
    },
    key="doc_id",
    nullable=frozenset({"scores"}),
)
REPLIES = Contract(
    "replies/1",
    {
        "request_key": _STR,
        "doc_id": _STR,
        "reply": _STR,
        "finish_reason": _STR,
        "prompt_tokens": _I64,
        "cached_tokens": _I64,
        "completion_tokens": _I64,
        "cost_usd": pl.Float64(),
        "latency_s": pl.Float64(),
        "logprobs": _STR,
    },
    key="request_key",
    nullable=frozenset({"cost_usd", "logprobs"}),
)
REJECTS = Contract(
    "rejects/1",
    {"doc_id": _STR, "stage": _STR, "reason": _STR, "detail": _STR},
)
QUARANTINE = Contract("quarantine/1", {"doc_id": _STR, "check": _STR, "value": _STR, "on_fail": _STR})
"""Rows at fault behind failed checks, a row once for each check that it breaks; `value` is what stands in it."""
DROPPED = Contract("dropped/1", {"doc_id": _STR, "check": _STR, "value": _STR}, key="doc_id")
"""Rows that a person has decided to leave out."""
BELIEFS = Contract("beliefs/1", {"doc_id": _STR, "belief": pl.List(_F32)}, key="doc_id")
"""What a student that never saw a text's answer believes about it: a probability for each label of the task."""
REVIEWED = Contract("reviewed/1", {"doc_id": _STR, "label": _STR, "is_random": pl.Boolean()}, key="doc_id")
"""Labels that a person gave; only texts drawn at random measure."""
LABELS = Contract(
    "labels/1",
    {
        "doc_id": _STR,
        "label": _STR,
        "confidence": _F32,
        "candidates": _LABELS,
        "teacher_label": _STR,
        "source": _STR,
        "needs_review": pl.Boolean(),
        "reason": _STR,
    },
    key="doc_id",
    nullable=frozenset({"teacher_label", "reason"}),
)
CONTRACTS = {
    contract.name: contract
    for contract in (EXAMPLES, TEXTS, ANNOTATIONS, REPLIES, REJECTS, QUARANTINE, DROPPED, BELIEFS, REVIEWED, LABELS)
}
"""Every contract by its name; the name carries the version."""


def check(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Return the frame with the contract's columns first, or say where it breaks the contract.

    Raises:
        ContractError: a column is missing, extra, of another type, null where it may not be, or a key stands twice.

    Example:
        >>> check(pl.DataFrame({"doc_id": ["a"], "text": ["hello"]}), TEXTS).columns
        ['doc_id', 'text']
    """
    for name, dtype in contract.columns.items():
        if name not in frame.columns:
            raise ContractError(contract.name, f"no column {name!r}", f"{name!r} of type {dtype}")
        if frame.schema[name] != dtype:
            raise ContractError(contract.name, f"column {name!r} of type {frame.schema[name]}", str(dtype))
        if name not in contract.nullable and (n_null := frame[name].null_count()):
            raise ContractError(contract.name, f"{n_null} nulls in {name!r}", "none")
    extra = [name for name in frame.columns if name not in contract.columns]
    if extra and not contract.is_open:
        raise ContractError(contract.name, f"unknown columns {extra}", f"only {list(contract.columns)}")
    if contract.key is not None and frame[contract.key].n_unique() != frame.height:
        twice = frame[contract.key].filter(frame[contract.key].is_duplicated())
        raise ContractError(contract.name, f"{contract.key} {twice[0]!r} more than once", "each key once")
    return frame.select(*contract.columns, *extra)


def empty(contract: Contract) -> pl.DataFrame:
    """A frame of no rows that fulfils the contract."""
    return pl.DataFrame(schema=contract.columns)
