"""Publish: immutable versions of a labelled data set, committed by one create-only write.

```
<dataset>/versions/<version>/data/<split>-00000.parquet    texts, labels and the user's own columns
                            /rejects.parquet               what left the pipeline, and why
                            /README.md                     the dataset card
                            /validation/index.html         Data Docs of its checks
                            /student/...                   the student's weights, if wanted
<dataset>/manifests/v00000001.json                         the commit
<dataset>/latest.json                                      a hint for people
```

A version's id is a hash of its content and its spec, so the same labels are one version however often they are
published. Invariant: every object of a version is stored before its manifest, and none is changed after it.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b, sha256
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import polars as pl

from candist_core.assemble import PUBLISHED, assemble, describe
from candist_core.card import dataset_card
from candist_core.config import RunConfig
from candist_core.errors import ContractError, StoreError, TransientError
from candist_core.manifest import Manifest, VersionFile, decode_manifest, encode_manifest
from candist_core.ports import TableStore
from candist_core.reports import Report, RunReports
from candist_core.spec import canonical_json

log = logging.getLogger(__name__)

__all__ = ["Manifest", "Published", "list_versions", "publish", "read_labels", "read_manifest"]

# Each lost race means that another publisher committed; so many in a row mean that something else is wrong.
_MAX_RACES = 1000
_NUMBERED = re.compile(r"/manifests/v(\d{8})\.json$")
_VERSION = re.compile(r"[0-9a-f]{16}")


class Published(Report):
    """A version that stands; `is_new` is False where the same content had been published before."""

    manifest: Manifest
    uri: str
    is_new: bool

    @property
    def number(self) -> int:
        """The manifest's number."""
        return self.manifest.number

    @property
    def version(self) -> str:
        """The version's id, 16 hex digits."""
        return self.manifest.version


def publish(
    work: TableStore,
    target: TableStore,
    config: RunConfig,
    reports: RunReports,
    *,
    run_id: str,
    created_at: datetime,
    code_version: str,
    pages: Mapping[str, bytes] | None = None,
) -> Published:
    """Publish what a run made, or find the version that already holds it.

    The content is assembled twice, first to know its hash and then to store it: nothing of it lies anywhere before
    the id is known, and publishing the same again writes nothing. Many may publish at once.

    Args:
        work: the store of the run's tables.
        target: the store at `config.publish`.
        config: the run's configuration; it goes into the manifest, URLs without passwords and queries.
        reports: what every stage reported.
        run_id: who published, for the manifest.
        created_at: when, for the manifest alone.
        code_version: of candist.
        pages: files for people that stand beside the data, by path; like the card, no part of the version's id.

    Returns:
        The version, new or found.

    Raises:
        ContractError: labels that do not fit the texts, a manifest of a later version of candist.
        StoreError, TransientError: nothing is published.
    """
    dataset = config.dataset
    # Listed before the version's folder is looked at: a folder that is empty then belongs to none of these.
    earlier = list_versions(target, dataset)
    content = describe(assemble(work, config, reports), reports.ingested.n_texts)
    version = _version_id(content.files, config.task.fingerprint)
    folder = f"{dataset}/versions/{version}"
    uri = f"{config.publish.uri.rstrip('/')}/{dataset}"
    if target.list_paths(folder) and (found := _find(target, dataset, version, earlier)):
        return Published(manifest=found, uri=uri, is_new=False)
    for known, part in zip(content.files, assemble(work, config, reports), strict=True):
        if part.file != known:
            raise ContractError(PUBLISHED.name, f"{known.path} changed between two readings", "tables at rest")
        target.write_bytes(f"{folder}/{known.path}", part.data)
    card = dataset_card(config, version, content.splits, content.columns, content.counts, reports.metrics)
    beside = {"README.md": card.encode()} | dict(pages or {})
    files = (*content.files, *(_store_page(target, folder, path, data) for path, data in beside.items()))
    manifest = Manifest(
        dataset=dataset,
        # Number and parent are given at the commit.
        number=1,
        version=version,
        created_at=created_at,
        run_id=run_id,
        code_version=code_version,
        files=files,
        counts=content.counts,
        **_origin(config, reports),
    )
    committed, is_new = _commit(target, manifest, checked=earlier)
    return Published(manifest=committed, uri=uri, is_new=is_new)


def list_versions(store: TableStore, dataset: str) -> list[int]:
    """Numbers of a data set's versions, ascending; empty when there is none."""
    found = (_NUMBERED.search(path) for path in store.list_paths(f"{dataset}/manifests"))
    return sorted(int(match[1]) for match in found if match)


def read_manifest(store: TableStore, dataset: str, version: int | str = "latest") -> Manifest:
    """The manifest of a version: "latest", a number, or an id of 16 hex digits.

    Raises:
        StoreError: no such data set or version; the sentence names those there are.
        ContractError: the manifest is of a later version of candist.
    """
    numbers = list_versions(store, dataset)
    if not numbers:
        names = sorted({path.split("/")[0] for path in store.list_paths("") if _NUMBERED.search(path)})
        known = f"one of {', '.join(names)}" if names else "one that was published"
        raise StoreError(f"data set {dataset!r}", "no version of it", known, "correct its name or the location")
    if _VERSION.fullmatch(str(version)):
        found = _find(store, dataset, str(version), numbers)
    elif version == "latest":
        found = _read(store, dataset, numbers[-1])
    else:
        number = int(version) if str(version).isdecimal() else 0
        found = _read(store, dataset, number) if number in numbers else None
    if found is None:
        raise StoreError(
            f"data set {dataset!r}", f"no version {str(version)!r}",
            f"latest, one of {', '.join(map(str, numbers))}, or an id", "correct the version",
        )  # fmt: skip
    return found


def read_labels(store: TableStore, manifest: Manifest) -> pl.DataFrame:
    """All rows of a version, in order, with their split in the last column; each file's hash is checked.

    Raises:
        StoreError: a file is gone, or not the one that was published.
    """
    frames = []
    for file in manifest.files:
        if not file.path.startswith("data/"):
            continue
        path = f"{manifest.folder}/{file.path}"
        data = store.read_bytes(path)
        if sha256(data).hexdigest() != file.sha256:
            raise StoreError(f"object {path}", "other bytes than were published", f"sha256 {file.sha256[:12]}…",
                             "restore it from a copy or publish again")  # fmt: skip
        frames.append(pl.read_parquet(BytesIO(data)).with_columns(split=pl.lit(file.split, dtype=pl.String)))
    return pl.concat(frames)


def _origin(config: RunConfig, reports: RunReports) -> dict[str, Any]:
    """What a manifest tells of where a version came from."""
    return {
        "spec": config.task,
        "spec_fingerprint": config.task.fingerprint,
        "seed": config.seed,
        "config": _public(config.model_dump(mode="json")),
        "source_files": reports.ingested.files,
        "usage": reports.usage,
        "student": reports.student,
        "checks": reports.checks,
        "metrics": reports.metrics,
    }


def _version_id(files: Iterable[VersionFile], spec_fingerprint: str) -> str:
    """BLAKE2b-64 of paths, hashes and the spec's fingerprint, 16 hex digits."""
    content = [sorted([file.path, file.sha256] for file in files), spec_fingerprint]
    return blake2b(canonical_json(content).encode(), digest_size=8).hexdigest()


def _store_page(target: TableStore, folder: str, path: str, data: bytes) -> VersionFile:
    """Store a file for people unless an earlier try left one: an object of a version is never changed."""
    if not target.create_bytes(f"{folder}/{path}", data):
        data = target.read_bytes(f"{folder}/{path}")
    return VersionFile(path=path, size_bytes=len(data), sha256=sha256(data).hexdigest())


def _commit(target: TableStore, manifest: Manifest, checked: Iterable[int]) -> tuple[Manifest, bool]:
    """Take the next free number, or find that another publisher committed the same version first."""
    dataset, known = manifest.dataset, set(checked)
    for _ in range(_MAX_RACES):
        numbers = list_versions(target, dataset)
        if found := _find(target, dataset, manifest.version, [number for number in numbers if number not in known]):
            return found, False
        known.update(numbers)
        number = numbers[-1] + 1 if numbers else 1
        parent = _read(target, dataset, numbers[-1]).version if numbers else None
        numbered = manifest.model_copy(update={"number": number, "parent": parent})
        if target.create_bytes(_path(dataset, number), encode_manifest(numbered)):
            _hint(target, numbered)
            log.info("published %s version %d (%s), %d rows", dataset, number, manifest.version, manifest.counts.rows)
            return numbered, True
    raise TransientError(f"data set {dataset}", f"{_MAX_RACES} others committed first")


def _hint(target: TableStore, manifest: Manifest) -> None:
    hint = {"contract": "latest/1", "number": manifest.number, "version": manifest.version}
    try:
        target.write_bytes(f"{manifest.dataset}/latest.json", json.dumps(hint).encode())
    except (StoreError, TransientError) as error:
        # The version is committed, and readers list the manifests; saying that it failed would be untrue.
        log.warning("the hint latest.json of %s was not written: %s", manifest.dataset, error)


def _find(store: TableStore, dataset: str, version: str, numbers: list[int]) -> Manifest | None:
    manifests = (_read(store, dataset, number) for number in reversed(numbers))
    return next((manifest for manifest in manifests if manifest.version == version), None)


def _read(store: TableStore, dataset: str, number: int) -> Manifest:
    path = _path(dataset, number)
    manifest = decode_manifest(store.read_bytes(path), path)
    if (manifest.dataset, manifest.number) != (dataset, number):
        found = f"{manifest.dataset} number {manifest.number} in {path}"
        raise ContractError(manifest.contract, found, f"{dataset} number {number}")
    return manifest


def _path(dataset: str, number: int) -> str:
    return f"{dataset}/manifests/v{number:08d}.json"


def _public(value: Any, key: str = "") -> Any:
    """Plain data with every URL bare of user, password and query, where secrets hide."""
    if isinstance(value, dict):
        return {name: _public(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_public(part, key) for part in value]
    if isinstance(value, str) and key.endswith(("uri", "url")) and "://" in value:
        url = urlsplit(value)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
    return value
