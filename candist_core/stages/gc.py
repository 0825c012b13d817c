"""Garbage collection: what publishers that were killed left behind, found and, if that is wanted, removed.

Three kinds: version folders that no manifest names, local writes that never ended (hidden files), and multipart
uploads that were never completed. Versions that a manifest names are never touched; neither is what a publisher is
at work on (see `candist_core.lease`), nor any folder that is not named as candist names them: the place may hold
folders of other programs.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from candist_core.config import Location
from candist_core.edges.objects import (
    Upload,
    abort_upload,
    is_unfinished,
    list_modified,
    list_uploads,
    remove_empty_folders,
)
from candist_core.edges.store import Store, open_store
from candist_core.errors import CandistError, ContractError, StoreError
from candist_core.lease import REMOVAL, lease_folder, read_note
from candist_core.manifest import NAME
from candist_core.stages.versions import split_place
from candist_core.versions import VERSION_ID, list_versions, read_numbered

_HOUR_S = 3600.0
_TAKE_OVER_S = 1 * _HOUR_S
"""After so long without a sign, another's removal counts as dead. It gives a sign every minute."""
_SIGN_S = 60.0
_FOLDERS = ("versions", "publishing")
"""In both a version that was begun has a folder, whether or not it was ever committed."""


class Kind(StrEnum):
    """What kind of leftover it is; a data set is none, but one that was left alone."""

    FOLDER = "version folder"
    WRITE = "unfinished write"
    UPLOAD = "multipart upload"
    DATASET = "data set"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no manifest names. `kept` says why it stays; empty: it may go, or is gone."""

    dataset: str
    kind: Kind
    path: str
    age_s: float
    n_objects: int = 1
    kept: str = ""


def collect_garbage(place: Location, *, older_than_s: float = 24 * _HOUR_S, delete: bool = False) -> list[Leftover]:
    """Find what killed publishers left in a place, and remove it if `delete` is set.

    Args:
        place: a folder of data sets, or one data set.
        older_than_s: leave alone what was written to within so many seconds; a publisher at work gives a sign with
            every file, and at least once a minute between files. A lower bound stops slow publishers, who then begin
            anew; it cannot harm a version.
        delete: remove what may go; else only tell of it.

    Returns:
        What was found. A data set with a manifest that is damaged, or of a later candist and so may refer to more than
        this one knows, is left alone and told of as such; the others are not held up by it.

    Raises:
        StoreError: no data set there, no right to list or to remove.
    """
    store, datasets = _datasets_at(place)
    return [left for dataset in datasets for left in _leftovers(_Collection(store, dataset, older_than_s, delete))]


def _leftovers(collection: "_Collection") -> Iterator[Leftover]:
    try:
        yield from collection.leftovers()
    except ContractError as error:
        yield Leftover(collection.dataset, Kind.DATASET, collection.dataset, 0.0, n_objects=0, kept=str(error))


def remove_unnamed(store: Store, dataset: str, version: str) -> Leftover:
    """Remove the folder of a version that no manifest names any more, as garbage collection would."""
    return _Collection(store, dataset, older_than_s=0.0, delete=True).remove(version)


def _datasets_at(place: Location) -> tuple[Store, list[str]]:
    """The data sets in a place, also those whose first version was never committed."""
    store = open_store(place)
    if split := split_place(place.uri):
        around = open_store(place.model_copy(update={"uri": split[0]}))
        if _is_dataset(around, split[1]):
            return around, [split[1]]
    names = [name for name in store.list_folders() if _is_dataset(store, name)]
    if not names:
        raise StoreError(
            f"place {place.uri}", "no data set", "a folder of published data sets, or one of them", "correct it"
        )
    return store, names


def _is_dataset(store: Store, name: str) -> bool:
    """Whether a folder is a data set of candist's; that it has folders called as a data set's does not make it one."""
    if not re.fullmatch(NAME, name):
        return False
    return any(_versions_in(store, name, folder) for folder in _FOLDERS) or bool(list_versions(store, name))


def _versions_in(store: Store, dataset: str, folder: str) -> set[str]:
    """Names of a data set's folders of versions; others that lie beside them are somebody else's."""
    return {name for name in store.list_folders(f"{dataset}/{folder}") if VERSION_ID.fullmatch(name)}


@dataclass(frozen=True, slots=True)
class _Collection:
    """One data set's."""

    store: Store
    dataset: str
    older_than_s: float
    delete: bool

    def leftovers(self) -> Iterator[Leftover]:
        """Tell of everything, removing it on the way if that is wanted."""
        named = {read_numbered(self.store, self.dataset, number).version for number in self._numbers()}
        started, leased = (_versions_in(self.store, self.dataset, folder) for folder in _FOLDERS)
        for version in sorted(started | leased):
            if version not in named:
                yield self._unnamed(version)
            elif version in leased:
                # Its publisher committed and was killed before it could take the lease back.
                yield from self._stale_leases(version)
        yield from self._unfinished_writes(f"{self.dataset}/versions/{version}/" for version in started - named)
        yield from self._uploads()

    def remove(self, version: str) -> Leftover:
        """Remove one version that is not named, or say why it stays."""
        return self._unnamed(version)

    def _unnamed(self, version: str) -> Leftover:
        ages = self._ages(version)
        left = Leftover(
            self.dataset, Kind.FOLDER, f"{self.dataset}/versions/{version}", min(ages.values(), default=0.0)
        )
        left = replace(left, n_objects=sum(path.startswith(f"{left.path}/") for path in ages))
        if left.age_s < self.older_than_s:
            return replace(left, kept="a publisher may be at work on it")
        return self._remove_version(version, left) if self.delete else left

    def _remove_version(self, version: str, left: Leftover) -> Leftover:
        mark = f"{lease_folder(self.dataset, version)}/{REMOVAL}"
        if not self.store.create_bytes(mark, b"{}"):
            age_s = self._age(list_modified(self.store, lease_folder(self.dataset, version)).get(mark))
            if age_s < _TAKE_OVER_S:
                return replace(left, kept="another candist gc is removing it")
            self.store.write_bytes(mark, b"{}")
        # The mark stands; only what is read from here on may decide (see `candist_core.lease`).
        try:
            reason = self._reason_to_keep(version)
        except CandistError:
            self.store.delete([mark])
            raise
        if reason:
            self.store.delete([mark])
            return replace(left, kept=reason)
        signed_s = time.monotonic()
        for path in self._ages(version):
            if time.monotonic() - signed_s > _SIGN_S:
                self.store.write_bytes(mark, b"{}")
                signed_s = time.monotonic()
            self.store.delete([path])
        self.store.delete([mark])
        for folder in (left.path, lease_folder(self.dataset, version)):
            remove_empty_folders(self.store, folder)
        return left

    def _reason_to_keep(self, version: str) -> str:
        ages = self._ages(version)
        if min(ages.values(), default=self.older_than_s) < self.older_than_s:
            return "a publisher is at work on it"
        folder = lease_folder(self.dataset, version)
        # A lease that is being written is none yet: whoever writes it looks for our mark after that.
        leases = [path for path in ages if path.startswith(f"{folder}/") and not is_unfinished(path)]
        wanted = set(self._announced(folder, leases))
        numbers = self._numbers()
        if any(read_numbered(self.store, self.dataset, number).version == version for number in reversed(numbers)):
            return "it has been published meanwhile"
        if free := sorted(wanted.difference(numbers)):
            return f"its publisher stopped right before its commit as version {free[0]}, which is still to be had"
        return ""

    def _announced(self, folder: str, leases: Sequence[str]) -> Iterator[int]:
        """The numbers that publishers were about to take."""
        for path in leases:
            try:
                number = read_note(self.store, path).number
            except StoreError:
                if path in self.store.list_paths(folder):
                    raise
                # Its publisher has ended since; what it committed is found by its number.
                continue
            if number is not None:
                yield number

    def _stale_leases(self, version: str) -> Iterator[Leftover]:
        folder = lease_folder(self.dataset, version)
        for path, modified_s in list_modified(self.store, folder).items():
            left = Leftover(self.dataset, Kind.WRITE, path, self._age(modified_s))
            yield self._remove_object(left)
        if self.delete:
            remove_empty_folders(self.store, folder)

    def _unfinished_writes(self, told: Iterable[str]) -> Iterator[Leftover]:
        """Those on disk that lie in none of the folders told of already."""
        if self.store.local_root is None:
            return
        passed = tuple(told)
        for path, modified_s in list_modified(self.store, self.dataset).items():
            if is_unfinished(path) and not path.startswith(passed):
                yield self._remove_object(Leftover(self.dataset, Kind.WRITE, path, self._age(modified_s)))

    def _uploads(self) -> Iterator[Leftover]:
        for upload in list_uploads(self.store, self.dataset):
            left = Leftover(self.dataset, Kind.UPLOAD, upload.path, self._age(upload.started_s))
            yield self._remove_object(left, upload)

    def _remove_object(self, left: Leftover, upload: Upload | None = None) -> Leftover:
        if left.age_s < self.older_than_s:
            return replace(left, kept="a publisher may be at work on it")
        if self.delete:
            if upload is None:
                self.store.delete([left.path])
            else:
                abort_upload(self.store, upload)
        return left

    def _ages(self, version: str) -> dict[str, float]:
        """Seconds since each object of a version's folder and each of its leases was written."""
        folders = (f"{self.dataset}/versions/{version}", lease_folder(self.dataset, version))
        found = chain.from_iterable(list_modified(self.store, folder).items() for folder in folders)
        return {path: self._age(modified_s) for path, modified_s in found if not path.endswith(f"/{REMOVAL}")}

    def _numbers(self) -> list[int]:
        return list_versions(self.store, self.dataset)

    def _age(self, modified_s: float | None) -> float:
        return 0.0 if modified_s is None else max(0.0, time.time() - modified_s)
