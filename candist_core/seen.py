"""Which texts and ids stood before, for corpora of any length: 24 bytes a distinct one, and the ids themselves.

Digests of 128 bits lie in sorted runs, each about twice as long as the next, and two runs of like length are merged:
a row is moved some dozen times in ten million. Invariant: equal digests are equal rows, and the first one keeps its
place.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

_DIGEST_BYTES = 16


def digests(texts: Sequence[str]) -> NDArray[np.uint64]:
    """BLAKE2b-128 of each text, (n, 2), the first eight bytes and the last.

    Example:
        >>> digests(["a", "b", "a"]).shape
        (3, 2)
    """
    joined = b"".join(blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in texts)
    return np.frombuffer(joined or bytearray(), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def hexdigests(found: NDArray[np.uint64]) -> list[str]:
    """The same as 32 hex digits each.

    Example:
        >>> hexdigests(digests(["a"])) == [blake2b(b"a", digest_size=16).hexdigest()]
        True
    """
    text = found.astype(">u8").tobytes().hex()
    return [text[start : start + 2 * _DIGEST_BYTES] for start in range(0, len(text), 2 * _DIGEST_BYTES)]


class Seen:
    """Digests with the place of their first row.

    Example:
        >>> seen = Seen()
        >>> seen.add(digests(["a", "b", "a"])).tolist()
        [0, 1, 0]
        >>> seen.add(digests(["c", "b"])).tolist()
        [3, 1]
    """

    def __init__(self) -> None:
        self.n = 0
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint64], Places]] = []

    def add(self, found: NDArray[np.uint64]) -> Places:
        """Take rows in and tell, for each, the place of the first row with its digest; (n,), counted from the start."""
        places = self.n + np.arange(len(found))
        order = np.lexsort((places, found[:, 1], found[:, 0]))
        high, low = found[order, 0], found[order, 1]
        is_same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        starts = np.flatnonzero(np.concatenate([[True], ~is_same]))[: len(found)]
        first = places[order][starts]
        high, low = high[starts], low[starts]
        group = np.cumsum(np.concatenate([[False], ~is_same]))[: len(found)]
        known = self._find(high, low)
        is_new = known < 0
        own = np.where(is_new, first, known)
        result = np.empty(len(found), dtype=np.int64)
        result[order] = own[group]
        self._push((high[is_new], low[is_new], first[is_new]))
        self.n += len(found)
        return result

    def _find(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Places:
        """Places of digests, -1 for those not seen."""
        known = np.full(len(high), -1, dtype=np.int64)
        for keys, rests, places in self._runs:
            at = np.searchsorted(keys, high)
            # Two digests may share their first half; the run then holds both, one after the other.
            while (rows := np.flatnonzero(at < len(keys))).size:
                rows = rows[keys[at[rows]] == high[rows]]
                hit = rows[rests[at[rows]] == low[rows]]
                known[hit] = places[at[hit]]
                missed = np.setdiff1d(rows, hit)
                step = np.full(len(at), len(keys))
                step[missed] = at[missed] + 1
                at = step
        return known

    def _push(self, run: tuple[NDArray[np.uint64], NDArray[np.uint64], Places]) -> None:
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            last, before = self._runs.pop(), self._runs.pop()
            # The order of the first half alone: a stable sort merges two sorted runs in linear time.
            order = np.argsort(np.concatenate([before[0], last[0]]), kind="stable")
            self._runs.append(
                (
                    np.concatenate([before[0], last[0]])[order],
                    np.concatenate([before[1], last[1]])[order],
                    np.concatenate([before[2], last[2]])[order],
                )
            )
