"""Chat completions on the wire: a request's JSON, an answer's reply, a failure's kind. No sockets here.

Bodies are written and read as JSON, since a client's own models cost more time than the request. Live and batch
requests share all of it. Invariant: the API key stands in no error, log or repr.
"""

import html
import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from candist_core.budget import Price, cost_usd
from candist_core.errors import CandistError, ForbiddenError, RateLimitedError, RowError, TeacherError, TransientError
from candist_core.ports import PromptHead, Quota, Quotas, Reply, Request
from candist_core.teacher_config import TeacherConfig

OPENAI_URL = "https://api.openai.com/v1"
_OPENAI_HOST = "api.openai.com"
_MAX_DETAIL_CHARS = 2000
# What of an error's body is read; and a shorter "key" is a word, such as the "none" that a server of one's own gets.
_MAX_ERROR_CHARS, _MIN_KEY_CHARS = 100_000, 8
# OpenAI's reasoning models take no temperature, and no model of theirs still needs max_tokens under that name.
_REASONING = re.compile(r"^(o\d|gpt-5(?!.*chat))")
_TOO_LONG, _FILTERED = "context_length_exceeded", "content_filter"
_ROW_REASONS = frozenset({_TOO_LONG, _FILTERED})
# Servers of one's own and gateways name no code. vLLM and SGLang: "context length", "maximum model length"; llama.cpp:
# "context size"; TGI: "`inputs` tokens", "`inputs` must have less than"; others: the rest.
_SAYS_TOO_LONG = re.compile(
    r"context[ _]?(length|size|window|limit)|maximum (model|prompt) length|prompt is too long"
    r"|`inputs` (tokens|must have less)|maximum number of tokens allowed",
    re.IGNORECASE,
)
# These name a setting of the request, which is the same for every text.
_SETTING_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
# Many gateways send no usage or odd counts; none is beyond this.
_MAX_COUNT = 2**53
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error's body says: its code, the setting that it names, its words; empty where it says nothing.

    `is_flagged`: it is about this text's contents, as OpenRouter's moderation writes it.
    """

    code: str = ""
    param: str = ""
    message: str = ""
    is_flagged: bool = False

    @classmethod
    def of(cls, body: bytes) -> "_Said":
        """Read OpenAI's form, and that of older vLLM servers, which is the same without `error` around it."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return cls()
        error = data.get("error", data) if isinstance(data, dict) else None
        if not isinstance(error, dict):
            return cls(message=_clean(error))
        metadata = error.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        is_flagged = not metadata.keys().isdisjoint({"reasons", "flagged_input"})
        # A gateway quotes the provider's own words as `raw`.
        message = f"{_clean(error.get('message'))} {_clean(metadata.get('raw'))}"
        # Some write the HTTP status as the code.
        code = _clean(error.get("code")) or _clean(error.get("type"))
        return cls(code, _clean(error.get("param")), message, is_flagged)


class ChatWire:
    """Writes requests to one model and reads what comes back."""

    def __init__(self, config: TeacherConfig, api_key: str, price: Price | None) -> None:
        self._config, self._price = config, price
        self._spellings = _spellings(api_key)
        self.url = config.base_url or OPENAI_URL
        self.place = shown(self.url)
        self._head: PromptHead | None = None
        self._prefix = b""

    def body(self, request: Request) -> bytes:
        """The JSON of one request."""
        prefix = self._prefix if request.head is self._head else self._prefix_of(request.head)
        turns = b"".join(_written_turn(turn) for turn in request.turns)
        return prefix + turns + b'{"role": "user", "content": ' + json.dumps(request.user).encode() + b"}]}"

    def reply(self, request: Request, body: bytes, latency_s: float) -> Reply:
        """The reply in a completion's JSON.

        Raises:
            TransientError: this is no completion.
        """
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), message.get("content")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            detail = f"an answer of {len(body)} bytes that is no chat completion ({type(error).__name__})"
            raise TransientError(self.place, detail) from None
        tokens, is_whole = _tokens_of(data.get("usage"))
        return Reply(
            request_key=request.key,
            doc_id=request.doc_id,
            reply=_clean(refusal or text),
            finish_reason="refusal" if refusal else _clean(choice.get("finish_reason")) or "stop",
            prompt_tokens=tokens[0],
            cached_tokens=tokens[1],
            completion_tokens=tokens[2],
            cost_usd=cost_usd(self._price, *tokens) if self._price and is_whole else None,
            latency_s=latency_s,
            logprobs=_logprobs_of(choice) if self._config.logprobs else None,
        )

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> CandistError:
        """What an answer that is no success means: wait, try again, reject the row, or stop the run."""
        config, place = self._config, self.place
        model, said = config.model_name, _Said.of(body)
        code, param = said.code, self.redacted(said.param)
        wait_s = retry_after_s(headers)
        if code == "insufficient_quota" or status == 402:
            step = "raise the account's limit or use another key, then run again; paid replies are kept"
            return TeacherError(f"teacher at {place}", "no quota left", "an account with credit", step)
        if status == 429:
            return RateLimitedError(place, "HTTP 429", wait_s)
        if status in (401, 403):
            found, wanted = f"a key that is refused (HTTP {status})", f"one that may use {model}"
            step = f"set {key_name(config)} to a valid key"
            if status == 401:
                return TeacherError(f"teacher at {place}", found, wanted, step)
            if said.is_flagged:
                return RowError(_FILTERED, self._detail(status, body))
            return ForbiddenError(f"teacher at {place}", found, wanted, step, self._detail(status, body))
        if status < 400 or status in (404, 405, 410):
            found, wanted = f"no chat completions of model {model!r} (HTTP {status})", "a model that is served there"
            return TeacherError(f"teacher at {place}", found, wanted, "check teacher.base_url and teacher.model")
        if status in (408, 409, 425) or status >= 500:
            return TransientError(place, f"HTTP {status}", wait_s)
        if code in _SETTING_CODES:
            found = f"a refusal of the setting {param[:100]!r} (HTTP {status}, {code})"
            step = "change the teacher's settings or its model"
            return TeacherError(f"teacher at {place}", found, f"settings that {model} takes", step)
        reason = "rejected by the endpoint"
        if code in _ROW_REASONS:
            reason = code
        elif _SAYS_TOO_LONG.search(said.message):
            reason = _TOO_LONG
        return RowError(reason, self._detail(status, body))

    def _detail(self, status: int, body: bytes) -> str:
        said = self.redacted(body.decode("utf-8", "replace")[:_MAX_ERROR_CHARS])
        return f"HTTP {status}: {said}"[:_MAX_DETAIL_CHARS]

    def redacted(self, text: str) -> str:
        """The text with `[key]` for the API key, as an endpoint may write it."""
        for spelling in self._spellings:
            text = text.replace(spelling, "[key]")
        return text

    def _prefix_of(self, head: PromptHead) -> bytes:
        """The JSON of a request up to its own turns; the same for all of a run, so written once."""
        shared: dict[str, Any] = {"model": head.model, **self._sampling(head)}
        if self._config.logprobs:
            shared["logprobs"] = True
        if head.response_format is not None:
            shared["response_format"] = head.response_format
        messages = json.dumps([{"role": "system", "content": head.system}])[:-1].encode() + b", "
        turns = b"".join(_written_turn(turn) for turn in head.turns)
        self._head, self._prefix = head, json.dumps(shared)[:-1].encode() + b', "messages": ' + messages + turns
        return self._prefix

    def _sampling(self, head: PromptHead) -> dict[str, float | int]:
        sampling = dict(head.sampling)
        if urlsplit(self.url).hostname == _OPENAI_HOST:
            if "max_tokens" in sampling:
                sampling["max_completion_tokens"] = sampling.pop("max_tokens")
            if _REASONING.match(head.model):
                sampling.pop("temperature", None)
        return sampling


def _spellings(key: str) -> tuple[str, ...]:
    """The key as it is, in JSON, in a URL, in HTML, and in base64 from any place on, the longest first."""
    if len(key) < _MIN_KEY_CHARS:
        return ()
    n = len(key)
    # Of n bytes that begin at byte i of a text, these characters of its base64 hold nothing else.
    encoded = [b64encode(b" " * i + key.encode()).decode()[-(-i * 8 // 6) : (i + n) * 8 // 6] for i in range(3)]
    encoded += [text.translate(str.maketrans("+/", "-_")) for text in encoded]
    written = (key, key.replace("/", "\\/"), json.dumps(key)[1:-1], quote(key, safe=""), quote(key), html.escape(key))
    return tuple(sorted({*written, *encoded}, key=len, reverse=True))


def key_name(config: TeacherConfig) -> str:
    """Where the key comes from, for sentences."""
    return f"the Secret block {config.api_key_block!r}" if config.api_key_block else config.api_key_env


def shown(url: str) -> str:
    """The URL without the parts that may hold secrets."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def quotas_of(headers: Mapping[str, str]) -> Quotas:
    """What `x-ratelimit-*` headers tell of the limits of requests and of tokens.

    Example:
        >>> head = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
        >>> quotas_of(head | {"x-ratelimit-reset-requests": "120ms"}).requests
        Quota(limit=500.0, remaining=499.0, reset_s=0.12)
    """
    return Quotas(_quota_of(headers, "requests"), _quota_of(headers, "tokens"))


def _quota_of(headers: Mapping[str, str], what: str) -> Quota | None:
    limit = _number(headers.get(f"x-ratelimit-limit-{what}"))
    remaining = _number(headers.get(f"x-ratelimit-remaining-{what}"))
    reset_s = _seconds(headers.get(f"x-ratelimit-reset-{what}"))
    if not limit or remaining is None or reset_s is None:
        return None
    return Quota(limit, min(remaining, limit), reset_s)


def _seconds(text: str | None) -> float | None:
    """Seconds from a number or from a duration such as `6m0s`, `1.5s`, `20ms`."""
    if (number := _number(text)) is not None or not text:
        return number
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    units = (86400.0, 3600.0, 60.0, 1.0, 0.001)
    return sum(float(part) * unit for part, unit in zip(found.groups(), units, strict=True) if part)


def _written_turn(turn: tuple[str, str]) -> bytes:
    user, assistant = ({"role": role, "content": text} for role, text in zip(("user", "assistant"), turn, strict=True))
    return f"{json.dumps(user)}, {json.dumps(assistant)}, ".encode()


def _clean(text: object) -> str:
    """The text without lone surrogates, which JSON can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""


def _tokens_of(usage: object) -> tuple[tuple[int, int, int], bool]:
    """Prompt, cached and completion tokens, and whether they are all that was used: there is no prompt of no tokens.

    What only the total holds, such as thoughts, was paid for as part of the answer.
    """
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    prompt, completion = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    if not prompt or completion is None:
        return (prompt or 0, cached or 0, completion or 0), False
    return (prompt, cached or 0, max(completion, (_count(counts.get("total_tokens")) or 0) - prompt)), True


def _count(value: object) -> int | None:
    # No bool, which JSON can write too.
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def _logprobs_of(choice: Mapping[str, Any]) -> str | None:
    """Tokens and their log-probabilities, as short as they can be kept; None where the endpoint gave none."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    pairs = [
        [_clean(entry.get("token")), entry["logprob"]]
        for entry in content
        if isinstance(entry, dict) and isinstance(entry.get("logprob"), int | float) and math.isfinite(entry["logprob"])
    ]
    return json.dumps(pairs, separators=(",", ":"), ensure_ascii=False) if pairs else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms`, or from `retry-after` in seconds or as a date (RFC 9110, 10.2.3)."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    if (seconds := _number(milliseconds)) is not None:
        return seconds / 1000
    if (seconds := _number(value)) is not None or value is None:
        return seconds
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
