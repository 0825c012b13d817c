"""A teacher behind any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, gateways.

One request, one answer: retries and pacing are the caller's. Bodies are sent and read as JSON here, since the client's
own models cost more time than the request. Invariant: the API key stands in no error, log or repr.
"""

import json
import math
import os
import re
import time
from asyncio import timeout
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from candist_core.budget import Price, cost_usd, price_of
from candist_core.config import TeacherConfig
from candist_core.errors import CandistError, RateLimitedError, RowError, TeacherError, TransientError
from candist_core.ports import PromptHead, Reply, Request

if TYPE_CHECKING:
    import openai

_OPENAI_URL = "https://api.openai.com/v1"
_OPENAI_HOST = "api.openai.com"
_MAX_CONNECT_S = 10.0
_MAX_DETAIL_CHARS = 2000
# OpenAI's reasoning models take no temperature, and no model of theirs still needs max_tokens under that name.
_REASONING = re.compile(r"^(o\d|gpt-5(?!.*chat))")
_ROW_REASONS = frozenset({"context_length_exceeded", "content_filter"})
# These name a setting of the request, which is the same for every text.
_SETTING_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
# Many gateways send no usage or odd counts; none is beyond this.
_MAX_COUNT = 2**53


class OpenAITeacher:
    """Asks one model at one endpoint. Its client is made at the first request, inside the running loop."""

    def __init__(self, config: TeacherConfig, api_key: str, price: Price | None) -> None:
        self._config, self._api_key, self._price = config, api_key, price
        self._url = config.base_url or _OPENAI_URL
        self._place = _shown(self._url)
        self._client: openai.AsyncOpenAI | None = None
        self._head: PromptHead | None = None
        self._prefix = b""

    @property
    def name(self) -> str:
        """Kind and model."""
        return f"openai:{self._config.model_name}"

    async def ask(self, request: Request) -> Reply:
        """Send one request once; see `Teacher.ask`."""
        import aiohttp
        import httpx2
        import openai

        client = self._client = self._client or self._open()
        content = self._prefix_of(request.head) + json.dumps(request.user).encode() + b"}]}"
        started_at = time.perf_counter()
        try:
            # The client's own limits count the silence between two bytes; this one counts the whole answer.
            async with timeout(self._config.timeout_s):
                response = await client.post("/chat/completions", cast_to=httpx2.Response, content=content)
        except openai.APIStatusError as error:
            failure = self._failure_of(error)
        except TimeoutError:
            failure = TransientError(self._place, f"no answer in {self._config.timeout_s:g} s")
        except (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError) as error:
            failure = TransientError(self._place, _cause_of(error))
        else:
            return self._reply(request, response.content, time.perf_counter() - started_at)
        # Raised out here, it carries no trace of the client's error, whose text may quote the key.
        raise failure

    async def close(self) -> None:
        """Close the connections; a later `ask` opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _open(self) -> "openai.AsyncOpenAI":
        import httpx2
        import openai

        config = self._config
        limits = httpx2.Limits(max_connections=config.max_in_flight, max_keepalive_connections=config.max_in_flight)
        limit_s = httpx2.Timeout(config.timeout_s, connect=min(_MAX_CONNECT_S, config.timeout_s))
        # A redirect would carry the key to a place that nobody configured.
        http_client = openai.DefaultAioHttpClient(limits=limits, timeout=limit_s, follow_redirects=False)
        return openai.AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._url,
            max_retries=0,
            timeout=limit_s,
            http_client=http_client,
            default_headers={"Content-Type": "application/json"},
        )

    def _prefix_of(self, head: PromptHead) -> bytes:
        """The JSON of a request up to the user's message; the same for all of a run, so written once."""
        if head is not self._head:
            shared: dict[str, Any] = {"model": head.model, **self._sampling(head)}
            if head.response_format is not None:
                shared["response_format"] = head.response_format
            messages = json.dumps([{"role": "system", "content": head.system}])[:-1]
            prefix = f'{json.dumps(shared)[:-1]}, "messages": {messages}, {{"role": "user", "content": '
            self._head, self._prefix = head, prefix.encode()
        return self._prefix

    def _sampling(self, head: PromptHead) -> dict[str, float | int]:
        sampling = dict(head.sampling)
        if urlsplit(self._url).hostname == _OPENAI_HOST:
            if "max_tokens" in sampling:
                sampling["max_completion_tokens"] = sampling.pop("max_tokens")
            if _REASONING.match(head.model):
                sampling.pop("temperature", None)
        return sampling

    def _reply(self, request: Request, body: bytes, latency_s: float) -> Reply:
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), message.get("content")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            detail = f"an answer of {len(body)} bytes that is no chat completion ({type(error).__name__})"
            raise TransientError(self._place, detail) from None
        finish_reason = choice.get("finish_reason")
        usage = data.get("usage")
        tokens = _tokens_of(usage if isinstance(usage, dict) else {})
        is_priced = self._price is not None and isinstance(usage, dict)
        return Reply(
            request_key=request.key,
            doc_id=request.doc_id,
            reply=_clean(refusal or text),
            finish_reason="refusal" if refusal else _clean(finish_reason) or "stop",
            prompt_tokens=tokens[0],
            cached_tokens=tokens[1],
            completion_tokens=tokens[2],
            cost_usd=cost_usd(self._price, *tokens) if is_priced and self._price else None,
            latency_s=latency_s,
        )

    def _failure_of(self, error: "openai.APIStatusError") -> CandistError:
        status, code = error.status_code, error.code
        retry_after_s = _retry_after_s(error.response.headers)
        model, place = self._config.model_name, self._place
        if code == "insufficient_quota" or status == 402:
            step = "raise the account's limit or use another key, then run again; paid replies are kept"
            return TeacherError(f"teacher at {place}", "no quota left", "an account with credit", step)
        if status == 429:
            return RateLimitedError(place, "HTTP 429", retry_after_s)
        if status in (401, 403):
            found, wanted = f"a key that is refused (HTTP {status})", f"one that may use {model}"
            return TeacherError(f"teacher at {place}", found, wanted, f"set {self._config.api_key_env} to a valid key")
        if status < 400 or status in (404, 405, 410):
            found, wanted = f"no chat completions of model {model!r} (HTTP {status})", "a model that is served there"
            return TeacherError(f"teacher at {place}", found, wanted, "check teacher.base_url and teacher.model")
        if status in (408, 409, 425) or status >= 500:
            return TransientError(place, f"HTTP {status}", retry_after_s)
        if code in _SETTING_CODES:
            found = f"a refusal of the setting {str(error.param)[:100]!r} (HTTP {status}, {code})"
            step = "change the teacher's settings or its model"
            return TeacherError(f"teacher at {place}", found, f"settings that {model} takes", step)
        reason = code if code in _ROW_REASONS else "rejected by the endpoint"
        return RowError(str(reason), f"HTTP {status}: {self._without_key(error.response.text)}"[:_MAX_DETAIL_CHARS])

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "[key]")


def open_openai_teacher(config: TeacherConfig, prices: Mapping[str, Price]) -> OpenAITeacher:
    """The teacher of a run. Its key is read here, from the environment variable that the configuration names.

    Raises:
        TeacherError: no key for OpenAI's own endpoint, a key that no header can hold, a base URL that is none.
    """
    if config.base_url is not None:
        parts = urlsplit(config.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            step = "write it like http://localhost:8000/v1"
            raise TeacherError("teacher.base_url", repr(_shown(config.base_url)), "an http or https URL", step)
        if "@" in parts.netloc:
            step = f"put the key into {config.api_key_env}"
            raise TeacherError("teacher.base_url", "a user or password in it", "a URL without secrets", step)
    api_key = os.environ.get(config.api_key_env, "").strip()
    thing = f"environment variable {config.api_key_env}"
    if not api_key and config.base_url is None:
        step = f"export {config.api_key_env}, name another under teacher.api_key_env, or set teacher.base_url"
        raise TeacherError(thing, "no value", "an API key", step)
    if not all("!" <= char <= "~" for char in api_key):
        raise TeacherError(thing, "characters that no API key has", "an API key", "set it anew, without spaces")
    # Servers of one's own, such as vLLM and Ollama, ask for no key, but the client does.
    return OpenAITeacher(config, api_key or "none", price_of(config.model_name, prices))


def _shown(url: str) -> str:
    """The URL without the parts that may hold secrets."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _clean(text: object) -> str:
    """The text without lone surrogates, which JSON can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""


def _tokens_of(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Prompt, cached and completion tokens."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    prompt, cached, completion = (
        count if isinstance(count, int) and 0 <= count <= _MAX_COUNT else 0 for count in counts
    )
    return prompt, cached, completion


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
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


def _cause_of(error: BaseException) -> str:
    """What failed underneath, in the words of the operating system where it has some."""
    while error.__cause__ is not None:
        error = error.__cause__
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else type(error).__name__
