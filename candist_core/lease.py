"""Leases: how publishers and garbage collection keep out of each other's way, however long either is held up.

```
<dataset>/publishing/<version>/<lease>.json     a publisher is at work on the version's folder
                              /removal.json     garbage collection is at work on it
```

Each of the two writes its own word first and reads the other's after that, so of two who meet at least one sees the
other and steps back. A publisher writes, before each try to commit, the number that it is about to take; while that
number is free nobody may remove the folder, and once it is taken by another the try fails and the next one begins with
the same two steps. A rollback does as a publisher does. No clock is compared for this: how old a lease is decides only
what is worth a look.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from candist_core.errors import StoreError, TransientError
from candist_core.manifest import decode_as
from candist_core.ports import TableStore
from candist_core.reports import Report

log = logging.getLogger(__name__)

REMOVAL = "removal.json"
_CONTRACT = "lease/1"
_RENEW_S = 60.0


class LeaseNote(Report):
    """What a lease says: the number that its publisher is about to take, once it is about to."""

    contract: str = _CONTRACT
    number: int | None = None


@dataclass(slots=True)
class Lease:
    """A publisher's word that it is at work on a version's folder."""

    store: TableStore
    path: str
    _renewed_s: float = field(default=0.0, init=False)

    def renew(self) -> None:
        """Say again that the work goes on; writes at most once a minute."""
        if time.monotonic() - self._renewed_s >= _RENEW_S:
            self._write(None)

    def announce(self, number: int) -> None:
        """Say that the commit under a number comes next.

        Raises:
            TransientError: the folder is being removed, nothing may be committed.
        """
        self._write(number)
        self._refuse_removal()

    def _begin(self) -> None:
        self._write(None)
        self._refuse_removal()

    def _write(self, number: int | None) -> None:
        self.store.write_bytes(self.path, LeaseNote(number=number).model_dump_json().encode())
        self._renewed_s = time.monotonic()

    def _refuse_removal(self) -> None:
        folder = self.path.rpartition("/")[0]
        if f"{folder}/{REMOVAL}" in self.store.list_paths(folder):
            raise TransientError(f"version folder {folder}", "candist gc or candist remove is at work on it")


def lease_folder(dataset: str, version: str) -> str:
    """Where the leases of a version lie."""
    return f"{dataset}/publishing/{version}"


@contextmanager
def leased(store: TableStore, dataset: str, version: str) -> Iterator[Lease]:
    """Hold a lease on a version's folder while the block runs.

    Raises:
        TransientError: garbage collection is at work on the folder.
    """
    lease = Lease(store, f"{lease_folder(dataset, version)}/{uuid4().hex}.json")
    try:
        lease._begin()
        yield lease
    finally:
        try:
            store.delete([lease.path])
        except (StoreError, TransientError) as error:
            # It says nothing about whether the version is committed, and garbage collection finds it.
            log.warning("the lease %s was not removed: %s", lease.path, error)


def read_note(store: TableStore, path: str) -> LeaseNote:
    """What a publisher wrote into its lease.

    Raises:
        ContractError: it is of a later version of candist, or no lease.
    """
    return decode_as(LeaseNote, _CONTRACT, store.read_bytes(path), path)
