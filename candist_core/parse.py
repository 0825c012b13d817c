"""From a raw reply to a candidate set. Total: no reply, however odd, raises, and none takes long.

The answer is, in this order: a reply that is JSON as a whole; the last JSON object or list with an answer in it, where
values with nothing but commas between them are one answer; names written whole in JSON that is broken or cut; lines,
and parts of lines between commas, that are a label. What a reasoning model thought first (`<think>`) is no answer.

A label may stand in another case, with spaces for underscores, in quotes or numbered; a name that is no label is
dropped. A reply that names only such, or nothing readable, is `unparsed`; one that says "none" in any of these forms
is `abstained`. A label to which the reply says no is not named by it; where labels are keys, words behind them that are
neither yes, no nor a number leave the reply `unparsed`. Invariant: only known labels come out, each once, and equal
replies give equal sets.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from candist_core.candidates import CandidateSet, Status
from candist_core.names import MAX_NAME, Names, loosen, names_of, says_none, weight_of
from candist_core.spec import TaskSpec

_REFUSED_REASONS = frozenset({"content_filter", "refusal", "safety"})
_CUT_REASONS = frozenset({"length", "max_tokens"})
_REFUSALS = re.compile(
    r"^\W*(?:i['\u2019]?m sorry|sorry,|i apologi[sz]e\b|as an ai\b|i must decline\b"
    r"|(?:unfortunately,? )?i (?:cannot|can['\u2019]?t|can not|am unable|won['\u2019]?t|am not able)\b"
    r"|i['\u2019]m (?:unable|not able)\b)",
    re.IGNORECASE,
)
_ANSWER_KEYS = (
    "candidates", "labels", "label", "answer", "final_answer", "categories", "category", "classes", "class",
    "predictions", "prediction",
)  # fmt: skip
_SCORE_KEYS = ("score", "confidence", "probability")
# Under these an object says of its label whether it is meant; "answer" where the label stands under another key.
_VERDICT_KEYS = (
    "applies", "applicable", "possible", "plausible", "likely", "include", "included", "match", "matches", "fits",
    "relevant", "selected", "present", "correct", "valid", "answer",
)  # fmt: skip

_THOUGHT = r"(?:[a-z]{1,12}:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)\s{0,3}>"
# Tags of DeepSeek and Qwen, of Magistral, of Kimi, and of OpenAI's open-weight models.
_THOUGHT_START = re.compile(rf"<{_THOUGHT}|\[THINK\]|\u25c1think\u25b7|<\|channel\|>analysis", re.IGNORECASE)
_THOUGHT_END = re.compile(rf"</{_THOUGHT}|\[/THINK\]|\u25c1/think\u25b7|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_THOUGHT_VALUE = re.compile(
    r'"(?:reasoning|reason|rationale|thoughts?|thinking|analysis|explanation)"\s*:\s*"(?:[^"\\]|\\.)*(?:"|\\?$)',
    re.IGNORECASE | re.DOTALL,
)

_OBJECT_OR_LIST = re.compile(r"\{\s*(?=[\"'}])|\[\s*(?=[\"'{\[\]]|null|-?\d)")
_UNREAD_JSON = re.compile(r"[{\[]\s*[\"']")
_KEY_BEFORE = re.compile(r'"([^"]{0,40})"\s{0,9}:\s{0,9}\Z')
_FENCE = re.compile(r"```[a-z]*\s*([{\[\"].*)```", re.IGNORECASE | re.DOTALL)
_OPEN_ANSWER = re.compile(
    rf"[\"'\u201c]?\b(?:{'|'.join(_ANSWER_KEYS)})\b[\"'\u201d]?\s*[:=]\s*(?=[\"'\u201c\[])", re.IGNORECASE
)
# No label is longer than 200 characters; the bound also keeps the search linear.
_QUOTED = re.compile(
    r"""(?:("(?:[^"\\\n]|\\.){0,250}")|'((?:[^'\\\n]|\\.){0,250})'|\u201c([^\u201d\n]{0,250})\u201d)(?!\s{0,9}:)|(\])"""
)
_LEAD = re.compile(
    r"^[\s*_#>`\"]*(?:my |the )?(?:best |final |correct )?(?:labels?|answers?|candidates?|category)[\s*_`\"]*"
    r"(?::|\bis\b|\bare\b)[\s*_`]*",
    re.IGNORECASE,
)
_COMMAS, _WORDS_BETWEEN = re.compile("[,;|]"), re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]{0,40}>", re.IGNORECASE)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)

# Bounds on work, in characters. An answer is short; what makes a reply long is prose before it or a loop after it, so
# its beginning and its end are read. Whole JSON is read to the end of what any model can write.
_MAX_WHOLE, _MAX_SEARCHED, _MAX_PROSE, _MAX_OPEN = 1_000_000, 100_000, 20_000, 10_000
_MAX_ITEMS, _MAX_FAILED_STARTS, _MAX_DEPTH, _MAX_NESTING = 1_000, 32, 8, 64

_decoder = json.JSONDecoder(strict=False)
Items = list[tuple[str, float | None]]


def parse_reply(spec: TaskSpec, reply: str, finish_reason: str = "stop") -> CandidateSet:
    """Read the labels out of one reply.

    Args:
        spec: the task; its labels are the only ones that can come out.
        reply: the raw text of the reply.
        finish_reason: the endpoint's word for how the reply ended. After `length` what was named whole counts.

    Example:
        >>> spec = TaskSpec(labels=[{"name": "slow_speed"}, {"name": "outage"}])
        >>> parse_reply(spec, 'Sure: {"candidates": ["Outage", "slow speed", "weather"]}').labels
        ('outage', 'slow_speed')
        >>> parse_reply(spec, '{"candidates": []}').status.value
        'abstained'
        >>> parse_reply(spec, '<think>"outage"? no</think>{"candidates": ["slow_spe', "length").status.value
        'unparsed'
    """
    if finish_reason.casefold() in _REFUSED_REASONS:
        return CandidateSet(status=Status.REFUSED)
    names = names_of(spec.label_names)
    text = reply.strip("\ufeff \t\r\n")
    items = _whole_answer(text, names)
    if items is None:
        text = _shallow(_shortened(_without_thoughts(text), _MAX_SEARCHED))
        is_cut = finish_reason.casefold() in _CUT_REASONS and reply[-1:].isalnum()
        items = _searched_answer(text.strip(), names, is_cut)
    if items is None:
        return CandidateSet(status=Status.REFUSED if _REFUSALS.match(text) else Status.UNPARSED)
    return _to_set(items[:_MAX_ITEMS], names)


def _to_set(items: Items, names: Names) -> CandidateSet:
    found: dict[str, float | None] = {}
    for name, score in items:
        if (label := names.resolve(name)) is not None and not names.denies(name):
            found.setdefault(label, score)
    if not found:
        is_none = all(says_none(name) for name, _ in items)
        return CandidateSet(status=Status.ABSTAINED if is_none else Status.UNPARSED)
    scores = tuple(score for score in found.values() if score is not None)
    return CandidateSet(tuple(found), scores if len(scores) == len(found) else None, Status.OK)


def _whole_answer(text: str, names: Names) -> Items | None:
    """The answer of a reply that is JSON and nothing else, in a code fence or as a JSON string if need be."""
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    if len(text) > _MAX_WHOLE or text[:1] not in ("{", "[", '"'):
        return None
    value = _decode(text)
    return _answer_in(_decode(value) if isinstance(value, str) else value, names)


def _searched_answer(text: str, names: Names, is_cut: bool) -> Items | None:
    """The answer of a reply that holds JSON somewhere, or none at all."""
    answer, rest = _last_answer(text, names)
    if answer is None:
        answer = _open_answer(_THOUGHT_VALUE.sub("", text), names)
    if answer is None:
        answer = [(name, None) for name in _names_in(_shortened(rest, _MAX_PROSE), names, is_cut)] or None
    return answer


def _without_thoughts(text: str) -> str:
    """What follows the last thought, else what stands before the first; some endpoints leave out the opening tag."""
    starts = [match.start() for match in _THOUGHT_START.finditer(text)]
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    if not starts and not ends:
        return text
    is_opened = bool(starts) and (not ends or starts[0] < ends[0])
    before = text[: starts[0]] if is_opened else ""
    end = ends[-1] if ends else len(text)
    after = text[end : next((start for start in starts if start >= end), None)]
    return after if after.strip() else before


def _shortened(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else f"{text[: n_chars // 2]}\n{text[-n_chars // 2 :]}"


def _shallow(text: str) -> str:
    """The text up to where it nests deeper than any answer does, which is where a model began to loop.

    Without a bound of our own, what can be read would hang on how much of Python's stack the caller has used.
    """
    if text.count("[") + text.count("{") <= _MAX_NESTING:
        return text
    depth = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match[0] in "[{" else max(depth - (match[0] in "]}"), 0)
        if depth > _MAX_NESTING:
            return text[: match.start()]
    return text


def _decode(text: str) -> Any:
    """The text as JSON, None where it is none or nests deeper than any answer does."""
    if len(_shallow(text)) < len(text):
        return None
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def _last_answer(text: str, names: Names) -> tuple[Items | None, str]:
    """The items of the last answer that stands in the text as JSON, and the text without whole JSON."""
    answer: Items | None = None
    is_keyed, answer_end, position = False, 0, 0
    rest: list[str] = []
    for start, end, value in _json_values(text):
        rest.append(text[position:start])
        position = end
        items, has_key = _answer_in(value, names), isinstance(value, dict)
        if items is None or not (has_key or _is_answer(items, text, start, names)):
            continue
        if answer is not None and has_key == is_keyed and not text[answer_end:start].strip(" \t\r\n,;"):
            answer += items
            answer_end = end
        elif has_key or not is_keyed:
            answer, answer_end, is_keyed = items, end, has_key
    return answer, "\n".join([*rest, text[position:]])


def _is_answer(items: Items, text: str, start: int, names: Names) -> bool:
    """Whether a list is an answer: it names a label, as the number of a footnote does not, and is no step to one."""
    key = _KEY_BEFORE.search(text, max(0, start - 60), start)
    is_another = key is not None and key[1].casefold() not in _ANSWER_KEYS
    return not is_another and any(names.resolve(name) for name, _ in items)


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """Start, end and value of each JSON object or list, outermost only; past many failures the last starts alone."""
    starts = [match.start() for match in _OBJECT_OR_LIST.finditer(text)]
    position = n_failed = i = 0
    while i < len(starts):
        start = starts[i]
        i += 1
        if start < position:
            continue
        try:
            value, position = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            n_failed += 1
            if n_failed == _MAX_FAILED_STARTS:
                i = max(i, len(starts) - _MAX_FAILED_STARTS)
            continue
        yield start, position, value


def _answer_in(value: Any, names: Names, depth: int = 0) -> Items | None:
    """The (name, score) pairs that a JSON value holds; None when it is no answer at all."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return _listed(value, names, depth)
    if not isinstance(value, dict):
        return None
    lowered = {str(key).casefold(): inner for key, inner in value.items()}
    for key in _ANSWER_KEYS:
        if key in lowered:
            if not isinstance(lowered[key], dict | list) and _is_denied(lowered, names, key):
                return []
            score = next((lowered[name] for name in _SCORE_KEYS if name in lowered), None)
            return _named(lowered[key], names, depth, _finite(score))
    if value and all(names.resolve(str(key)) for key in value):
        return _weighed(value, names)
    wrapped = (_wrapped(inner, names, depth + 1) for inner in value.values())
    return next((items for items in wrapped if items is not None), None)


def _wrapped(value: Any, names: Names, depth: int) -> Items | None:
    """The answer under a key that is no answer key: only an object with such a key, or several in a list."""
    if not isinstance(value, list) or depth > _MAX_DEPTH:
        return _answer_in(value, names, depth) if isinstance(value, dict) else None
    answers = [items for entry in value if (items := _wrapped(entry, names, depth + 1)) is not None]
    return [item for items in answers for item in items] if answers else None


def _named(value: Any, names: Names, depth: int, score: float | None = None) -> Items | None:
    """What stands behind an answer key."""
    if value is None:
        return []
    if isinstance(value, dict):
        inner = _answer_in(value, names, depth + 1)
        return inner if inner is not None else _weighed(value, names)
    if isinstance(value, list):
        return _listed(value, names, depth)
    if isinstance(value, str) and (names.resolve(value) is None or names.denies(value)):
        if value[:1] in ("[", "{") and (decoded := _decode(value)) is not None:
            return _answer_in(decoded, names, depth + 1)
        return [(name, None) for name in _names_in(value[:MAX_NAME], names)] or [(value, None)]
    return [(str(value), score)]


def _listed(values: Iterable[Any], names: Names, depth: int) -> Items:
    items: Items = []
    for entry in values:
        if isinstance(entry, dict | list):
            inner = _answer_in(entry, names, depth + 1)
            items += [("?", None)] if inner is None else inner
        elif entry is not None:
            items.append((str(entry), None))
        if len(items) >= _MAX_ITEMS:
            break
    return items


def _weighed(scores: dict[str, Any], names: Names) -> Items:
    """{"outage": 0.7, "slow_speed": 0}: names as keys; a weight of nothing, or a no, names nothing."""
    items: Items = []
    for name, said in scores.items():
        weight = _weight(said, names)
        if weight is None and names.resolve(str(name)) is not None:
            # "low", "maybe": the order of the keys would pass for an answer.
            return [("?", None)]
        if weight is None or weight:
            items.append((str(name), None if weight is None or weight is True else weight))
    return sorted(items, key=lambda item: -(item[1] or 0.0))


def _weight(said: Any, names: Names) -> bool | float | None:
    """What is said of a label: a number, True for a plain yes, False for a no, None for words that are neither."""
    if isinstance(said, str):
        return weight_of(said)
    if isinstance(said, dict):
        fields = {str(key).casefold(): inner for key, inner in said.items()}
        if _is_denied(fields, names):
            return False
        said = next((fields[name] for name in _SCORE_KEYS if name in fields), True)
    elif said is None or said is False:
        return False
    number = _finite(said)
    return True if number is None else number


def _is_denied(fields: dict[str, Any], names: Names, label_key: str = "") -> bool:
    """Whether an object says of its label that it is not meant."""
    for key in _VERDICT_KEYS:
        said = fields.get(key)
        if key == label_key or not isinstance(said, bool | int | float | str):
            continue
        weight = None if isinstance(said, str) and names.resolve(said) else _weight(said, names)
        if weight is not None and not weight:
            return True
    return False


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e6 and math.isfinite(value) else None


def _open_answer(text: str, names: Names) -> Items | None:
    """Quoted names behind the last answer key of JSON that does not parse, or of a list that was cut."""
    begin = 0 if text.startswith("[") else None
    for match in _OPEN_ANSWER.finditer(text):
        begin = match.end()
    if begin is None:
        return None
    items: Items = []
    for quoted in _QUOTED.finditer(text, begin, begin + _MAX_OPEN):
        double, single, curly, closing = quoted.groups()
        if closing is None:
            items.append((_decode(double) or double[1:-1] if double else single or curly or "", None))
        elif not items:
            return items
        if closing or text[begin] != "[":
            break
    return items if any(names.resolve(name) for name, _ in items) else None


def _names_in(prose: str, names: Names, is_cut: bool = False) -> list[str]:
    """Names written as lines or between commas: after the last "answer:" if there are some, else anywhere."""
    if found := _UNREAD_JSON.search(prose):
        prose, is_cut = prose[: found.start()], False
    lines = _TAG.sub("\n", prose.replace("\\boxed", " ")).splitlines()
    leads = [i for i, line in enumerate(lines) if _LEAD.match(line)]
    for begin in dict.fromkeys([*leads[-1:], 0]):
        pieces = [piece for line in lines[begin:] for piece in _pieces(_LEAD.sub("", line), names)]
        if is_cut and pieces and _may_go_on(pieces[-1], names):
            pieces.pop()
        if named := [piece for piece in pieces if names.resolve(piece) or (says_none(piece) and piece.strip())]:
            return named
    return []


def _pieces(line: str, names: Names) -> Iterator[str]:
    """The parts of a line that may be names; a label may itself hold a comma or an "and"."""
    if names.resolve(line) is not None and not names.denies(line):
        yield line
        return
    for part in _COMMAS.split(line):
        yield from [part] if names.resolve(part) is not None else _WORDS_BETWEEN.split(part)


def _may_go_on(piece: str, names: Names) -> bool:
    """Whether a piece at the end of a cut reply may be the beginning of a longer label."""
    begun = loosen(piece)
    return any(label != begun and label.startswith(begun) for label in map(loosen, names.exact))
