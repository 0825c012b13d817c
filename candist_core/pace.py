"""How one request gets its reply: attempts, waits between them, pauses of all, and when to give up. Times are seconds.

One `Asker` serves all slots of a call. A `TransientError` uses up an attempt. A refusal for the rate uses up none:
it pauses every slot. Invariant: waits follow from the request's key and the endpoint's answers, never from chance.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from candist_core.errors import RateLimitedError, RowError, TeacherError, TransientError
from candist_core.ports import Reply, Request, Teacher

# After a pause the slots set out over half its length, so that they do not run into the limit together;
# at most over two seconds, which is long against a request.
_MAX_SPREAD_S = 2.0
# So many requests given up with no answer between them are the endpoint's fault and not theirs.
_MAX_DRY = 8


@dataclass(frozen=True, slots=True)
class Patience:
    """How long failed requests are waited for (seconds).

    `max_pause_s` bounds what an endpoint may ask for at a time, and how long it may refuse all requests
    without answering a single one.
    """

    base_s: float = 0.5
    cap_s: float = 30.0
    max_pause_s: float = 600.0

    def grown_s(self, n: int) -> float:
        """The n-th wait in a row without jitter, n from 1: doubled each time, up to `cap_s`."""
        # 2**60 s is beyond any cap, and larger powers overflow a float.
        return float(min(self.cap_s, self.base_s * 2 ** min(n - 1, 60)))

    def backoff_s(self, key: str, n_attempts: int, retry_after_s: float | None = None) -> float:
        """The wait before a request's next attempt: exponential with full jitter, never before `retry_after_s`.

        Source:
            Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.

        Example:
            >>> Patience(base_s=1.0, cap_s=4.0).backoff_s("key", n_attempts=9) <= 4.0
            True
        """
        jitter = random.Random(f"{key}/{n_attempts}").random() * self.grown_s(n_attempts)
        return max(jitter, min(retry_after_s or 0.0, self.max_pause_s))


PATIENCE = Patience()


class Pace:
    """When slots may send: at once, save during a pause."""

    def __init__(
        self,
        patience: Patience = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._resume_at = self._spread_s = 0.0
        self._n_pauses = self._n_refused = 0
        self._refused_since: float | None = None

    async def ready(self, key: str) -> float:
        """Wait until a request may be sent; the time at which that is."""
        while (now := self._clock()) < self._resume_at:
            share = random.Random(f"{key}/{self._n_pauses}").random()
            await self._sleep(self._resume_at - now + share * self._spread_s)
        return now

    def answered(self) -> None:
        """Note that the endpoint answers: the next pause starts small again."""
        self._n_refused, self._refused_since = 0, None

    def refused(self, sent_at: float, error: RateLimitedError) -> None:
        """Pause all slots after a refusal of a request that was sent at `sent_at`.

        Refusals of requests that were under way when the pause began tell nothing new, so only later ones
        make the next pause longer.

        Raises:
            TransientError: the endpoint has refused, or asks to be spared, for longer than `max_pause_s`.
        """
        now = self._clock()
        since = self._refused_since = now if self._refused_since is None else self._refused_since
        pause_s = error.retry_after_s or 0.0
        if sent_at >= self._resume_at:
            self._n_refused += 1
            self._n_pauses += 1
            pause_s = max(pause_s, self._patience.grown_s(self._n_refused))
            self._spread_s = min(pause_s / 2, _MAX_SPREAD_S)
        self._resume_at = max(self._resume_at, now + pause_s)
        if self._resume_at - since > self._patience.max_pause_s:
            limit = f"{self._patience.max_pause_s:g} s"
            raise TransientError(error.what, f"refuses every request for its rate over {limit}", error.retry_after_s)


class Asker:
    """Asks a teacher until it answers, for all slots of one call.

    `n_slots` requests are under way at first; with `is_known` the endpoint has answered before.
    """

    def __init__(
        self, teacher: Teacher, *, max_attempts: int, n_slots: int, is_known: bool, patience: Patience = PATIENCE
    ) -> None:
        self._teacher, self._max_attempts, self._patience = teacher, max_attempts, patience
        self._pace = Pace(patience)
        self._n_slots, self._is_known = n_slots, is_known
        self._n_dry = 0

    async def ask(self, request: Request) -> Reply:
        """One request's reply, after as many attempts as it takes.

        Raises:
            RowError: the endpoint refuses this request for good, or its attempts are used up.
            TeacherError: the teacher says so, or the first requests used up their attempts and none was answered.
            TransientError: the endpoint fell silent, or refuses everything for its rate for too long.
        """
        n_attempts = 0
        while True:
            sent_at = await self._pace.ready(request.key)
            try:
                reply = await self._teacher.ask(request)
            except RateLimitedError as error:
                self._is_known = True
                self._pace.refused(sent_at, error)
            except TransientError as error:
                n_attempts += 1
                if n_attempts >= self._max_attempts:
                    raise self._given_up(error) from error
                await asyncio.sleep(self._patience.backoff_s(request.key, n_attempts, error.retry_after_s))
            except RowError:
                self._note_answer()
                raise
            else:
                self._note_answer()
                return reply

    def _note_answer(self) -> None:
        self._n_dry, self._is_known = 0, True
        self._pace.answered()

    def _given_up(self, error: TransientError) -> RowError | TransientError | TeacherError:
        """What to make of a request without attempts left: its own fault, or the endpoint's."""
        self._n_dry += 1
        if self._n_dry < (_MAX_DRY if self._is_known else min(self._n_slots, _MAX_DRY)):
            return RowError("transient", str(error))
        if self._is_known:
            return TransientError(error.what, f"no answer to {self._n_dry} requests in a row, last: {error.detail}")
        return TeacherError(
            f"teacher {self._teacher.name} at {error.what}",
            f"no answer to the first {self._n_dry} requests in {self._max_attempts} attempts each ({error.detail})",
            "an endpoint that answers chat completions",
            "check that it runs and that teacher.base_url is right, then run again",
        )
