"""Pull: a version's files to a folder of this machine, whole and checked; begun again it goes on where it stopped.

```
FOLDER/data/...  rejects.parquet  README.md  ...     as in the version's folder
      /manifest.json                                 written last: the copy is whole
      /.candist-pull/                                while it is not: which version, and files on their way
```
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from candist_core.edges.filesystem import told
from candist_core.edges.objects import fetch_object
from candist_core.errors import StoreError
from candist_core.manifest import VersionFile, decode_manifest, encode_manifest
from candist_core.stages.versions import MANIFEST, Version

_STATE = ".candist-pull"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did: files fetched now, files that were there already, bytes fetched."""

    n_fetched: int
    n_kept: int
    size_bytes: int


def pull_version(version: Version, folder: Path, on_file: Callable[[VersionFile], None] = lambda file: None) -> Pulled:
    """Copy every file of a version into a folder; each appears there whole, with the hash that was published.

    Args:
        version: what to copy.
        folder: a new or empty folder, or one in which a pull of the same version began or ended.
        on_file: told of each file that was fetched, from several threads.

    Raises:
        StoreError: the folder holds something else; a file of the version is gone or changed; no room.
        TransientError: the store failed; the same call goes on from there.
    """
    state = folder / _STATE
    with told(f"folder {folder}", StoreError):
        _claim(version, folder)
        waiting = [file for file in version.manifest.files if not _is_here(folder, file)]

    def fetch(file: VersionFile) -> None:
        fetch_object(version.store, f"{version.folder}/{file.path}", folder / file.path, state, file.sha256)
        on_file(file)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # The first failure in this order is raised; what the others fetched until then stays.
        futures = [pool.submit(fetch, file) for file in waiting]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    with told(f"folder {folder}", StoreError):
        (state / MANIFEST).write_bytes(encode_manifest(version.manifest))
        (state / MANIFEST).replace(folder / MANIFEST)
        shutil.rmtree(state)
    return Pulled(len(waiting), len(version.manifest.files) - len(waiting), sum(file.size_bytes for file in waiting))


def _claim(version: Version, folder: Path) -> None:
    """Make the folder this pull's own, or see that it is already."""
    state, wanted = folder / _STATE, version.manifest.version
    owner = state / "version"
    if owner.is_file():
        found = owner.read_text(encoding="utf-8")
    elif (folder / MANIFEST).is_file():
        path = folder / MANIFEST
        found = decode_manifest(path.read_bytes(), str(path)).version
    else:
        found = wanted if not folder.exists() or not any(path.name != _STATE for path in folder.iterdir()) else ""
    if found != wanted:
        what = f"version {found}" if found else "files of something else"
        raise StoreError(f"folder {folder}", what, f"an empty folder or version {wanted}", "name another folder")
    state.mkdir(parents=True, exist_ok=True)
    if not owner.is_file():
        (state / "claim").write_text(wanted, encoding="utf-8")
        (state / "claim").replace(owner)


def _is_here(folder: Path, file: VersionFile) -> bool:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest() == file.sha256
