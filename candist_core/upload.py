"""Upload: the parts of a version into its folder, several at once, with a bounded number of bytes on their way.

Invariant: when `finish` returns, every part is stored with the hash that its `VersionFile` tells.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from types import TracebackType
from typing import Self

from candist_core.assemble import Part
from candist_core.errors import ContractError
from candist_core.ports import TableStore

AT_ONCE = 8
"""Objects written at once; more gained nothing against a server on the same machine."""
_MAX_BYTES = 64 * 1024 * 1024
# A streamed object holds one piece that is read and those that are sent (see `candist_core.edges.multipart`).
_STREAM_BYTES = 32 * 1024 * 1024
_SIGN_S = 20.0


class Uploads:
    """Parts on their way into one folder; a block of `with` that fails leaves none under way.

    Args:
        target: where they go.
        folder: the version's folder.
        source: where parts without data lie.
        at_once: objects written at once.
        on_wait: called now and then while the caller has to wait, and in the caller's thread.
    """

    def __init__(
        self, target: TableStore, folder: str, source: TableStore, at_once: int, on_wait: Callable[[], None]
    ) -> None:
        self._target, self._folder, self._source, self._on_wait = target, folder, source, on_wait
        self._pool, self._at_once = ThreadPoolExecutor(at_once), at_once
        self._sizes: dict[Future[None], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def put(self, part: Part) -> None:
        """Begin to store a part, once there is room for it.

        Raises:
            StoreError, TransientError, ContractError: a part before it could not be stored.
        """
        size = _STREAM_BYTES if part.source else len(part.data)
        while self._sizes and (len(self._sizes) >= self._at_once or sum(self._sizes.values()) + size > _MAX_BYTES):
            self._settle()
        self._sizes[self._pool.submit(self._store, part)] = size

    def finish(self) -> None:
        """Wait until every part is stored.

        Raises:
            StoreError, TransientError, ContractError: one could not be.
        """
        while self._sizes:
            self._settle()

    def _settle(self) -> None:
        done, _ = wait(self._sizes, timeout=_SIGN_S, return_when=FIRST_COMPLETED)
        for future in done:
            del self._sizes[future]
            future.result()
        self._on_wait()

    def _store(self, part: Part) -> None:
        path = f"{self._folder}/{part.file.path}"
        if part.source is None:
            self._target.write_bytes(path, part.data)
        else:
            self._target.write_chunks(path, _checked(self._source.read_chunks(part.source), part))


def _checked(chunks: Iterator[bytes], part: Part) -> Iterator[bytes]:
    """The same chunks; the last is held back until the hash of all of them is known to be right."""
    digest, last = sha256(), b""
    for chunk in chunks:
        if last:
            yield last
        digest.update(chunk)
        last = chunk
    if digest.hexdigest() != part.file.sha256:
        raise ContractError("student", f"other bytes in {part.source} than were trained", "weights at rest")
    yield last
