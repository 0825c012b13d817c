"""How one request gets its reply: attempts, waits between them, and when to give up. Times are seconds.

A `TransientError` uses up an attempt, a `ForbiddenError` all of them. A refusal for the rate uses up none: the request
is put off and its slot is free for another.
"""

from collections import Counter

from candist_core.errors import (
    ForbiddenError,
    RateLimitedError,
    RowError,
    SilentError,
    TeacherError,
    TransientError,
)
from candist_core.pace import Pace, Patience, Sent
from candist_core.ports import Reply, Request, Teacher

# So many texts given up with no answer between them are the endpoint's fault and not theirs.
_MAX_DRY = 8


class Asker:
    """Asks a teacher until it answers, for all slots of one call.

    `n_texts` are to be asked about. Whether the endpoint has ever answered, the pace knows.
    """

    def __init__(self, teacher: Teacher, pace: Pace, *, max_attempts: int, n_texts: int, patience: Patience) -> None:
        self._teacher, self.pace = teacher, pace
        self._max_attempts, self._patience = max_attempts, patience
        self._n_texts = n_texts
        # By doc_id: of a text with several samples each may be given up.
        self._dry: set[str] = set()
        self._n_attempts: Counter[str] = Counter()
        self._n_refused: Counter[str] = Counter()

    async def ask(self, request: Request) -> Reply | None:
        """One request's reply, after as many attempts as it takes; None when the run wants nothing sent any more.

        Raises:
            RateLimitedError: refused for the rate; ask again in `put_off_s`.
            RowError: the endpoint refuses this request for good, or its attempts are used up.
            TeacherError: the teacher says so, or the first texts used up their attempts and none was ever answered,
                or texts in a row are forbidden.
            TransientError: the endpoint fell silent, or refuses everything for its rate for too long.
        """
        while (sent := await self.pace.ready(request)) is not None:
            try:
                reply = await self._teacher.ask(request)
            except RateLimitedError as error:
                self._n_refused[request.key] += 1
                self.pace.refused(sent, error, self._teacher.quotas)
                raise
            except TransientError as error:
                self.pace.failed(sent, error)
                self._n_attempts[request.key] += 1
                if (n_attempts := self._n_attempts[request.key]) >= self._max_attempts:
                    raise self._given_up(request, error) from error
                await self.pace.rest(self._patience.backoff_s(request.key, n_attempts, error.retry_after_s))
            except RowError:
                self._note_answer(sent, None)
                raise
            except ForbiddenError as error:
                self.pace.failed(sent)
                if (outcome := self._given_up(request, error)) is error:
                    # Its own cause, it could not cross Dask.
                    raise
                raise outcome from error
            except BaseException:
                self.pace.failed(sent)
                raise
            else:
                self._note_answer(sent, reply)
                return reply
        return None

    @property
    def breath_s(self) -> float:
        """How long a slot holds still after a refusal."""
        return self._patience.breath_s

    def put_off_s(self, request: Request, error: RateLimitedError) -> float:
        """How long a refused request waits: what the endpoint asks for; where it does not say, longer each time."""
        if error.retry_after_s is not None:
            return error.retry_after_s
        return self._patience.backoff_s(request.key, self._n_refused[request.key])

    def _note_answer(self, sent: Sent, reply: Reply | None) -> None:
        self._dry.clear()
        self.pace.answered(sent, reply, self._teacher.quotas)

    def _given_up(
        self, request: Request, error: TransientError | ForbiddenError
    ) -> RowError | TransientError | TeacherError:
        """What to make of a request without attempts left: its own fault, or the endpoint's."""
        self._dry.add(request.doc_id)
        n_dry, is_known = len(self._dry), self.pace.is_known
        if n_dry < (_MAX_DRY if is_known else min(self._n_texts, _MAX_DRY)):
            return RowError("transient", error.detail if isinstance(error, ForbiddenError) else str(error))
        if isinstance(error, ForbiddenError):
            return error
        if is_known:
            return TransientError(error.what, f"no answer to {n_dry} texts in a row, last: {error.detail}")
        return SilentError(
            f"teacher {self._teacher.name} at {error.what}",
            f"no answer to the first {n_dry} texts in {self._max_attempts} attempts each ({error.detail})",
            "an endpoint that answers chat completions",
            "check that it runs and that teacher.base_url is right, then run again",
        )
