"""Batches on paper: the lines of an input file, the lines of its results, and the records of batches under way.

A batch is a file of requests that a provider answers within a day, for half the price. Its `custom_id`s are request
keys. Invariant: before a batch can exist, its record stands in the store, so that whoever comes after a crash knows
what may be under way. Times are seconds, those of records since 1970.
"""

import json
import logging
from collections.abc import Container, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from candist_core.errors import StoreError
from candist_core.ports import TableStore

logger = logging.getLogger(__name__)

COMPLETIONS_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Result:
    """What a batch says of one request: the HTTP status and the JSON that a live request would have had."""

    status: int
    body: bytes

    @property
    def is_paid(self) -> bool:
        """Whether this is an answer; errors are free."""
        return 200 <= self.status < 300


class BatchRecord(BaseModel):
    """One batch: asked for under the name `intent`, with `batch_id` as soon as the provider has given it one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    intent: str = Field(min_length=1, max_length=64)
    endpoint: str
    input_sha256: str
    created_at: float = Field(allow_inf_nan=False)
    keys: tuple[str, ...]
    batch_id: str | None = Field(None, min_length=1, max_length=200)


@dataclass(frozen=True, slots=True)
class BatchPace:
    """How long a batch teacher waits.

    `quiet_s` without a new request closes a collection. Looks at a batch follow each other after `poll_s`, doubled each
    time up to `max_poll_s`; so do attempts at what fails for a while, and after `max_silence_s` they end. What a
    provider does not show `settle_s` after it was asked for was never made.
    """

    quiet_s: float = 0.5
    poll_s: float = 5.0
    max_poll_s: float = 60.0
    settle_s: float = 60.0
    max_silence_s: float = 3600.0

    def wait_s(self, n: int) -> float:
        """The n-th wait in a row, n from 1.

        Example:
            >>> [BatchPace().wait_s(n) for n in range(1, 7)]
            [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
        """
        # 2**30 times any wait is beyond any cap, and larger powers overflow a float.
        return float(min(self.max_poll_s, self.poll_s * 2 ** min(n - 1, 30)))


@dataclass(frozen=True, slots=True)
class BatchLedger:
    """Records in the store, each an object of its own: `batches/<fingerprint of the head>/<name>/<intent>.json`.

    New ones are written under `name`, the shard's; all that share the head are read, since another run may have cut
    the shards otherwise.
    """

    store: TableStore
    name: str

    def path_of(self, head: str, record: BatchRecord) -> str:
        """Where a new record goes."""
        return f"batches/{head}/{self.name}/{record.intent}.json"

    def write(self, path: str, record: BatchRecord) -> None:
        """Write a record; only when this returns may its batch be asked for."""
        # No create-only write is needed, nor had in every store: no two records share an intent.
        self.store.write_bytes(path, record.model_dump_json().encode())

    def read(self, path: str) -> BatchRecord | None:
        """One record; None when it is gone, or is none that this version wrote."""
        try:
            return BatchRecord.model_validate_json(self.store.read_bytes(path))
        except ValidationError:
            logger.warning("batch record %s cannot be read and is passed over", path)
            return None
        except StoreError as error:
            # Removed since it was listed, by a process that has all of its replies.
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def read_all(self, head: str) -> dict[str, BatchRecord]:
        """Every record of requests with this head, by path."""
        records = {path: self.read(path) for path in self.store.list_paths(f"batches/{head}")}
        return {path: record for path, record in records.items() if record is not None}

    def delete(self, paths: Iterable[str]) -> None:
        """Remove records; one that is gone already is no error."""
        self.store.delete(paths)


def input_line(key: str, body: bytes) -> bytes:
    r"""One line of a batch's input file.

    Args:
        key: the request's key, under which its result will come.
        body: the JSON of a chat-completions request.

    Source:
        OpenAI, Batch API reference, "The request input object".

    Example:
        >>> input_line("7f", b'{"model": "m"}')
        b'{"custom_id": "7f", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}\n'
    """
    head = {"custom_id": key, "method": "POST", "url": COMPLETIONS_PATH}
    return json.dumps(head)[:-1].encode() + b', "body": ' + body + b"}\n"


def count_fitting(sizes: Iterable[int], max_requests: int, max_bytes: int) -> int:
    """How many lines from the first on make one file within both limits; one line always does.

    Example:
        >>> count_fitting([40, 40, 40], max_requests=50_000, max_bytes=100)
        2
    """
    n = n_bytes = 0
    for size in sizes:
        n_bytes += size
        if n and (n >= max_requests or n_bytes > max_bytes):
            break
        n += 1
    return n


def read_results(data: bytes, keys: Container[str]) -> dict[str, Result]:
    """The results in an output or error file, by request key.

    A line without an HTTP answer, such as that of a request for which the day was too short, is as good as none; so
    is one that nobody can read, and one under a key that was not asked. Of two lines under one key the first counts.

    Source:
        OpenAI, Batch API reference, "The request output object".

    Example:
        >>> line = b'{"custom_id": "7f", "response": {"status_code": 200, "body": {"choices": []}}, "error": null}'
        >>> read_results(line, {"7f"})["7f"].status
        200
    """
    results: dict[str, Result] = {}
    for line in BytesIO(data):
        try:
            found = json.loads(line)
            key, response = found["custom_id"], found["response"]
            status, body = response["status_code"], response["body"]
        except (ValueError, RecursionError, LookupError, TypeError):
            continue
        if isinstance(key, str) and key in keys and isinstance(status, int):
            results.setdefault(key, Result(status, json.dumps(body).encode()))
    return results
