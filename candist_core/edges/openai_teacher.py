"""A teacher behind any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, gateways.

One request, one answer: retries and pacing are the caller's. Requests go straight through the aiohttp session that the
openai client's own aiohttp transport would use: the client's layers above it cost three to five times the CPU of the
request itself (`docs/performance.md`). Invariant: the API key stands in no error, log or repr.
"""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from candist_core.budget import Price, price_of
from candist_core.edges.chat import ChatWire, key_name, quotas_of, shown
from candist_core.errors import CandistError, TeacherError, TransientError
from candist_core.ports import Quotas, Reply, Request
from candist_core.teacher_config import TeacherConfig
from candist_core.version import __version__

if TYPE_CHECKING:
    import aiohttp

_MAX_CONNECT_S = 10.0
# More connections than a server or a gateway likes to hold open for one client.
_MAX_CONNECTIONS = 1024
# What the openai client takes from the environment too.
_ACCOUNT_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}


class OpenAITeacher:
    """Asks one model at one endpoint. Its session is made at the first request, inside the running loop."""

    def __init__(self, config: TeacherConfig, api_key: str, price: Price | None) -> None:
        self._config, self._api_key = config, api_key
        self._wire = ChatWire(config, api_key, price)
        base = urlsplit(self._wire.url)
        # Some gateways want a query behind the path.
        self._url = base._replace(path=f"{base.path.rstrip('/')}/chat/completions").geturl()
        self._session: aiohttp.ClientSession | None = None
        self._quotas = Quotas()

    @property
    def name(self) -> str:
        """Kind and model."""
        return f"openai:{self._config.model_name}"

    @property
    def quotas(self) -> Quotas:
        """The limits that stood beside the last answer."""
        return self._quotas

    async def ask(self, request: Request) -> Reply:
        """Send one request once; see `Teacher.ask`."""
        import aiohttp

        session = self._session or self._open()
        started_at = time.perf_counter()
        failure: CandistError
        try:
            # A redirect would carry the key to a place that nobody configured.
            async with session.post(self._url, data=self._wire.body(request), allow_redirects=False) as response:
                body, headers = await response.read(), response.headers
        except TimeoutError:
            failure = TransientError(self._wire.place, f"no answer in {self._config.timeout_s:g} s")
        except aiohttp.ClientError as error:
            failure = TransientError(self._wire.place, _cause_of(error))
        else:
            if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
                self._quotas = quotas_of(headers)
            if 200 <= response.status < 300:
                return self._wire.reply(request, body, time.perf_counter() - started_at)
            failure = self._wire.failure(response.status, headers, body)
        # Raised out here, it carries no trace of the session's error, whose text may quote the key.
        raise failure

    async def close(self, is_kept: bool = True) -> None:
        """Close the connections; a later `ask` opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp

        timeout_s = self._config.timeout_s
        told = {"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"}
        told |= {name: os.environ[key] for name, key in _ACCOUNT_HEADERS.items() if os.environ.get(key)}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._config.max_in_flight or _MAX_CONNECTIONS),
            headers={**told, "User-Agent": f"candist/{__version__}"},
            # The whole answer has to come in this time, however slowly it drips.
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_MAX_CONNECT_S, timeout_s)),
            # Looked up here once; the session would do it for each request, for a fifth of a request's CPU.
            proxy=_proxy_of(self._url),
        )
        return self._session


def open_openai_teacher(
    config: TeacherConfig, prices: Mapping[str, Price], api_key: str | None = None
) -> OpenAITeacher:
    """The teacher of a run.

    Args:
        config: the endpoint and the model.
        prices: by model name.
        api_key: the key; taken from the environment variable that the configuration names when None.

    Raises:
        TeacherError: no key for OpenAI's own endpoint, a key that no header can hold, a base URL that is none.
    """
    check_endpoint(config)
    return OpenAITeacher(config, usable_key(config, api_key), price_of(config.model_name, prices))


def check_endpoint(config: TeacherConfig) -> None:
    """Look at the base URL, without asking it.

    Raises:
        TeacherError: it is none.
    """
    if config.base_url is None:
        return
    parts = urlsplit(config.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        step = "write it like http://localhost:8000/v1"
        raise TeacherError("teacher.base_url", repr(shown(config.base_url)), "an http or https URL", step)


def usable_key(config: TeacherConfig, api_key: str | None) -> str:
    """The key to send: the one given, else that of the environment.

    Raises:
        TeacherError: none for OpenAI's own endpoint, or one that no header can hold.
    """
    found = (os.environ.get(config.api_key_env, "") if api_key is None else api_key).strip()
    thing = f"environment variable {config.api_key_env}" if api_key is None else key_name(config)
    if not found and config.base_url is None:
        step = f"export {config.api_key_env}, name another under teacher.api_key_env, or set teacher.base_url"
        raise TeacherError(thing, "no value", "an API key", step)
    if not all("!" <= char <= "~" for char in found):
        raise TeacherError(thing, "characters that no API key has", "an API key", "set it anew, without spaces")
    # Servers of one's own, such as vLLM and Ollama, ask for no key, but the client does.
    return found or "none"


def _proxy_of(url: str) -> str | None:
    """The proxy that the usual variables (`HTTPS_PROXY`, `NO_PROXY`) name for a URL."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def _cause_of(error: BaseException) -> str:
    """What failed underneath, in the words of the operating system where it has some."""
    while error.__cause__ is not None:
        error = error.__cause__
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else type(error).__name__
