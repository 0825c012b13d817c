"""Requests and tokens a minute held in Redis, for all workers of all runs that ask one model at one endpoint.

Two token buckets, either of which may be absent, change together in one Lua script by the server's own clock, so no
two clients take the same token and no client's clock matters. A bucket holds three seconds' worth and fills so that
what it holds and what flows into it within any minute add up to the limit: a burst cannot pass it. Only a single
request larger than the bucket may, by its excess; it is let through when the bucket is full, and those after it wait.
Runs should set the same limits; where they differ each fills the buckets at its own rate, and the largest holds.

Times are seconds. Invariant: the URL, which may hold a password, stands in no error, log or repr.
"""

import os
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from candist_core.errors import SilentError, TeacherError, TransientError
from candist_core.spec import fingerprint
from candist_core.teacher_config import TeacherConfig

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Longer waits between two requests of a worker than this are rare; more would make bursts, less would starve them.
_CAPACITY_S = 3.0
_MINUTE_S = 60.0
_ANSWER_TIMEOUT_S = 5.0
# A managed server that fails over is back within half a minute.
_MAX_OUTAGE_S = 60.0
_RETRY_AFTER_S = 1.0
# Shorter waits would only ask the server more often.
_MIN_WAIT_S = 0.01

# For each bucket: units a second, most it holds, units wanted now, units owed from before (paid in any case).
# A bucket that is not there is full, so it may expire when it would be.
_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local levels, wait = {}, 0
for i, key in ipairs(KEYS) do
  local rate, capacity = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local wanted, owed = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local stored = redis.call('HMGET', key, 'level', 'at')
  local level, at = tonumber(stored[1] or capacity), tonumber(stored[2] or now)
  level = math.min(capacity, level + math.max(0, now - at) * rate)
  levels[i] = math.min(capacity, level - owed)
  local lacking = math.min(wanted, capacity) - levels[i]
  if lacking > 1e-5 then wait = math.max(wait, lacking / rate) end
end
for i, key in ipairs(KEYS) do
  local rate, capacity = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local level = levels[i]
  if wait == 0 then level = level - tonumber(ARGV[4 * i - 1]) end
  redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
  redis.call('PEXPIRE', key, math.ceil((capacity - level) / rate * 1000) + 1000)
end
return string.format('%.6f', wait)
"""


class RedisLimit:
    """The limits of one model at one endpoint, as a `RateLimit`; belongs to one event loop and is closed once.

    What `settle` notes travels with the next `take`, or with `close`. While the server is lost nothing is taken.
    """

    def __init__(
        self, client: "Redis", place: str, name: str, requests_per_min: float | None, tokens_per_min: float | None
    ) -> None:
        self._client, self._place = client, place
        self._script = client.register_script(_TAKE)
        limits = {"requests": requests_per_min, "tokens": tokens_per_min}
        self._per_min = {kind: float(limit) for kind, limit in limits.items() if limit is not None}
        # Braces put both keys on one node of a Redis cluster.
        self._keys = [f"candist:limit:{{{name}}}:{kind}" for kind in self._per_min]
        self._owed_tokens = 0.0
        self._lost_since: float | None = None

    def __repr__(self) -> str:
        return f"RedisLimit({self._place!r}, {self._per_min})"

    async def take(self, n_tokens: int) -> float:
        """Take one request of so many tokens if both limits bear it now: 0.0; else nothing, and the seconds to wait.

        A server that does not answer takes nothing either: the wait then is a second.

        Raises:
            TransientError: the server has not answered for a minute.
        """
        wait_s = await self._call(1, n_tokens)
        if wait_s is None:
            return self._wait_of_outage()
        self._lost_since = None
        return max(wait_s, _MIN_WAIT_S) if wait_s else 0.0

    def settle(self, n_tokens: int) -> None:
        """Take so many tokens more, as a reply needed them; below zero gives back."""
        self._owed_tokens += n_tokens

    async def close(self) -> None:
        """Settle what is owed, if the server can be reached, and release the connection."""
        try:
            if self._owed_tokens:
                await self._call(0, 0)
        finally:
            await self._client.aclose()

    async def _call(self, n_requests: int, n_tokens: int) -> float | None:
        """Run the script; None, and what is owed stays owed, where the server does not answer."""
        from redis.exceptions import RedisError

        owed, self._owed_tokens = self._owed_tokens, 0.0
        amounts = {"requests": (n_requests, 0.0), "tokens": (n_tokens, owed)}
        arguments = [value for kind in self._per_min for value in (*self._bucket(kind), *amounts[kind])]
        try:
            return float(await self._script(keys=self._keys, args=arguments))
        except (RedisError, OSError):
            self._owed_tokens += owed
            return None

    def _bucket(self, kind: str) -> tuple[float, float]:
        """Units a second and the most that a bucket holds: always one request at least."""
        rate = self._per_min[kind] / (_MINUTE_S + _CAPACITY_S)
        return rate, max(rate * _CAPACITY_S, 1.0)

    def _wait_of_outage(self) -> float:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        if now - self._lost_since > _MAX_OUTAGE_S:
            raise TransientError(f"Redis at {self._place}", f"no answer for {_MAX_OUTAGE_S:g} s")
        return _RETRY_AFTER_S


def open_redis_limit(config: TeacherConfig, *, must_answer: bool = True) -> RedisLimit | None:
    """The limits of a teacher in the Redis server that it names; None where it names none.

    Args:
        config: the endpoint, the model, the limits, and the environment variable with the server's URL.
        must_answer: ask the server once, so that a wrong URL shows before anything is sent; off where it has answered
            this run before and may be away for a moment.

    Raises:
        TeacherError: no such variable, no URL of Redis in it, no limit to hold, or no answer.

    Example:
        >>> open_redis_limit(TeacherConfig(max_requests_per_min=60)) is None
        True
    """
    if config.limits_redis_env is None:
        return None
    thing = f"environment variable {config.limits_redis_env}"
    url = os.environ.get(config.limits_redis_env, "").strip()
    if not url:
        step = f"export {config.limits_redis_env}, or leave teacher.limits_redis_env empty"
        raise TeacherError(thing, "no value", "the URL of a Redis server", step)
    if config.max_requests_per_min is None and config.max_tokens_per_min is None:
        step = "set teacher.max_requests_per_min or teacher.max_tokens_per_min"
        raise TeacherError("teacher.limits_redis_env", "no limit beside it", "one to hold", step)
    place = _place_of(thing, url)
    if must_answer:
        _ping(thing, url, place)
    name = fingerprint([(config.base_url or "").rstrip("/"), config.model_name])
    return RedisLimit(_client(url), place, name, config.max_requests_per_min, config.max_tokens_per_min)


def _client(url: str) -> "Redis":
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis.from_url(
        url,
        single_connection_client=True,
        socket_timeout=_ANSWER_TIMEOUT_S,
        socket_connect_timeout=_ANSWER_TIMEOUT_S,
        # A connection that lay idle may be cut; a take that arrived twice only makes the limit stricter.
        retry=Retry(NoBackoff(), 1),
    )


def _place_of(thing: str, url: str) -> str:
    """Host and port, without user and password."""
    step = "write it like redis://host:6379/0"
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise TeacherError(thing, "something that is no URL", "the URL of a Redis server", step) from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise TeacherError(thing, "another kind of URL", "the URL of a Redis server", step)
    return f"{parts.hostname}:{port}"


def _ping(thing: str, url: str, place: str) -> None:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError
    from redis.retry import Retry

    step = "check the address, or leave teacher.limits_redis_env empty"
    found, kind = "", TeacherError
    try:
        with Redis.from_url(
            url,
            socket_timeout=_ANSWER_TIMEOUT_S,
            socket_connect_timeout=_ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except AuthenticationError:
        found, step = f"a server at {place} that refuses its user or password", "check the password in it"
    except ValueError:
        found, step = f"a URL of {place} with odd settings", "write it like redis://host:6379/0"
    except (RedisError, OSError) as error:
        found, kind = f"no answer at {place} ({type(error).__name__})", SilentError
    # Raised out here, it carries no trace of an error whose text may quote the URL.
    if found:
        raise kind(thing, found, "a Redis server that answers", step)
