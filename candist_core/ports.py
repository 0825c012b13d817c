"""What the core asks of the world: a teacher that answers requests, a store that keeps tables.

Letters and units: tokens are counted by the endpoint, costs are US dollars, times are seconds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel

from candist_core.tables import Contract, TableRef

ReportT = TypeVar("ReportT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class PromptHead:
    """What every request of a run shares; built once, its fingerprint stands for it in each key.

    `turns` are earlier (user, assistant) exchanges: the examples shown to the teacher.
    """

    model: str
    system: str
    sampling: Mapping[str, float | int]
    response_format: Mapping[str, Any] | None
    fingerprint: str
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the teacher.

    `key` holds everything that can change the answer and nothing else: same key, same reply, paid once.
    `doc_id` names the first row that asks it and `text` is its bare text; neither is sent beside `user`.
    `turns` are (user, assistant) exchanges of this request alone, after those of its head.
    """

    key: str
    doc_id: str
    text: str
    user: str
    head: PromptHead
    sample: int = 0
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One raw answer, as paid for, before any parsing.

    `cost_usd` is None where no price is known. `logprobs` is a JSON list of [token, log-probability], where asked for.
    """

    request_key: str
    doc_id: str
    reply: str
    finish_reason: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    latency_s: float = 0.0
    logprobs: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What an endpoint said of one of its limits: `remaining` of `limit` left, whole again in `reset_s` seconds."""

    limit: float
    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits that stood beside the last answer, of requests and of tokens; None where nothing was said."""

    requests: Quota | None = None
    tokens: Quota | None = None


class Teacher(Protocol):
    """Answers requests. One teacher object belongs to one event loop and is closed once."""

    @property
    def name(self) -> str:
        """Which teacher, for the `teacher` column: kind and model, never a secret."""

    @property
    def quotas(self) -> Quotas:
        """The limits that the endpoint told of last."""

    async def ask(self, request: Request) -> Reply:
        """Answer one request, sent once: retries and pacing are the caller's.

        Raises:
            RateLimitedError: slow down; `retry_after_s` where the endpoint said so.
            TransientError: the same request may succeed later.
            RowError: this request never will; the row becomes a reject.
            TeacherError: no request ever will; the run stops.
        """

    async def close(self, is_kept: bool = True) -> None:
        """Release connections. Unless every reply given is kept, remove nothing that could bring one again."""


class RateLimit(Protocol):
    """Requests and tokens a minute, shared with whoever else draws on the same limit."""

    async def take(self, n_tokens: int) -> float:
        """Take one request of so many tokens if the limit bears it now: 0.0; else nothing, and the seconds to wait."""

    def settle(self, n_tokens: int) -> None:
        """Note so many tokens more, as a reply needed them; below zero gives back. They go with the next `take`."""


ShareOf = Callable[[], float]
"""The part of a run's limits that one shard may use at this moment, in (0, 1]; read about twice a second.

0.0 once nobody waits for this shard any more: send nothing, flush, leave the rest.
"""


class ReplyLog(Protocol):
    """Keeps every reply that was paid for."""

    @property
    def has_any(self) -> bool:
        """Whether any reply was kept, whoever asked; as of the last lookup."""

    def lookup(self, keys: Iterable[str]) -> Mapping[str, Reply]:
        """Replies already kept, by request key."""

    def append(self, reply: Reply) -> None:
        """Keep one reply from now on, also past the death of this process."""

    def flush(self) -> None:
        """Bring what was appended into the store."""

    def close(self) -> None:
        """Flush for the last time and tidy up."""


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """X, (n, d) float32, rows of length one."""


class TableStore(Protocol):
    """Keeps tables, objects and done-markers under one root. Paths are relative and use `/`."""

    def write_table(self, path: str, frame: pl.DataFrame, contract: Contract) -> TableRef:
        """Check the frame, write it whole, read its size back, and say where it lies."""

    def read_table(self, ref: TableRef, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The table's rows, or only some of its columns."""

    def find_done(self, stage: str, key: str, report: type[ReportT]) -> ReportT | None:
        """The report that an earlier run left for these inputs, if its tables still stand."""

    def mark_done(self, stage: str, key: str, report: BaseModel) -> None:
        """Write the done-marker, last of all: everything that the report names is stored."""

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write one object whole."""

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write one object only if there is none yet; False when there was one."""

    def write_chunks(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write one object whole from a stream; nothing is written where the stream raises."""

    def read_bytes(self, path: str) -> bytes:
        """One object."""

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """One object in parts of a few megabytes."""

    def list_paths(self, prefix: str) -> list[str]:
        """Every object below a prefix, sorted; empty when there is none."""

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come. `done` and `total` count `unit`s; `note` is a short remark such as a loss."""

    stage: str
    part: str
    done: int
    total: int
    unit: str = "texts"
    cost_usd: float = 0.0
    note: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The `OnProgress` of someone who does not watch."""
