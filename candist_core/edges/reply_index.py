"""Which chunk of a reply log holds which key; each chunk's keys are read once in a process, however many shards ask.

A key is kept as 64 bits of its hash beside its chunk's number, 12 bytes, in sorted runs that are merged as they grow:
a logarithm's worth of short ones and some long ones. Invariant: every chunk that holds a key is named; one that does
not may be named too, rarely, so whoever reads it looks at the keys themselves.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.edges.store import Store
from candist_core.ports import TableStore

# Chunks are small and far away: reading is waiting.
READERS = 8
# Measured with 10 million keys in chunks of 5,000: 145 MiB at most, 5,000 keys looked up in 17 ms.
_LONGEST_RUN = 2**20
# The share of all entries that may belong to chunks that are gone.
_MAX_GONE = 1 / 8
# Prompts that one worker process meets at a time; the index of one that is forgotten is read anew.
_MAX_INDEXES = 16


@dataclass(frozen=True, slots=True)
class _Run:
    """`hashes` ascend, uint64 (n,); `numbers` are their chunks', uint32 (n,)."""

    hashes: NDArray[np.uint64]
    numbers: NDArray[np.uint32]

    def numbers_of(self, wanted: NDArray[np.uint64]) -> set[int]:
        """The chunks in which any of the hashes stand, which ascend."""
        at = np.searchsorted(self.hashes, wanted)
        found: set[int] = set()
        # One turn for each time that a hash stands here: as a rule one, and a last that finds none.
        while at.size:
            is_here = self.hashes[np.minimum(at, len(self.hashes) - 1)] == wanted
            is_here &= at < len(self.hashes)
            at, wanted = at[is_here], wanted[is_here]
            found.update(np.unique(self.numbers[at]).tolist())
            at = at + 1
        return found


class ReplyIndex:
    """The keys of one folder of immutable chunks. Any thread may call any method at any time.

    No two runs are merged into one of more than `longest_run` keys.
    """

    def __init__(self, longest_run: int = _LONGEST_RUN) -> None:
        self._longest_run = longest_run
        self._runs: list[_Run] = []
        self._numbers: dict[str, int] = {}
        # By number: the chunk's path, None once it is gone, and its entries.
        self._paths: list[str | None] = []
        self._sizes: list[int] = []
        self._gone: set[int] = set()
        # `_refreshing` is held while chunks are read, `_changing` for an instant.
        self._refreshing, self._changing = Lock(), Lock()

    def refresh(self, list_paths: Callable[[], Iterable[str]], read_keys: Callable[[str], pl.Series | None]) -> None:
        """Read the keys of chunks that are new, and forget those that are no longer there.

        Args:
            list_paths: the chunks that stand in the folder.
            read_keys: the keys of one chunk, in any thread; None when it is gone meanwhile.
        """
        with self._refreshing:
            with self._changing:
                known = set(self._numbers)
            listed = dict.fromkeys(list_paths())
            # What entered during the listing is in `_numbers` and not in `known`: neither forgotten nor read.
            self.forget(known - listed.keys())
            with self._changing:
                new = [path for path in listed if path not in self._numbers]
            with ThreadPoolExecutor(READERS) as readers:
                for path, keys in zip(new, readers.map(read_keys, new), strict=True):
                    if keys is not None:
                        self.add(path, keys)

    def add(self, path: str, keys: pl.Series) -> None:
        """Take in a chunk's keys; those of a chunk that is known already are passed over."""
        hashes = np.sort(keys.hash().to_numpy())
        with self._changing:
            if path in self._numbers:
                return
            number = self._numbers[path] = len(self._paths)
            self._paths.append(path)
            self._sizes.append(len(hashes))
            if len(hashes):
                self._runs.append(_Run(hashes, np.full(len(hashes), number, np.uint32)))
                self._merge()

    def forget(self, paths: Iterable[str]) -> None:
        """Drop chunks that are gone."""
        with self._changing:
            for path in paths:
                if (number := self._numbers.pop(path, None)) is not None:
                    self._paths[number] = None
                    self._gone.add(number)
            if sum(self._sizes[number] for number in self._gone) > _MAX_GONE * self.n_entries:
                self._runs = [run for run in map(self._without_gone, self._runs) if len(run.hashes)]
                self._gone.clear()
                self._merge()

    def find(self, keys: pl.Series) -> list[str]:
        """The chunks that may hold any of the keys, sorted.

        Example:
            >>> index = ReplyIndex()
            >>> index.add("replies/a", pl.Series(["k1", "k2"]))
            >>> index.add("replies/b", pl.Series(["k3"]))
            >>> index.find(pl.Series(["k3", "k4"]))
            ['replies/b']
        """
        wanted = np.unique(keys.hash().to_numpy())
        with self._changing:
            runs = tuple(self._runs)
        numbers = {number for run in runs for number in run.numbers_of(wanted)}
        with self._changing:
            return sorted(path for number in numbers if (path := self._paths[number]) is not None)

    @property
    def n_entries(self) -> int:
        """Keys held, those of chunks that are gone and not yet cleared away included."""
        return sum(len(run.hashes) for run in self._runs)

    def _merge(self) -> None:
        """Merge from the end while a run is not twice as long as the next, up to the longest."""
        while len(self._runs) > 1:
            one, two = self._runs[-2:]
            n = len(one.hashes) + len(two.hashes)
            if len(one.hashes) >= 2 * len(two.hashes) or n > self._longest_run:
                return
            hashes = np.concatenate((one.hashes, two.hashes))
            # Timsort behind `stable` finds the two ascending halves and merges them.
            order = np.argsort(hashes, kind="stable")
            merged = _Run(hashes[order], np.concatenate((one.numbers, two.numbers))[order])
            self._runs[-2:] = [merged]

    def _without_gone(self, run: _Run) -> _Run:
        is_here = ~np.isin(run.numbers, np.fromiter(self._gone, np.uint32, len(self._gone)))
        return _Run(run.hashes[is_here], run.numbers[is_here])


_opening = Lock()


def index_of(store: TableStore, folder: str) -> ReplyIndex:
    """The one index that this process has of a folder, shared by all who name the same store and folder."""
    # Two threads that miss the cache at once would make two.
    with _opening:
        return _index_at(_identity(store), folder)


@lru_cache(maxsize=_MAX_INDEXES)
def _index_at(place: object, folder: str) -> ReplyIndex:
    return ReplyIndex()


def _identity(store: TableStore) -> object:
    """What all stores of one place share: fsspec's own file systems differ from thread to thread."""
    if not isinstance(store, Store):
        return store
    place = store.place
    return place.protocol, place.root, repr(sorted(place.fs.storage_options.items()))
