"""A teacher that answers from recorded replies: JSON lines of `id` and `reply`, at no cost.

A reply is found by `request_key` where its line has one, else by `id`, the row's doc_id, and `sample` (0 when there is
none). `finish_reason` ("stop") and `logprobs` (none) may stand beside it.
Invariant: the recording's bytes fix every answer, so the model's name is a hash of them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from candist_core.errors import RowError, TeacherError
from candist_core.ports import Quotas, Reply, Request


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded reply."""

    reply: str
    finish_reason: str = "stop"
    logprobs: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded replies, by doc_id and sample, and by request key."""

    by_id: Mapping[tuple[str, int], Recorded]
    by_key: Mapping[str, Recorded]


class ReplayTeacher:
    """Answers each request with the reply that was recorded for it."""

    def __init__(self, recording: Recording, model: str) -> None:
        self._recording, self._model = recording, model

    @property
    def name(self) -> str:
        """`replay:` and the recording's hash."""
        return self._model

    @property
    def quotas(self) -> Quotas:
        """None: nothing is asked over a network."""
        return Quotas()

    async def ask(self, request: Request) -> Reply:
        """The recorded reply.

        Raises:
            RowError: none was recorded for this request.
        """
        found = self._recording.by_key.get(request.key)
        if found is None:
            found = self._recording.by_id.get((request.doc_id, request.sample))
        if found is None:
            raise RowError("no recorded reply", f"the recording has no line for id {request.doc_id!r}")
        return Reply(
            request.key,
            request.doc_id,
            found.reply,
            found.finish_reason,
            cost_usd=0.0,
            logprobs=found.logprobs,
        )

    async def close(self, is_kept: bool = True) -> None:
        """Nothing is open."""

    def missing_replies(self, doc_ids: Iterable[str]) -> list[str]:
        """The doc_ids without a line of their own, in their order.

        Example:
            >>> ReplayTeacher(Recording({("a", 0): Recorded("spam")}, {}), "replay:0").missing_replies(["a", "b"])
            ['b']
        """
        return [doc_id for doc_id in doc_ids if (doc_id, 0) not in self._recording.by_id]


def replay_model(data: bytes) -> str:
    """The model's name for a recording: `replay:` and 16 hex digits of its hash.

    Example:
        >>> replay_model(b"")
        'replay:e4a6a0577479b2b4'
    """
    return f"replay:{blake2b(data, digest_size=8).hexdigest()}"


def read_replies(data: bytes, uri: str) -> Recording:
    """Read a recording line by line; blank lines are passed over.

    Args:
        data: the file's bytes.
        uri: its name, for errors.

    Raises:
        TeacherError: a line that is no JSON object with a text `reply` and an `id`, an id with two replies, no line.

    Example:
        >>> read_replies(b'{"id": "a", "reply": "spam"}', "replies.jsonl").by_id[("a", 0)].reply
        'spam'
    """
    by_id: dict[tuple[str, int], Recorded] = {}
    by_key: dict[str, Recorded] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        place, key, found = _read_line(line, f"recorded replies {uri}, line {number}")
        if key is not None:
            by_key.setdefault(key, found)
        elif by_id.get(place, found) != found:
            what = f"a second, different reply for id {place[0]!r}"
            raise TeacherError(f"recorded replies {uri}, line {number}", what, "one a text", "remove one of the two")
        by_id.setdefault(place, found)
    if not by_id:
        raise TeacherError(f"recorded replies {uri}", "no line", "JSON lines of id and reply", "record some first")
    return Recording(by_id, by_key)


def _read_line(line: bytes, thing: str) -> tuple[tuple[str, int], str | None, Recorded]:
    try:
        value: Any = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise TeacherError(
            thing, f"no JSON ({type(error).__name__})", '{"id": ..., "reply": ...}', "mend that line"
        ) from None
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    # Ids are texts in candist's tables, however the corpus writes them.
    if isinstance(number := fields.get("id"), int) and not isinstance(number, bool):
        fields["id"] = str(number)
    optional = [name for name in ("request_key", "finish_reason", "logprobs") if name in fields]
    for name in ("id", "reply", *optional):
        if not isinstance(fields.get(name), str):
            found = f"{name} of type {type(fields[name]).__name__}" if name in fields else f"no {name}"
            raise TeacherError(thing, found, '{"id": ..., "reply": ...} with texts', "mend that line")
    sample = fields.get("sample", 0)
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
        raise TeacherError(thing, f"sample {str(sample)[:20]!r}", "a number from 0 on", "mend that line")
    reply = str(fields["reply"]).encode("utf-8", "replace").decode()
    recorded = Recorded(reply, fields.get("finish_reason", "stop"), fields.get("logprobs"))
    return (str(fields["id"]), sample), fields.get("request_key"), recorded
