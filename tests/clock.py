"""An event loop in virtual time: waiting takes none, so that a minute of pacing is tried in milliseconds.

While it runs, `time.monotonic` tells virtual time, and threads' work is done in place, so that runs repeat exactly.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Jumps to the next timer where others would wait for it, and `late_s` beyond, as real timers do."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self.now, self._late_s = 1000.0, late_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and for no timer: a deadlock")
        if timeout > 0:
            self.now += timeout + self._late_s
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_virtually(work: Coroutine[Any, Any, T], *, late_s: float = 0.0) -> T:
    """Run a coroutine to its end in virtual time; timers fire `late_s` late (seconds)."""
    selector = _JumpingSelector(late_s)
    real = time.monotonic
    # Loops, and all that is tried here, ask this function for the time.
    time.monotonic = lambda: selector.now
    try:
        with asyncio.Runner(loop_factory=lambda: _VirtualLoop(selector)) as runner:
            return runner.run(work)
    finally:
        time.monotonic = real
