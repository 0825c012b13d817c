"""The line of requests that the slots of one call take from."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heappop, heappush

from candist_core.ports import Request


class Work:
    """What is still to be asked: new requests in order, and refused ones once they are due, which go first."""

    def __init__(self, requests: Iterable[Request], clock: Callable[[], float] | None = None) -> None:
        self._new, self._clock = iter(requests), clock or time.monotonic
        self._is_new_left, self._is_stopped = True, False
        self._later: list[tuple[float, int, Request]] = []
        self._n_out = self._n_put_off = 0
        self._change = asyncio.Event()

    async def next(self) -> Request | None:
        """The next request, once there is one; None when all are settled or left."""
        while not self._is_stopped:
            if self._later and self._later[0][0] <= self._clock():
                return self._out(heappop(self._later)[2])
            if self._is_new_left:
                if (request := next(self._new, None)) is not None:
                    return self._out(request)
                self._is_new_left = False
            if not self._later and not self._n_out:
                self._wake()
                return None
            await self._wait()
        return None

    def stop(self) -> None:
        """Hand out nothing any more."""
        self._is_stopped = True
        self._wake()

    def put_off(self, request: Request, until: float) -> None:
        """Take a request back, not to be asked before a moment."""
        self._n_out -= 1
        self._n_put_off += 1
        heappush(self._later, (until, self._n_put_off, request))
        self._wake()

    def settled(self) -> None:
        """Note that a request has its reply or never will."""
        self._n_out -= 1
        if not self._n_out and not self._later and not self._is_new_left:
            self._wake()

    def _out(self, request: Request) -> Request:
        self._n_out += 1
        return request

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _wait(self) -> None:
        change = self._change
        timeout_s = self._later[0][0] - self._clock() if self._later else None
        # A wait that times out is the rule here, not an error.
        with suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), timeout_s)
