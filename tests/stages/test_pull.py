"""A pulled version is whole and as published, or says that it is not; begun again it goes on where it stopped."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from candist_core import load
from candist_core.config import Location
from candist_core.errors import StoreError, TransientError
from candist_core.stages.pull import pull_version
from candist_core.stages.versions import find_version, rollback_version, tag_version, verify_version
from candist_core.versions import read_manifest
from tests.published import dataset_at, publish_mails


def files_in(folder):
    return {str(path.relative_to(folder)): path for path in Path(folder).rglob("*") if path.is_file()}


def assert_whole(folder, manifest):
    files = files_in(folder)
    assert set(files) == {file.path for file in manifest.files} | {"manifest.json"}
    for file in manifest.files:
        assert sha256(files[file.path].read_bytes()).hexdigest() == file.sha256


def test_a_pulled_version_is_its_files_and_its_manifest(place, tmp_path):
    store = publish_mails(place)
    manifest = read_manifest(store, "mails")
    seen = []
    done = pull_version(find_version(dataset_at(place)), tmp_path / "copy", seen.append)
    assert (done.n_fetched, done.n_kept) == (5, 0)
    assert sorted(file.path for file in seen) == sorted(file.path for file in manifest.files)
    assert done.size_bytes == sum(file.size_bytes for file in manifest.files)
    assert_whole(tmp_path / "copy", manifest)
    assert pl.scan_parquet(tmp_path / "copy/data/*.parquet").select(pl.len()).collect().item() == 5


def test_pulling_again_fetches_only_what_is_not_as_published(place, tmp_path):
    publish_mails(place)
    version = find_version(dataset_at(place))
    pull_version(version, tmp_path / "copy")
    assert pull_version(version, tmp_path / "copy").n_fetched == 0
    (tmp_path / "copy/README.md").unlink()
    changed = tmp_path / "copy/rejects.parquet"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert pull_version(version, tmp_path / "copy").n_fetched == 2
    assert_whole(tmp_path / "copy", version.manifest)


class FailingStore:
    """A store whose n-th file that is opened fails."""

    def __init__(self, store, n):
        self._store, self._n = store, n

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read_chunks(self, path):
        self._n -= 1
        if self._n == 0:
            raise TransientError(f"object {path}", "the connection was cut")
        yield from self._store.read_chunks(path)


def test_a_pull_that_broke_off_goes_on_and_shows_no_manifest_before_it_is_whole(disk, tmp_path):
    publish_mails(disk)
    version = find_version(dataset_at(disk))
    for n in (1, 2, 3, 4):
        folder = tmp_path / f"copy-{n}"
        broken = type(version)(version.manifest, FailingStore(version.store, n))
        with pytest.raises(TransientError):
            pull_version(broken, folder)
        assert "manifest.json" not in files_in(folder)
        for path, file in files_in(folder).items():
            if not path.startswith(".candist-pull/"):
                wanted = next(one for one in version.manifest.files if one.path == path)
                assert sha256(file.read_bytes()).hexdigest() == wanted.sha256
        pull_version(version, folder)
        assert_whole(folder, version.manifest)


def test_changed_bytes_are_not_pulled(place, tmp_path):
    store = publish_mails(place)
    version = find_version(dataset_at(place))
    path = f"{version.manifest.folder}/data/train-00000.parquet"
    store.write_bytes(path, store.read_bytes(path)[:-1] + b"x")
    with pytest.raises(StoreError, match=r"data/train-00000.parquet: found other bytes than were published"):
        pull_version(version, tmp_path / "copy")
    assert not (tmp_path / "copy/data/train-00000.parquet").exists()
    assert not (tmp_path / "copy/manifest.json").exists()


def test_a_folder_with_other_files_is_left_alone(disk, tmp_path):
    publish_mails(disk)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    with pytest.raises(StoreError, match="found files of something else, wanted an empty folder"):
        pull_version(find_version(dataset_at(disk)), mine)
    assert files_in(mine) == {"README.md": mine / "README.md"}
    assert (mine / "README.md").read_text() == "my own"


def test_a_folder_with_another_version_is_left_alone(disk, tmp_path):
    publish_mails(disk)
    publish_mails(disk, confidence=0.75)
    first, second = (find_version(dataset_at(disk, str(n))) for n in (1, 2))
    pull_version(first, tmp_path / "copy")
    with pytest.raises(StoreError, match=f"found version {first.manifest.version}, wanted an empty folder or version"):
        pull_version(second, tmp_path / "copy")
    assert_whole(tmp_path / "copy", first.manifest)


@pytest.mark.slow
def test_a_pull_that_is_killed_goes_on(disk, tmp_path):
    rows = [{"id": f"r{i}", "text": os.urandom(600).hex(), "gold": None, "split": f"s{i // 60}"} for i in range(1200)]
    publish_mails(disk, rows=rows, source={"shard_rows": 600})
    version = find_version(dataset_at(disk))
    code = (
        "import sys\nfrom pathlib import Path\nfrom candist_core.config import Location\n"
        "from candist_core.stages.pull import pull_version\nfrom candist_core.stages.versions import find_version\n"
        "version = find_version(Location(uri=sys.argv[1]))\nprint('ready', flush=True)\n"
        "pull_version(version, Path(sys.argv[2]))"
    )
    for i in range(3):
        command = [sys.executable, "-c", code, dataset_at(disk).uri, str(tmp_path / "copy")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.004 * i)
            process.send_signal(signal.SIGKILL)
        for path, file in files_in(tmp_path / "copy").items():
            if not path.startswith(".candist-pull/") and path != "manifest.json":
                wanted = next(one for one in version.manifest.files if one.path == path)
                assert sha256(file.read_bytes()).hexdigest() == wanted.sha256
    pull_version(version, tmp_path / "copy")
    assert_whole(tmp_path / "copy", version.manifest)


@pytest.mark.parametrize("name", ["copy", "./copy", "{tmp}/copy", "file://{tmp}/copy"])
def test_a_copy_is_read_and_verified_like_a_version(place, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    publish_mails(place)
    version = find_version(dataset_at(place))
    pull_version(version, tmp_path / "copy")
    name = name.format(tmp=tmp_path)
    copy = find_version(Location(uri=name))
    assert copy.manifest == version.manifest
    assert verify_version(copy) == []
    assert load(name, verify=True).collect().height == 5
    assert load(copy.reference, split="test").collect().height == 2
    assert copy.tags == []
    path = tmp_path / "copy/data/train-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [fault.path for fault in verify_version(copy)] == ["data/train-00000.parquet"]


def test_a_copy_is_read_from_within_its_folder(disk, tmp_path, monkeypatch):
    publish_mails(disk)
    pull_version(find_version(dataset_at(disk)), tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert load(".").collect().height == 5


def test_a_copy_takes_no_tag_and_no_rollback(disk, tmp_path):
    publish_mails(disk)
    pull_version(find_version(dataset_at(disk)), tmp_path / "copy")
    copy = Location(uri=str(tmp_path / "copy"))
    for use in (lambda: tag_version(copy, "production"), lambda: rollback_version(copy)):
        with pytest.raises(StoreError, match="found a copy, wanted the place it was pulled from"):
            use()
