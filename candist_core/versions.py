"""Versions of a data set: their numbers, their tags, and the commit that all of them go through.

```
<dataset>/manifests/v00000001.json     a commit; created once, never changed; goes with `candist remove`
<dataset>/tags/<name>.json             a name that a person gave to a number; one object, replaced as a whole
<dataset>/latest.json                  a hint for people
```

`latest` is the highest number. Rolling back is a commit as well: the next number, under which the content of an older
version stands. Invariant: whoever resolves a reference gets one manifest, and so one whole version, at any moment.
"""

import json
import logging
import re
from collections.abc import Iterable
from datetime import datetime

from pydantic import Field

from candist_core.errors import ConfigError, ContractError, StoreError, TransientError
from candist_core.lease import leased
from candist_core.manifest import Manifest, decode_as, decode_manifest, encode_manifest
from candist_core.ports import TableStore
from candist_core.reports import Report

log = logging.getLogger(__name__)

MAX_RACES = 1000
"""Each lost race means that another publisher committed; so many in a row mean that something else is wrong."""

_NUMBERED = re.compile(r"/manifests/v(\d{8})\.json$")
VERSION_ID = re.compile(r"[0-9a-f]{16}")
"""What a version's id is, and so the name of its folder."""
_TAG = "tag/1"
_TAG_NAME = r"^[A-Za-z][A-Za-z0-9._-]{0,99}$"


class Tag(Report):
    """A name for one version of a data set."""

    contract: str = _TAG
    name: str = Field(pattern=_TAG_NAME)
    number: int = Field(ge=1)
    version: str


def list_versions(store: TableStore, dataset: str) -> list[int]:
    """Numbers of a data set's versions, ascending; empty when there is none."""
    found = (_NUMBERED.search(path) for path in store.list_paths(f"{dataset}/manifests"))
    return sorted(int(match[1]) for match in found if match)


def read_manifest(store: TableStore, dataset: str, version: int | str = "latest") -> Manifest:
    """The manifest of a version: "latest", a number, an id of 16 hex digits, or a tag.

    Raises:
        StoreError: no such data set or version; the sentence names those there are.
        ContractError: the manifest is of a later version of candist.
    """
    numbers, wanted = list_versions(store, dataset), str(version)
    if not numbers:
        names = sorted({path.split("/")[0] for path in store.list_paths("") if _NUMBERED.search(path)})
        known = f"one of {', '.join(names)}" if names else "one that was published"
        raise StoreError(f"data set {dataset!r}", "no version of it", known, "correct its name or the location")
    if wanted == "latest":
        return read_numbered(store, dataset, numbers[-1])
    if VERSION_ID.fullmatch(wanted):
        found = find_content(store, dataset, wanted, numbers)
    elif wanted.isdecimal():
        found = read_numbered(store, dataset, int(wanted)) if int(wanted) in numbers else None
    else:
        found = _tagged(store, dataset, wanted)
    if found is None:
        known = ", ".join([*map(str, numbers), *_tag_names(store, dataset)])
        raise StoreError(
            f"data set {dataset!r}", f"no version {wanted!r}", f"latest, one of {known}, or an id",
            "correct the version",
        )  # fmt: skip
    return found


def read_numbered(store: TableStore, dataset: str, number: int) -> Manifest:
    """The manifest under one number.

    Raises:
        ContractError: it is of a later version of candist, or of another data set or number.
        StoreError: there is none.
    """
    path = manifest_path(dataset, number)
    manifest = decode_manifest(store.read_bytes(path), path)
    if (manifest.dataset, manifest.number) != (dataset, number):
        found = f"{manifest.dataset} number {manifest.number} in {path}"
        raise ContractError(manifest.contract, found, f"{dataset} number {number}")
    return manifest


def find_content(store: TableStore, dataset: str, version: str, numbers: Iterable[int]) -> Manifest | None:
    """Of these numbers the highest whose content is the version, if one is."""
    manifests = (read_numbered(store, dataset, number) for number in sorted(numbers, reverse=True))
    return next((manifest for manifest in manifests if manifest.version == version), None)


def next_manifest(store: TableStore, manifest: Manifest, numbers: list[int]) -> Manifest:
    """The manifest with the number after these, and the version of the highest of them as its parent."""
    parent = read_numbered(store, manifest.dataset, numbers[-1]).version if numbers else None
    return manifest.model_copy(update={"number": numbers[-1] + 1 if numbers else 1, "parent": parent})


def commit(store: TableStore, manifest: Manifest) -> bool:
    """Create the manifest under its number: the moment at which a version is there. False: the number is taken."""
    if not store.create_bytes(manifest_path(manifest.dataset, manifest.number), encode_manifest(manifest)):
        return False
    write_hint(store, manifest)
    return True


def write_hint(store: TableStore, manifest: Manifest) -> None:
    """Say in `latest.json` that this version is the latest; a failure is only logged."""
    hint = {"contract": "latest/1", "number": manifest.number, "version": manifest.version}
    try:
        store.write_bytes(f"{manifest.dataset}/latest.json", json.dumps(hint).encode())
    except (StoreError, TransientError) as error:
        # The version is committed, and readers list the manifests; saying that it failed would be untrue.
        log.warning("the hint latest.json of %s was not written: %s", manifest.dataset, error)


def roll_back(store: TableStore, target: Manifest, created_at: datetime) -> tuple[Manifest, bool]:
    """Make an older version's content the latest again, under the next number; nothing is copied or removed.

    Args:
        store: where the data set lies.
        target: the version to go back to.
        created_at: when, for the manifest.

    Returns:
        The latest manifest, and whether it is new: False where that content is the latest already.

    Raises:
        StoreError: a file of the older version is gone.
        TransientError: the older version is being removed; too many others committed first.
    """
    again = target.model_copy(
        update={"created_at": created_at, "restores": target.restores or target.number, "changes": None}
    )
    with leased(store, target.dataset, target.version) as lease:
        for _ in range(MAX_RACES):
            numbers = list_versions(store, target.dataset)
            latest = read_numbered(store, target.dataset, numbers[-1])
            if latest.version == target.version:
                return latest, False
            numbered = next_manifest(store, again, numbers)
            lease.announce(numbered.number)
            # Only now: a removal that ended before took files, one that begins after sees what was announced.
            _check_whole(store, target)
            if commit(store, numbered):
                return numbered, True
    raise TransientError(f"data set {target.dataset}", f"{MAX_RACES} others committed first")


def _check_whole(store: TableStore, target: Manifest) -> None:
    stored = set(store.list_paths(target.folder))
    if gone := [file.path for file in target.files if f"{target.folder}/{file.path}" not in stored]:
        what = f"{len(gone)} of its files gone, the first is {gone[0]}"
        raise StoreError(f"version {target.number} of {target.dataset}", what, "all of them", "choose another version")


def list_tags(store: TableStore, dataset: str) -> list[Tag]:
    """All tags of a data set, by name.

    Raises:
        ContractError: one is of a later version of candist.
    """
    return [_read_tag(store, dataset, name) for name in _tag_names(store, dataset)]


def set_tag(store: TableStore, manifest: Manifest, name: str, *, may_move: bool = False) -> bool:
    """Give a version a name; False where it has it already.

    Raises:
        ConfigError: a name that could be taken for a number, an id or "latest".
        StoreError: another version has the name, and it may not move.
    """
    if not re.fullmatch(_TAG_NAME, name) or VERSION_ID.fullmatch(name) or name == "latest":
        raise ConfigError(
            f"tag {name!r}", "a name that cannot be one", "a letter, then letters, digits, dots, - or _, not latest",
            "choose another",
        )  # fmt: skip
    path = _tag_path(manifest.dataset, name)
    data = Tag(name=name, number=manifest.number, version=manifest.version).model_dump_json().encode()
    if store.create_bytes(path, data):
        return True
    tag = _read_tag(store, manifest.dataset, name)
    if tag.number == manifest.number:
        return False
    if not may_move:
        found = f"it at version {tag.number}"
        raise StoreError(f"tag {name!r} of {manifest.dataset}", found, "a name still free", "move it with --move")
    store.write_bytes(path, data)
    return True


def delete_tag(store: TableStore, dataset: str, name: str) -> None:
    """Take a name away; one that is not given is no error."""
    store.delete([_tag_path(dataset, name)])


def _tagged(store: TableStore, dataset: str, name: str) -> Manifest | None:
    if name not in _tag_names(store, dataset):
        return None
    tag = _read_tag(store, dataset, name)
    manifest = read_numbered(store, dataset, tag.number)
    if manifest.version != tag.version:
        found = f"tag {name!r} of {dataset} for {tag.version} at number {tag.number}"
        raise ContractError(tag.contract, found, manifest.version)
    return manifest


def _tag_names(store: TableStore, dataset: str) -> list[str]:
    folder = f"{dataset}/tags/"
    names = (path.removeprefix(folder).removesuffix(".json") for path in store.list_paths(folder.rstrip("/")))
    return sorted(name for name in names if re.fullmatch(_TAG_NAME, name))


def _read_tag(store: TableStore, dataset: str, name: str) -> Tag:
    path = _tag_path(dataset, name)
    return decode_as(Tag, _TAG, store.read_bytes(path), path)


def _tag_path(dataset: str, name: str) -> str:
    return f"{dataset}/tags/{name}.json"


def manifest_path(dataset: str, number: int) -> str:
    """Where the manifest of a number lies."""
    return f"{dataset}/manifests/v{number:08d}.json"
