"""The manifest: what a published version is, where it came from, and how good it is.

A version is there if and only if a numbered manifest names it. `manifest/1` is its contract; a manifest under
another one is refused by name. Paths in it are relative to the version's folder and cannot leave it.
"""

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from candist_core.errors import ContractError, StoreError
from candist_core.paths import check_relative
from candist_core.ports import ReportT
from candist_core.reports import (
    CheckResult,
    EvaluateReport,
    QualityReport,
    Report,
    SourceFile,
    StudentOrigin,
    StudentReport,
    Usage,
    VersionChanges,
)
from candist_core.sampling import SamplingReport
from candist_core.spec import TaskSpec

CONTRACT = "manifest/1"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _checked(path: str) -> str:
    try:
        return check_relative(path)
    except StoreError as error:
        raise ValueError(str(error)) from error


class VersionFile(Report):
    """One file of a version; `split` is the user's own word for the split whose rows it holds."""

    path: Annotated[str, AfterValidator(_checked)]
    size_bytes: int
    sha256: str
    rows: int | None = None
    split: str | None = None


class Counts(Report):
    """Rows of the version: labelled ones, those of them that want review, and rejects; distinct texts of the corpus."""

    rows: int
    texts: int
    needs_review: int
    rejects: int
    reject_reasons: dict[str, int] = Field({}, description="rejects by reason, the most frequent first")


class Manifest(Report):
    """One version of a data set. `config` is the run's configuration as data: it names secrets and holds none."""

    contract: str = CONTRACT
    dataset: str = Field(pattern=NAME)
    number: int = Field(ge=1)
    version: str = Field(pattern=r"^[0-9a-f]{16}$", description="BLAKE2b-64 of the data files and the spec.")
    parent: str | None = Field(None, description="Version of the highest manifest when this one was committed.")
    restores: int | None = Field(None, description="Number of the earlier version whose content this one is again.")
    created_at: datetime
    run_id: str
    code_version: str
    spec: TaskSpec
    spec_fingerprint: str
    seed: int
    config: dict[str, Any]
    source_files: tuple[SourceFile, ...]
    files: tuple[VersionFile, ...]
    counts: Counts
    usage: Usage
    student: StudentReport
    checks: tuple[CheckResult, ...]
    metrics: EvaluateReport
    # Versions of before it was told have none.
    quality: QualityReport | None = None
    origin: StudentOrigin | None = Field(None, description="of the student, where runs reuse one")
    changes: VersionChanges | None = Field(None, description="rows beside those of the version before")
    sampling: SamplingReport | None = None

    @property
    def folder(self) -> str:
        """The version's folder, relative to the publish location."""
        return f"{self.dataset}/versions/{self.version}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return manifest.model_dump_json(indent=1).encode()


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Read a manifest.

    Raises:
        ContractError: it is under a contract this version does not know, or not what its contract says.
    """
    return decode_as(Manifest, CONTRACT, data, path)


def decode_as(model: type[ReportT], contract: str, data: bytes, path: str) -> ReportT:
    """Read a JSON object that names its contract.

    Raises:
        ContractError: it is under a contract this version does not know, or not what its contract says.
    """
    kind = contract.partition("/")[0]
    try:
        value = json.loads(data)
        named = value["contract"]
    except (ValueError, TypeError, KeyError) as error:
        raise ContractError(contract, f"no {kind} in {path}", "a JSON object with its contract") from error
    if named != contract:
        raise ContractError(str(named), f"a contract that this version does not know in {path}", contract)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ContractError(contract, f"{where} in {path}: {first['msg']}", f"a {kind} as candist writes it") from error
