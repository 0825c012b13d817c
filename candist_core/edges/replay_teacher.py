"""A teacher that answers from recorded replies: JSON lines of `id` and `reply`, at no cost.

A reply is found by `request_key` where its line has one, else by `id`, the row's doc_id.
Invariant: the recording's bytes fix every answer, so the model's name is a hash of them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from candist_core.errors import RowError, TeacherError
from candist_core.ports import Reply, Request


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded replies, by doc_id and by request key."""

    by_id: Mapping[str, str]
    by_key: Mapping[str, str]


class ReplayTeacher:
    """Answers each request with the reply that was recorded for it."""

    def __init__(self, recording: Recording, model: str) -> None:
        self._recording, self._model = recording, model

    @property
    def name(self) -> str:
        """`replay:` and the recording's hash."""
        return self._model

    async def ask(self, request: Request) -> Reply:
        """The recorded reply.

        Raises:
            RowError: none was recorded for this request.
        """
        text = self._recording.by_key.get(request.key)
        if text is None:
            text = self._recording.by_id.get(request.doc_id)
        if text is None:
            raise RowError("no recorded reply", f"the recording has no line for id {request.doc_id!r}")
        return Reply(request.key, request.doc_id, text, "stop", cost_usd=0.0)

    async def close(self) -> None:
        """Nothing is open."""

    def missing_replies(self, doc_ids: Iterable[str]) -> list[str]:
        """The doc_ids without a line of their own, in their order.

        Example:
            >>> ReplayTeacher(Recording({"a": "spam"}, {}), "replay:0").missing_replies(["a", "b"])
            ['b']
        """
        return [doc_id for doc_id in doc_ids if doc_id not in self._recording.by_id]


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
        >>> read_replies(b'{"id": "a", "reply": "spam"}', "replies.jsonl").by_id
        {'a': 'spam'}
    """
    by_id: dict[str, str] = {}
    by_key: dict[str, str] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        doc_id, key, reply = _read_line(line, f"recorded replies {uri}, line {number}")
        if key is not None:
            by_key.setdefault(key, reply)
        elif by_id.get(doc_id, reply) != reply:
            found = f"a second, different reply for id {doc_id!r}"
            raise TeacherError(f"recorded replies {uri}, line {number}", found, "one a text", "remove one of the two")
        by_id.setdefault(doc_id, reply)
    if not by_id:
        raise TeacherError(f"recorded replies {uri}", "no line", "JSON lines of id and reply", "record some first")
    return Recording(by_id, by_key)


def _read_line(line: bytes, thing: str) -> tuple[str, str | None, str]:
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
    for name in ("id", "reply", *(["request_key"] if "request_key" in fields else [])):
        if not isinstance(fields.get(name), str):
            found = f"{name} of type {type(fields[name]).__name__}" if name in fields else f"no {name}"
            raise TeacherError(thing, found, '{"id": ..., "reply": ...} with texts', "mend that line")
    reply = str(fields["reply"]).encode("utf-8", "replace").decode()
    return str(fields["id"]), fields.get("request_key"), reply
