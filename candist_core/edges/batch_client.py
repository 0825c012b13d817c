"""A provider's batch endpoint, one call at a time: files up and down, batches made, looked at and listed.

Through the openai client, but answers are read as JSON under own models, since the client's take whatever comes.
Retries are the caller's. Invariant: neither the API key nor a text stands in an error or a log.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from candist_core.batch import COMPLETIONS_PATH
from candist_core.edges.chat import ChatWire
from candist_core.errors import CandistError, ForbiddenError, RowError, TeacherError, TransientError
from candist_core.teacher_config import TeacherConfig

if TYPE_CHECKING:
    import httpx2
    import openai

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_MAX_CONNECT_S = 10.0
# A call that only makes, reads or lists batches; shorter than the time after which an unanswered one is over.
_MAX_CALL_S = 30.0
# A file of 200 MB over a line of 1 Mbit/s, and the longest silence meanwhile: a provider reads through a whole file
# before it answers.
_MAX_FILE_S, _MAX_SILENCE_S = 1800.0, 300.0
_PAGE = 100
_MAX_MESSAGE_CHARS = 300
_GONE = "gone"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled", _GONE})
# Metadata key under which a batch carries its record's name.
_MARK = "candist"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _StoredFile(_Answer):
    id: str = Field(min_length=1)


class BatchState(_Answer):
    """A batch as the provider tells of it; status `gone` stands for one that it does not know."""

    id: str = Field(min_length=1, max_length=200)
    status: str
    created_at: float | None = None
    completed_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    # Lists of objects with code and message at OpenAI, other things elsewhere.
    errors: Any = None
    metadata: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _ENDED

    @property
    def is_gone(self) -> bool:
        """Whether the provider does not know it."""
        return self.status == _GONE

    @property
    def intent(self) -> str | None:
        """The name of the record under which it was asked for."""
        found = (self.metadata or {}).get(_MARK)
        return found if isinstance(found, str) else None

    @property
    def refusals(self) -> list[tuple[str, str]]:
        """Code and message of each reason why the input file was not taken."""
        data = self.errors.get("data") if isinstance(self.errors, dict) else None
        found = [error for error in data if isinstance(error, dict)] if isinstance(data, list) else []
        return [(str(error.get("code") or ""), str(error.get("message") or "")) for error in found]

    @property
    def is_queue_full(self) -> bool:
        """Whether it was not taken because too many tokens wait at the provider already."""
        return self.status == "failed" and any(code == "token_limit_exceeded" for code, _ in self.refusals)

    @property
    def duration_s(self) -> float:
        """From its making to its end."""
        return max(0.0, (self.completed_at or 0.0) - (self.created_at or 0.0)) if self.completed_at else 0.0


class _Page(_Answer):
    data: list[BatchState]
    has_more: bool | None = None


class BatchClient:
    """The batch endpoint of one provider. Its connections are opened at the first call, inside the running loop."""

    def __init__(self, config: TeacherConfig, api_key: str, wire: ChatWire) -> None:
        self._config, self._api_key, self._wire = config, api_key, wire
        self._client: openai.AsyncOpenAI | None = None

    async def upload(self, data: bytes) -> str:
        """Store an input file at the provider; its id.

        Raises:
            TransientError: as all methods: no answer, or one that promises better for later.
            TeacherError: as all methods: a refusal for good.
        """
        # Not as bytes: a file object shows nothing of itself, wherever it may be printed.
        file = ("candist.jsonl", BytesIO(data), "application/jsonl")
        files = self._open().files.with_raw_response
        sent = files.create(file=file, purpose="batch", timeout=self._limits(_MAX_SILENCE_S))
        return self._read(_StoredFile, self._checked(await self._sent(sent, _MAX_FILE_S))).id

    async def create(self, file_id: str, intent: str) -> BatchState:
        """Ask for a batch. After a `TransientError` other than `RateLimitedError` it may exist none the less."""
        sent = self._open().batches.with_raw_response.create(
            input_file_id=file_id,
            endpoint=COMPLETIONS_PATH,
            completion_window="24h",
            metadata={_MARK: intent},
        )
        return self._read(BatchState, self._checked(await self._sent(sent)))

    async def retrieve(self, batch_id: str) -> BatchState:
        """Look at a batch."""
        response = await self._sent(self._open().batches.with_raw_response.retrieve(batch_id))
        if response.status_code in (404, 410):
            return BatchState(id=batch_id, status=_GONE)
        return self._read(BatchState, self._checked(response))

    async def find(self, intent: str) -> BatchState | None:
        """The batch that was asked for under this name, among all that the provider lists."""
        async for state in self._listed():
            if state.intent == intent:
                return state
        return None

    async def is_idle(self) -> bool:
        """Whether none of the latest batches is under way, whoever made it."""
        return all(state.is_over for state in (await self._page(None)).data)

    async def content(self, file_id: str) -> bytes | None:
        """A file's bytes; None when it is there no more."""
        files = self._open().files.with_raw_response
        response = await self._sent(files.content(file_id, timeout=self._limits(_MAX_SILENCE_S)), _MAX_FILE_S)
        return None if response.status_code in (404, 410) else self._checked(response)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def refusal(self, reasons: Sequence[tuple[str, str]]) -> TeacherError:
        """The provider's reasons against an input file, as the end of the run."""
        told = "; ".join(f"{code}: {message}" for code, message in reasons)
        return self._refused("a refusal of the batch", told)

    async def _listed(self) -> AsyncIterator[BatchState]:
        after: str | None = None
        while True:
            page = await self._page(after)
            for state in page.data:
                yield state
            # A server that knows no `after` would give its first page for ever.
            if not page.has_more or not page.data or page.data[-1].id == after:
                return
            after = page.data[-1].id

    async def _page(self, after: str | None) -> _Page:
        import openai

        batches = self._open().batches.with_raw_response
        sent = batches.list(limit=_PAGE, after=openai.omit if after is None else after)
        return self._read(_Page, self._checked(await self._sent(sent)))

    async def _sent(self, sent: Awaitable[Any], limit_s: float | None = None) -> "httpx2.Response":
        """The endpoint's answer, whatever its status."""
        import aiohttp
        import httpx2
        import openai

        limit_s = limit_s or min(self._config.timeout_s, _MAX_CALL_S)
        failure: CandistError
        try:
            async with asyncio.timeout(limit_s):
                response: httpx2.Response = (await sent).http_response
                return response
        except openai.APIStatusError as error:
            return error.response
        except (TimeoutError, openai.APITimeoutError):
            failure = TransientError(self._wire.place, f"no answer in {limit_s:g} s")
        except (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError) as error:
            failure = TransientError(self._wire.place, type(error.__cause__ or error).__name__)
        # Raised out here, it carries no trace of the client's error, whose text may quote the key.
        raise failure

    def _checked(self, response: "httpx2.Response") -> bytes:
        """The body of an answer that is a success."""
        status = response.status_code
        if response.is_success:
            return response.content
        if status < 400 or status in (404, 405, 410):
            found, wanted = f"no batch endpoint (HTTP {status})", "one that takes /files and /batches"
            step = "check teacher.base_url, or set teacher.mode to live"
            raise TeacherError(f"teacher at {self._wire.place}", found, wanted, step)
        failure = self._wire.failure(status, response.headers, response.content)
        if isinstance(failure, RowError):
            raise self._refused("a refusal", failure.detail)
        if isinstance(failure, ForbiddenError):
            # A file or a batch is no text that could be at fault.
            raise TeacherError(failure.thing, failure.found, failure.wanted, failure.next_step)
        raise failure

    def _refused(self, what: str, detail: str) -> TeacherError:
        said = " ".join(self._wire.redacted(detail).split())[:_MAX_MESSAGE_CHARS]
        wanted, step = "requests that its batch endpoint takes", "check teacher.model and the teacher's settings"
        return TeacherError(
            f"teacher at {self._wire.place}", f"{what} ({said})", wanted, f"{step}, or set teacher.mode to live"
        )

    def _read(self, answer: type[AnswerT], body: bytes) -> AnswerT:
        try:
            return answer.model_validate_json(body)
        except ValidationError:
            detail = f"an answer of {len(body)} bytes that tells of no batch or file"
        raise TransientError(self._wire.place, detail)

    def _limits(self, silence_s: float) -> "httpx2.Timeout":
        import httpx2

        return httpx2.Timeout(silence_s, connect=min(_MAX_CONNECT_S, self._config.timeout_s))

    def _open(self) -> "openai.AsyncOpenAI":
        import openai

        if self._client is None:
            limit_s = self._limits(self._config.timeout_s)
            # A redirect would carry the key to a place that nobody configured.
            transport = openai.DefaultAioHttpClient(timeout=limit_s, follow_redirects=False)
            self._client = openai.AsyncOpenAI(
                api_key=self._api_key, base_url=self._wire.url, max_retries=0, timeout=limit_s, http_client=transport
            )
        return self._client
