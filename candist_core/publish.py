"""Publish: immutable versions of a labelled data set, committed by one create-only write.

```
<dataset>/versions/<version>/data/<split>-00000.parquet    texts, labels and the user's own columns
                            /rejects.parquet               what left the pipeline, and why
                            /README.md                     the dataset card
                            /croissant.json                the same for machines (MLCommons Croissant)
                            /report.html                   what a person reads of it
                            /metrics.json                  the numbers of that report, for programs
                            /validation/index.html         Data Docs of its checks
                            /student/...                   the student's weights, if wanted
<dataset>/manifests/v00000001.json                         the commit (`candist_core.versions`)
<dataset>/publishing/<version>/...                         who is at work on it (`candist_core.lease`)
```

A version's id is a hash of its content and its spec, so the same labels are one version however often they are
published. Invariant: every object of a version is stored before its manifest, and none is changed after it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b, sha256
from io import BytesIO
from typing import Any, Protocol

import polars as pl

from candist_core.assemble import PUBLISHED, Content, Part, assemble, describe
from candist_core.card import dataset_card
from candist_core.config import RunConfig
from candist_core.croissant import CROISSANT, encode_croissant
from candist_core.errors import ContractError, TransientError
from candist_core.lease import Lease, leased
from candist_core.manifest import Manifest, VersionFile
from candist_core.paths import public_uri
from candist_core.ports import TableStore
from candist_core.reports import Report, RunReports
from candist_core.spec import canonical_json
from candist_core.upload import AT_ONCE, Uploads
from candist_core.versions import MAX_RACES, commit, find_content, list_versions, next_manifest, write_hint

NUMBERS = "metrics.json"
"""Where the numbers of a version's report stand in its folder."""

log = logging.getLogger(__name__)


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


class PageMaker(Protocol):
    """Makes the report that lies in a version, from its rows and its manifest (see `candist_core.edges.report`)."""

    def add(self, rows: pl.DataFrame) -> None:
        """Take the rows of one file."""

    def render(self, manifest: Manifest, *, is_numbered: bool = True, is_published: bool = True) -> bytes:
        """The report of all rows taken, a page of HTML."""

    def numbers(self, manifest: Manifest) -> bytes:
        """What that page tells in numbers, as JSON under metrics/1."""


def publish(
    work: TableStore,
    target: TableStore,
    config: RunConfig,
    reports: RunReports,
    *,
    run_id: str,
    created_at: datetime,
    code_version: str,
    page: PageMaker | None = None,
    pages: Mapping[str, bytes] | None = None,
    at_once: int = AT_ONCE,
) -> Published:
    """Publish what a run made, or find the version that already holds it.

    The content is assembled twice, first to know its hash and then to store it: nothing of it lies anywhere before
    the id is known, and publishing the same again writes nothing. Many may publish at once. Parts are stored while the
    next are assembled; about 64 MB of them are in memory at a time.

    Args:
        work: the store of the run's tables.
        target: the store at `config.publish`.
        config: the run's configuration; it goes into the manifest, URLs without passwords and queries.
        reports: what every stage reported.
        run_id: who published, for the manifest.
        created_at: when, for the manifest alone.
        code_version: of candist.
        page: makes the version's report; None: there will be none.
        pages: files for people that stand beside the data, by path; like the card, no part of the version's id.
        at_once: objects written at once.

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
    manifest = _draft(content, config, reports, run_id=run_id, created_at=created_at, code_version=code_version)
    folder = manifest.folder
    uri = f"{config.publish.uri.rstrip('/')}/{dataset}"
    if target.list_paths(folder) and (found := find_content(target, dataset, manifest.version, earlier)):
        return Published(manifest=found, uri=uri, is_new=False)
    with leased(target, dataset, manifest.version) as lease:
        with Uploads(target, folder, work, at_once, on_wait=lease.renew) as uploads:
            for known, part in zip(content.files, assemble(work, config, reports), strict=True):
                if part.file != known:
                    raise ContractError(PUBLISHED.name, f"{known.path} changed between two readings", "tables at rest")
                uploads.put(part)
                if page is not None and _holds_rows(part.file):
                    page.add(_rows_of(part))
                lease.renew()
            uploads.finish()
        card = dataset_card(config, manifest, content.splits, list(content.schema))
        croissant = encode_croissant(config, manifest, content.schema)
        told = [_store_once(target, folder, "README.md", card.encode())]
        told.append(_store_once(target, folder, CROISSANT, croissant))
        if page is not None:
            told.append(_store_once(target, folder, NUMBERS, page.numbers(manifest)))
            told.append(_store_once(target, folder, "report.html", page.render(manifest, is_numbered=False)))
        told += [_store_once(target, folder, path, data) for path, data in (pages or {}).items()]
        manifest = manifest.model_copy(update={"files": (*content.files, *told)})
        committed, is_new = _commit(target, manifest, earlier, lease)
    return Published(manifest=committed, uri=uri, is_new=is_new)


def draft_manifest(
    work: TableStore,
    config: RunConfig,
    reports: RunReports,
    page: PageMaker,
    *,
    run_id: str,
    created_at: datetime,
    code_version: str,
) -> Manifest:
    """The manifest that publishing would write, number and parent apart; the page gets the rows. Writes nothing.

    Raises:
        ContractError: labels that do not fit the texts.
    """
    content = describe(_shown_to(page, assemble(work, config, reports)), reports.ingested.n_texts)
    return _draft(content, config, reports, run_id=run_id, created_at=created_at, code_version=code_version)


def _draft(
    content: Content, config: RunConfig, reports: RunReports, *, run_id: str, created_at: datetime, code_version: str
) -> Manifest:
    return Manifest(
        dataset=config.dataset,
        # Number and parent are given at the commit.
        number=1,
        version=_version_id(content.files, config.task.fingerprint),
        created_at=created_at,
        run_id=run_id,
        code_version=code_version,
        files=content.files,
        counts=content.counts,
        **_origin(config, reports),
    )


def _shown_to(page: PageMaker, parts: Iterable[Part]) -> Iterator[Part]:
    """The same parts; the page sees the rows of each."""
    for part in parts:
        if _holds_rows(part.file):
            page.add(_rows_of(part))
        yield part


def _holds_rows(file: VersionFile) -> bool:
    return file.path.startswith("data/")


def _rows_of(part: Part) -> pl.DataFrame:
    return pl.read_parquet(BytesIO(part.data))


def _origin(config: RunConfig, reports: RunReports) -> dict[str, Any]:
    """What a manifest tells of where a version came from."""
    return {
        "spec": config.task,
        "spec_fingerprint": config.task.fingerprint,
        "seed": config.seed,
        "config": public_config(config),
        "source_files": [file.model_copy(update={"uri": public_uri(file.uri)}) for file in reports.ingested.files],
        "usage": reports.usage,
        "student": reports.student,
        "checks": reports.checks,
        "metrics": reports.metrics,
        "quality": reports.quality,
        "origin": reports.origin,
        "changes": reports.changes,
        "sampling": reports.sampling,
    }


def _version_id(files: Iterable[VersionFile], spec_fingerprint: str) -> str:
    """BLAKE2b-64 of paths, hashes and the spec's fingerprint, 16 hex digits."""
    content = [sorted([file.path, file.sha256] for file in files), spec_fingerprint]
    return blake2b(canonical_json(content).encode(), digest_size=8).hexdigest()


def _store_once(target: TableStore, folder: str, path: str, data: bytes) -> VersionFile:
    """Store a page for people unless an earlier try left one: an object of a version is never changed."""
    if not target.create_bytes(f"{folder}/{path}", data):
        data = target.read_bytes(f"{folder}/{path}")
    return VersionFile(path=path, size_bytes=len(data), sha256=sha256(data).hexdigest())


def _commit(target: TableStore, manifest: Manifest, checked: Iterable[int], lease: Lease) -> tuple[Manifest, bool]:
    """Take the next free number, or find that another publisher committed the same version first."""
    dataset, known = manifest.dataset, set(checked)
    tried: Manifest | None = None
    for _ in range(MAX_RACES):
        numbers = list_versions(target, dataset)
        if found := find_content(target, dataset, manifest.version, set(numbers) - known):
            if is_mine := found == tried:
                # The store took it and the answer was lost; the try that followed found the number taken, by itself.
                write_hint(target, found)
            return found, is_mine
        known.update(numbers)
        numbered = next_manifest(target, manifest, numbers)
        lease.announce(numbered.number)
        _check_whole(target, manifest)
        if commit(target, numbered):
            number, rows = numbered.number, manifest.counts.rows
            log.info("published %s version %d (%s), %d rows", dataset, number, manifest.version, rows)
            return numbered, True
        tried = numbered
    raise TransientError(f"data set {dataset}", f"{MAX_RACES} others committed first")


def _check_whole(target: TableStore, manifest: Manifest) -> None:
    """See that garbage collection took nothing while this publisher was held up."""
    stored = set(target.list_paths(manifest.folder))
    if gone := [file.path for file in manifest.files if f"{manifest.folder}/{file.path}" not in stored]:
        raise TransientError(f"version folder {manifest.folder}", f"{gone[0]} is gone since it was written")


def public_config(config: RunConfig) -> dict[str, Any]:
    """A run's configuration as a manifest holds it: plain data, URLs without passwords and queries."""
    plain: dict[str, Any] = _public(config.model_dump(mode="json"))
    return plain


def _public(value: Any, key: str = "") -> Any:
    """Plain data with every URL bare of user, password and query, where secrets hide."""
    if isinstance(value, dict):
        return {name: _public(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_public(part, key) for part in value]
    return public_uri(value) if isinstance(value, str) and key.endswith(("uri", "url")) else value
