"""Remove: an old version for good, as when it holds rows that are to be forgotten.

Its manifests go first, all that name its content, and its files after them: whoever reads sees the whole version or
none, and what a removal that was killed leaves is garbage like any other (`candist gc`). Invariant: the latest version
stays, and so does the highest number: no number is ever given twice.
"""

from dataclasses import dataclass

from candist_core.config import Location
from candist_core.errors import StoreError
from candist_core.manifest import Manifest
from candist_core.stages.gc import remove_unnamed
from candist_core.stages.versions import find_version
from candist_core.versions import list_tags, list_versions, manifest_path, read_numbered


@dataclass(frozen=True, slots=True)
class Removal:
    """A version and the numbers under which it stands; `kept` says why files of it stay, empty: none do."""

    manifest: Manifest
    numbers: tuple[int, ...]
    size_bytes: int
    kept: str = ""


def remove_version(reference: Location, *, delete: bool = False) -> Removal:
    """Find every number under which a version's content stands, and remove all of it if `delete` is set.

    Args:
        reference: `PLACE/DATASET@VERSION`.
        delete: remove it; else only tell of it.

    Raises:
        StoreError: no such version; it is the latest; it has a tag.
        ContractError: a manifest is of a later version of candist, which may refer to more than this one knows.
    """
    version = find_version(reference)
    store, found = version.store, version.manifest
    manifests = [read_numbered(store, found.dataset, number) for number in list_versions(store, found.dataset)]
    numbers = tuple(one.number for one in manifests if one.version == found.version)
    if manifests[-1].version == found.version:
        raise _refusal(found, "the latest", "an older one", "publish the next version first: candist run")
    if tags := [tag.name for tag in list_tags(store, found.dataset) if tag.number in numbers]:
        raise _refusal(found, f"the tag {', '.join(tags)} at it", "none", "move it: candist tag VERSION NAME --move")
    size_bytes = sum(file.size_bytes for file in found.files)
    if not delete:
        return Removal(found, numbers, size_bytes)
    store.delete(manifest_path(found.dataset, number) for number in numbers)
    return Removal(found, numbers, size_bytes, remove_unnamed(store, found.dataset, found.version).kept)


def _refusal(manifest: Manifest, found: str, wanted: str, step: str) -> StoreError:
    return StoreError(f"version {manifest.number} of {manifest.dataset}", found, wanted, step)
