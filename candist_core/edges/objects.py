"""Objects of a store one by one: hashed and copied as streams, and what killed writers left among them."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from candist_core.edges.filesystem import told
from candist_core.edges.store import UNFINISHED, Store, absent_is_fine
from candist_core.errors import StoreError
from candist_core.paths import check_relative


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that was begun and not completed; it is no object and nobody can read it."""

    path: str
    upload_id: str
    started_s: float


def hash_object(store: Store, path: str) -> tuple[int, str]:
    """Size in bytes and sha256 of an object, read in parts of 8 MB.

    Raises:
        StoreError: there is none.
        TransientError: the store failed.
    """
    n_bytes, digest = 0, sha256()
    for chunk in store.read_chunks(path):
        n_bytes += len(chunk)
        digest.update(chunk)
    return n_bytes, digest.hexdigest()


def fetch_object(store: Store, path: str, target: Path, temp_dir: Path, wanted_sha256: str) -> None:
    """Copy an object to this machine; the target appears whole and with the wanted hash, or not at all.

    Args:
        store: where the object lies.
        path: the object.
        target: the file to write; one that is there is replaced.
        temp_dir: a folder on the same disk for the copy while it is not whole.
        wanted_sha256: hash of its bytes, as 64 hex digits.

    Raises:
        StoreError: there is no such object, or it has other bytes; no room or no right to write here.
        TransientError: the store failed.
    """
    temp = temp_dir / uuid4().hex
    with told(f"file {target}", StoreError):
        try:
            with temp.open("xb") as file:
                found = _copy(store, path, file)
            if found != wanted_sha256:
                raise StoreError(
                    f"store {store.uri}, object {path}", "other bytes than were published",
                    f"sha256 {wanted_sha256[:12]}…", "see candist verify, and restore it from a copy",
                )  # fmt: skip
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temp, target)
        finally:
            temp.unlink(missing_ok=True)


def list_modified(store: Store, prefix: str) -> dict[str, float]:
    """When each object below a folder was last written, in seconds since 1970, unfinished local writes included."""
    place = store.place
    with told(f"store {store.uri}, folder {prefix}", StoreError):
        found = place.find(place.path_of(check_relative(prefix)))
    root = place.root.rstrip("/") + "/"
    return {name[len(root) :]: _modified_s(info) for name, info in found.items() if name.startswith(f"{root}{prefix}/")}


def is_unfinished(path: str) -> bool:
    """Whether a path is that of a local write that has not ended; no reader sees it."""
    return path.rpartition("/")[2].startswith(UNFINISHED)


def list_uploads(store: Store, prefix: str) -> list[Upload]:
    """Multipart uploads below a folder that were begun and not completed; none on disk."""
    if store.place.protocol != "s3":
        return []
    place = store.place
    bucket, _, root = place.root.partition("/")
    base = f"{root}/" if root else ""
    query: dict[str, str] = {"Bucket": bucket, "Prefix": f"{base}{check_relative(prefix)}/"}
    uploads: list[Upload] = []
    while True:
        with told(f"store {store.uri}, folder {prefix}", StoreError):
            page = place.fs.call_s3("list_multipart_uploads", **query)
        uploads += [
            Upload(upload["Key"][len(base) :], upload["UploadId"], upload["Initiated"].timestamp())
            for upload in page.get("Uploads", ())
        ]
        if not page.get("IsTruncated"):
            return uploads
        query |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort_upload(store: Store, upload: Upload) -> None:
    """Drop a multipart upload and its parts; one that is gone already is no error."""
    bucket, _, key = store.place.path_of(upload.path).partition("/")
    with told(f"store {store.uri}, object {upload.path}", StoreError), absent_is_fine():
        store.place.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.upload_id)


def remove_empty_folders(store: Store, prefix: str) -> None:
    """Remove a folder on disk and those in it where no file is left; a bucket has no folders."""
    root = store.local_root
    if root is None or not (top := root / check_relative(prefix)).is_dir():
        return
    with told(f"store {store.uri}, folder {prefix}", StoreError):
        for folder, _, _ in os.walk(top, topdown=False):
            # One that is not empty is somebody's.
            with suppress(OSError):
                os.rmdir(folder)


def _copy(store: Store, path: str, file: BinaryIO) -> str:
    digest = sha256()
    for chunk in store.read_chunks(path):
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def _modified_s(info: dict[str, Any]) -> float:
    """The file system's own word for the time of the last write."""
    for key in ("mtime", "LastModified", "created"):
        found = info.get(key)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, (int, float)):
            return float(found)
    # A file system that does not tell: as if written just now, so that nothing is taken for old.
    return time.time()
