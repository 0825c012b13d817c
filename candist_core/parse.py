"""From a raw reply to a candidate set. Total: no reply, however odd, raises.

What is accepted: JSON of the asked form, JSON inside prose or a code fence, a bare list, a list written as lines or
with commas; labels in another case, with spaces for underscores, quoted or numbered. A name that is no label is
dropped; a reply that names none is `unparsed`. Invariant: only known labels come out, each once.
"""

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from candist_core.candidates import CandidateSet, Status
from candist_core.spec import TaskSpec

_REFUSED_REASONS = frozenset({"content_filter", "refusal"})
_REFUSALS = re.compile(
    r"^\W*(i['\u2019]?m sorry|sorry,|i (cannot|can['\u2019]?t|can not|am unable|won['\u2019]?t)\b)", re.IGNORECASE
)
_LIST_KEYS = ("candidates", "labels", "label", "answer", "categories", "category", "class")
_SCORE_KEYS = ("score", "confidence", "probability")
_NUMBERING = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):]|\(?[a-z][.)])\s+", re.IGNORECASE)
_LEAD = re.compile(
    r"^(?:the )?(?:best |final |correct )?(?:labels?|answers?|candidates?|category)\s*(?::|is|are)\s*", re.I
)
# A reply to a label question is short; what lies beyond is prose that no search needs to read.
_MAX_CHARS = 20_000
_MAX_JSON_STARTS = 32


def parse_reply(spec: TaskSpec, reply: str, finish_reason: str = "stop") -> CandidateSet:
    """Read the labels out of one reply.

    Args:
        spec: the task; its labels are the only ones that can come out.
        reply: the raw text of the reply.
        finish_reason: the endpoint's word for how the reply ended.

    Example:
        >>> spec = TaskSpec(labels=[{"name": "slow_speed"}, {"name": "outage"}])
        >>> parse_reply(spec, 'Sure: {"candidates": ["Outage", "slow speed", "weather"]}').labels
        ('outage', 'slow_speed')
        >>> parse_reply(spec, '{"candidates": []}').status.value
        'abstained'
    """
    if finish_reason in _REFUSED_REASONS:
        return CandidateSet(status=Status.REFUSED)
    text = reply[:_MAX_CHARS].strip()
    known = _lookup(spec.label_names)
    for value in _json_values(text):
        if (items := _items(value)) is not None:
            return _to_set(items, known)
    names = [piece for piece in _pieces(text) if _resolve(piece, known) is not None]
    if names:
        return _to_set([(name, None) for name in names], known)
    return CandidateSet(status=Status.REFUSED if _REFUSALS.match(text) else Status.UNPARSED)


Items = list[tuple[str, float | None]]


def _to_set(items: Items, known: dict[str, str]) -> CandidateSet:
    found: dict[str, float | None] = {}
    for name, score in items:
        if (label := _resolve(name, known)) is not None:
            found.setdefault(label, score)
    if not found:
        return CandidateSet(status=Status.UNPARSED if items else Status.ABSTAINED)
    scores = tuple(score for score in found.values() if score is not None)
    return CandidateSet(tuple(found), scores if len(scores) == len(found) else None, Status.OK)


@lru_cache(maxsize=64)
def _lookup(names: tuple[str, ...]) -> dict[str, str]:
    loose: dict[str, list[str]] = {}
    for name in names:
        loose.setdefault(_loosen(name), []).append(name)
    # Names that differ only by punctuation are told apart by their exact spelling alone.
    known = {key: found[0] for key, found in loose.items() if len(found) == 1}
    return known | {name: name for name in names}


def _loosen(name: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", name.casefold()).split())


def _resolve(name: str, known: dict[str, str]) -> str | None:
    if name in known:
        return known[name]
    bare = _NUMBERING.sub("", name)
    for spelling in (name, bare, bare.partition("(")[0], bare.partition(":")[0]):
        if (loose := _loosen(spelling)) and loose in known:
            return known[loose]
    return None


def _json_values(text: str) -> Iterator[Any]:
    """Values written in the text as JSON objects or lists, outermost first."""
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(_MAX_JSON_STARTS):
        starts = [at for at in (text.find("{", position), text.find("[", position)) if at >= 0]
        if not starts:
            return
        position = min(starts)
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        yield value


def _items(value: Any) -> Items | None:
    """The (name, score) pairs that a JSON value holds; None when it is no answer at all."""
    if isinstance(value, dict):
        lowered = {str(key).casefold(): inner for key, inner in value.items()}
        for key in _LIST_KEYS:
            if key in lowered:
                inner = lowered[key]
                score = next((lowered[name] for name in _SCORE_KEYS if name in lowered), None)
                return [(inner, _finite(score))] if isinstance(inner, str) else _items_of_list(inner)
        return None
    return _items_of_list(value) if isinstance(value, list) else None


def _items_of_list(value: Any) -> Items | None:
    if value is None:
        return []
    if isinstance(value, dict):
        # {"candidates": {"outage": 0.7}}: names as keys, scores as values.
        return [(str(name), _finite(score)) for name, score in value.items()]
    if not isinstance(value, list):
        return [(str(value), None)]
    items: Items = []
    for entry in value:
        if isinstance(entry, dict):
            items.extend(_items(entry) or [])
        elif entry is not None:
            items.append((str(entry), None))
    return items


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e6 and math.isfinite(value) else None


def _pieces(text: str) -> list[str]:
    """Lines, and parts of lines between commas, of a reply without JSON."""
    lines = [_LEAD.sub("", _NUMBERING.sub("", line).strip()) for line in text.splitlines()]
    return [piece for line in lines for piece in re.split(r"[,;|]| and ", line) if piece.strip()]
