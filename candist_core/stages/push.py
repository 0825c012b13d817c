"""Push: a version's files as one commit of a data set on the Hugging Face Hub."""

import tempfile
from pathlib import Path

from candist_core.edges.hub import push_folder
from candist_core.stages.pull import pull_version
from candist_core.stages.versions import Version


def push_version(version: Version, repository: str, *, is_private: bool = True) -> str:
    """Copy a version to a repository of data, every hash checked on the way; its dataset card becomes the Hub's.

    The commit is tagged `v3` after the version's number. Pushed again, the same version makes no new commit. What is
    downloaded from there is a copy that `candist verify` and `load` take. Manifest and report name the corpus's place.

    Args:
        version: what to push.
        repository: `OWNER/NAME`; made if it is not there.
        is_private: of a repository that is made.

    Returns:
        The URL of the commit.

    Raises:
        StoreError: a file of the version is gone or changed; no such name, or no token that may write.
        TransientError: the store or the Hub failed; run again.
    """
    manifest = version.manifest
    with tempfile.TemporaryDirectory(prefix="candist-push-") as scratch:
        folder = Path(scratch) / "version"
        pull_version(version, folder)
        message = f"{manifest.dataset} version {manifest.number} ({manifest.version})"
        return push_folder(folder, repository, message, f"v{manifest.number}", is_private)
