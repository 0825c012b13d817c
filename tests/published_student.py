"""A run whose version has several files and a student, as a killed or failing publisher would leave it half stored."""

from hashlib import sha256
from pathlib import Path

from candist_core.config import Location
from candist_core.edges.store import Store, open_store
from candist_core.reports import StoredFile
from tests.core.test_publish import ROWS, Run


def weights_in(work: Store, n_bytes: int) -> StoredFile:
    """Weights of a student in a run's store, so many bytes that do not repeat within 250."""
    weights = (bytes(i % 251 for i in range(1000)) * (n_bytes // 1000 + 1))[:n_bytes]
    path = "students/k/model.safetensors"
    work.write_bytes(path, weights)
    return StoredFile(uri=path, size_bytes=n_bytes, sha256=sha256(weights).hexdigest())


def run_with_student(folder: Path, confidence: float, n_bytes: int = 4000, n_splits: int = 2) -> Run:
    """Rows in some splits and weights of so many bytes; another confidence is another version."""
    work = open_store(Location(uri=str(folder / f"{confidence}-{n_bytes}")))
    rows = [row | {"split": f"part-{i % n_splits}"} for i, row in enumerate(ROWS)]
    student = weights_in(work, n_bytes)
    return Run(work, rows, confidence=confidence, student=[student], publish={"include_student": True})
