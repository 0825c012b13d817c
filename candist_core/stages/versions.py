"""Published versions, from a reference such as `s3://bucket/sets/reviews@3`: found, listed, read, verified, named.

A reference is `PLACE/DATASET`, then `@` and `latest` (which may be left out), a number, an id, or a tag; or the folder
of a copy that `candist_core.stages.pull` made.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import polars as pl

from candist_core.assemble import PUBLISHED
from candist_core.config import Location
from candist_core.edges.objects import hash_object
from candist_core.edges.scan import read_metadata, scan_tables, told_rows
from candist_core.edges.store import Store, open_store
from candist_core.errors import ContractError, StoreError, TransientError
from candist_core.manifest import Manifest, VersionFile, decode_manifest
from candist_core.versions import (
    delete_tag,
    list_tags,
    list_versions,
    read_manifest,
    read_numbered,
    roll_back,
    set_tag,
)

MANIFEST = "manifest.json"
"""Where the manifest stands in the folder of a copy, written last."""
_AT_ONCE = 8
"""Objects read at once; each takes 8 MB."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version and the store it lies in; `copy` is the folder of a copy that `pull` made."""

    manifest: Manifest
    store: Store
    copy: str | None = None

    @property
    def folder(self) -> str:
        """The version's folder, relative to its store."""
        return self.copy or self.manifest.folder

    @property
    def uri(self) -> str:
        """The version's folder, for any tool that reads Parquet."""
        return f"{self.store.uri.rstrip('/')}/{self.folder}"

    @property
    def reference(self) -> str:
        """What finds it again."""
        return self.uri if self.copy else f"{self.store.uri}/{self.manifest.dataset}@{self.manifest.number}"

    @property
    def tags(self) -> list[str]:
        """Its names; a copy has none."""
        if self.copy:
            return []
        tags = list_tags(self.store, self.manifest.dataset)
        return [tag.name for tag in tags if tag.number == self.manifest.number]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing: a version of a data set. `refusal` tells why a manifest could not be read."""

    dataset: str
    number: int
    n_versions: int
    tags: tuple[str, ...]
    manifest: Manifest | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that is not what its manifest says, in words."""

    path: str
    found: str
    wanted: str


def find_version(reference: Location) -> Version:
    """The version that a reference names; `reference.uri` is `PLACE/DATASET[@VERSION]`, or the folder of a copy.

    Raises:
        StoreError: no such data set or version; the sentence names those there are.
        ContractError: its manifest is of a later version of candist.
    """
    uri = reference.uri
    place, version = _split_reference(uri)
    found = split_place(place)
    if found is None or not version:
        raise StoreError(
            f"version {uri!r}", "no data set in it", "FOLDER/DATASET or FOLDER/DATASET@VERSION", "name one"
        )
    root, dataset = found
    store = open_store(reference.model_copy(update={"uri": root}))
    if not list_versions(store, dataset):
        if version == "latest" and (copy := _copy_at(reference)) is not None:
            return copy
        inside = find_datasets(open_store(reference.model_copy(update={"uri": place})))
        if inside:
            names = ", ".join(f"{place.rstrip('/')}/{name}" for name in inside)
            raise StoreError(f"version {uri!r}", "a folder of data sets", f"one of {names}", "name one")
    return Version(read_manifest(store, dataset, version), store)


def _split_reference(uri: str) -> tuple[str, str]:
    place, mark, version = uri.rpartition("@")
    return (uri, "latest") if not mark or "/" in version else (place, version)


def _copy_at(reference: Location) -> Version | None:
    """The copy of a version that `pull` made in a folder, if one lies there whole."""
    if (found := split_place(reference.uri)) is None:
        return None
    root, folder = found
    store = open_store(reference.model_copy(update={"uri": root}))
    path = f"{folder}/{MANIFEST}"
    if path not in store.list_paths(folder):
        return None
    return Version(decode_manifest(store.read_bytes(path), path), store, folder)


def load(
    reference: str,
    *,
    split: str | None = None,
    verify: bool = False,
    endpoint_url: str | None = None,
    region: str | None = None,
    profile: str | None = None,
) -> pl.LazyFrame:
    """A version's labels as a polars LazyFrame: columns and row groups that a query does not need are not read.

    Args:
        reference: `PLACE/DATASET`, with `@latest`, `@3`, `@ID` or `@TAG` after it; looked up now, once.
        split: only the files of this split.
        verify: hash every data file first and refuse changed ones; else their sizes alone are compared.
        endpoint_url: of an S3-compatible store.
        region: of the bucket.
        profile: of the AWS credentials file; else the usual chain.

    Returns:
        The columns of `published/1`, gold where there is some, the user's own columns, and `split` as the last.

    Raises:
        StoreError: no such data set, version or split; a file that is gone or changed.
        ContractError: the version was published by a later candist, under a contract that this one does not know.

    Example:
        >>> load("memory://nothing/reviews@3").filter("needs_review").collect()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        candist_core.errors.StoreError: data set 'reviews': found no version of it, wanted one that was published; ...
    """
    version = find_version(Location(uri=reference, endpoint_url=endpoint_url, region=region, profile=profile))
    return scan_version(version, split=split, verify=verify)


def scan_version(version: Version, *, split: str | None = None, verify: bool = False) -> pl.LazyFrame:
    """The labels of a version that is found already; see `load`."""
    manifest = version.manifest
    files = _data_files(manifest)
    if split is not None:
        names = sorted({file.split or "" for file in files})
        files = [file for file in files if file.split == split]
        if not files:
            raise StoreError(
                f"version {manifest.number} of {manifest.dataset}", f"no split {split!r}",
                f"one of {', '.join(names)}", "correct its name",
            )  # fmt: skip
    if not files:
        raise ContractError(manifest.contract, f"no data in number {manifest.number}", "a file with rows")
    faults = _hashed(version, files) if verify else _sized(version, files)
    if faults:
        raise damage(version, faults)
    contract = read_metadata(version.store, _path(version, files[0])).get("contract", "no contract")
    if contract != PUBLISHED.name:
        raise ContractError(contract, "a contract that this version does not know in its data", PUBLISHED.name)
    # A scan for each run of files of one split, not for each file: the rows keep their order, the plan stays small.
    scans = [
        scan_tables(version.store, [_path(version, file) for file in group]).with_columns(
            split=pl.lit(name, dtype=pl.String)
        )
        for name, group in groupby(files, key=lambda file: file.split)
    ]
    return pl.concat(scans)


@contextmanager
def told_reading(version: Version) -> Iterator[None]:
    """Turn what polars raises over the rows of a version into one sentence, which names the damage if there is any.

    Raises:
        StoreError: a file has other bytes than were published; by its size alone nobody could tell.
        TransientError: all are as published, so the store failed.
    """
    try:
        with told_rows(f"version {version.uri}"):
            yield
    except TransientError:
        if faults := _hashed(version, _data_files(version.manifest)):
            raise damage(version, faults) from None
        raise


def find_datasets(store: Store) -> list[str]:
    """Names of the data sets right below a place, those with a version."""
    return [name for name in store.list_folders() if list_versions(store, name)]


def list_entries(place: Location) -> list[Entry]:
    """The latest version of every data set in a place, or all versions of one where the place is a data set.

    A manifest that this candist cannot read has a line that says so, and hides no other.

    Raises:
        StoreError: there is no data set.
    """
    if found := split_place(place.uri):
        store = open_store(place.model_copy(update={"uri": found[0]}))
        if numbers := list_versions(store, found[1]):
            return _entries(store, found[1], numbers, numbers)
    store = open_store(place)
    known = [(name, list_versions(store, name)) for name in store.list_folders()]
    entries = [entry for name, numbers in known for entry in _entries(store, name, numbers[-1:], numbers)]
    if not entries:
        raise StoreError(
            f"place {place.uri}", "no data set", "a folder of published data sets, or one of them", "correct it"
        )
    return entries


def verify_version(version: Version) -> list[Fault]:
    """Hash every object of a version and say what is not as it was published; an empty list: all is."""
    manifest = version.manifest
    named = {file.path for file in manifest.files} | ({MANIFEST} if version.copy else set())
    prefix = f"{version.folder}/"
    stored = (path.removeprefix(prefix) for path in version.store.list_paths(version.folder))
    extra = [Fault(path, "an object that no manifest names", "none") for path in stored if path not in named]
    return [*_hashed(version, manifest.files), *extra]


def damage(version: Version, faults: list[Fault], *, are_listed: bool = False) -> StoreError:
    """The error that tells of a version that is not as it was published, and of its first faults unless listed."""
    told = "; ".join(f"{one.path}: {one.found}, wanted {one.wanted}" for one in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    named = "" if are_listed else f" ({told}{more})"
    return StoreError(
        f"version {version.uri}", f"{len(faults)} of its objects not as published{named}",
        f"what manifest {version.manifest.number} says",
        "restore them from a copy, or roll back to a version that is whole",
    )  # fmt: skip


def tag_version(reference: Location, name: str, *, may_move: bool = False) -> tuple[Version, bool]:
    """Give a version a name that readers may use after `@`; False where it has it already.

    Raises:
        ConfigError: a name that could be taken for something else.
        StoreError: another version has the name, and it may not move; a file of the version is gone.
    """
    version = _published(reference)
    if faults := _sized(version, version.manifest.files):
        raise damage(version, faults)
    return version, set_tag(version.store, version.manifest, name, may_move=may_move)


def untag_version(reference: Location, name: str) -> Version:
    """Take a name from the version that has it; the version stays.

    Args:
        reference: the data set.
        name: the name.

    Raises:
        StoreError: no version has it; the sentence names those there are.
    """
    version = _published(reference.model_copy(update={"uri": f"{_split_reference(reference.uri)[0]}@{name}"}))
    delete_tag(version.store, version.manifest.dataset, name)
    return version


def _published(reference: Location) -> Version:
    version = find_version(reference)
    if version.copy:
        raise StoreError(f"version {reference.uri!r}", "a copy", "the place it was pulled from", "name that")
    return version


def rollback_version(reference: Location) -> tuple[Version, bool]:
    """Make the content of an older version the latest again, under the next number; False where it is already.

    Raises:
        StoreError: no such version, or it is not whole.
    """
    version = _published(reference)
    manifest, is_new = roll_back(version.store, version.manifest, datetime.now(UTC))
    return Version(manifest, version.store), is_new


def split_place(place: str) -> tuple[str, str] | None:
    """Where a data set lies and its name, of a place that may be one; None for a bucket as a whole.

    Example:
        >>> split_place("s3://bucket/sets/reviews"), split_place("reviews"), split_place("s3://bucket")
        (('s3://bucket/sets', 'reviews'), ('.', 'reviews'), None)
    """
    if place.rstrip("/").rpartition("/")[2] in (".", "..") and "://" not in place:
        place = os.path.abspath(place)
    root, slash, dataset = place.rstrip("/").rpartition("/")
    if not dataset or root.endswith(":/"):
        return None
    return root or ("/" if slash else "."), dataset


def _entries(store: Store, dataset: str, wanted: list[int], numbers: list[int]) -> list[Entry]:
    """A line for each wanted number of a data set."""
    tags = list_tags(store, dataset) if wanted else []

    def entry(number: int) -> Entry:
        names = tuple(tag.name for tag in tags if tag.number == number)
        try:
            return Entry(dataset, number, len(numbers), names, read_numbered(store, dataset, number))
        except ContractError as error:
            return Entry(dataset, number, len(numbers), names, None, str(error))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(entry, wanted))


def _data_files(manifest: Manifest) -> list[VersionFile]:
    return [file for file in manifest.files if file.path.startswith("data/")]


def _path(version: Version, file: VersionFile) -> str:
    return f"{version.folder}/{file.path}"


def _sized(version: Version, files: Iterable[VersionFile]) -> list[Fault]:
    stored = version.store.list_sizes(version.folder)
    sizes = {file.path: stored.get(_path(version, file)) for file in files}
    return [
        _missing(file) if (size := sizes[file.path]) is None else _other_size(file, size)
        for file in files
        if sizes[file.path] != file.size_bytes
    ]


def _hashed(version: Version, files: Iterable[VersionFile]) -> list[Fault]:
    """What is wrong with these files: gone, longer or shorter, or other bytes."""
    stored = version.store.list_sizes(version.folder)

    def look(file: VersionFile) -> Fault | None:
        if _path(version, file) not in stored:
            return _missing(file)
        size, digest = hash_object(version.store, _path(version, file))
        if size != file.size_bytes:
            return _other_size(file, size)
        return None if digest == file.sha256 else Fault(file.path, _sha(digest), _sha(file.sha256))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [found for found in pool.map(look, files) if found is not None]


def _missing(file: VersionFile) -> Fault:
    return Fault(file.path, "nothing", f"{file.size_bytes:,} bytes")


def _other_size(file: VersionFile, size: int) -> Fault:
    return Fault(file.path, f"{size:,} bytes", f"{file.size_bytes:,} bytes")


def _sha(digest: str) -> str:
    return f"sha256 {digest[:12]}…"
