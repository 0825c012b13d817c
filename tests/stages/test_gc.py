"""Garbage collection removes what killed publishers left, and nothing that a manifest or a publisher refers to."""

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from candist_core.config import Location
from candist_core.edges.store import UNFINISHED, open_store
from candist_core.errors import StoreError, TransientError
from candist_core.lease import lease_folder
from candist_core.stages.gc import Kind, _Collection, collect_garbage, remove_unnamed
from candist_core.stages.versions import find_version, verify_version
from candist_core.versions import list_versions, manifest_path, read_manifest, roll_back
from tests.core.test_publish import Run
from tests.published import dataset_at, publish_mails

LONG_AGO_S = 40 * 3600


def contents(store):
    return {path: store.read_bytes(path) for path in store.list_paths("")}


def age(folder, seconds=LONG_AGO_S):
    """Set back the clock of every file below a folder."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


class Killed(BaseException):
    """What no part of a publisher catches, as with SIGKILL."""


class StoppingStore:
    """A store that does something of the test's before the n-th write, delete or creation."""

    def __init__(self, store, n, action):
        self._store, self._n, self._action = store, n, action

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _count(self):
        self._n -= 1
        if self._n == -1:
            self._action()

    def write_bytes(self, path, data):
        self._count()
        self._store.write_bytes(path, data)

    def create_bytes(self, path, data):
        self._count()
        return self._store.create_bytes(path, data)

    def delete(self, paths):
        if self._n < 0 and self._action is kill:
            raise Killed
        self._store.delete(paths)


def kill():
    raise Killed


# Writes of a publisher: lease, two parts, rejects, card, croissant, lease, manifest, hint.
N_BEFORE_COMMIT = 7


def killed_publisher(tmp_path, place, n, confidence=0.25):
    """A publisher that dies before its n-th write and tidies nothing up."""
    run = Run(open_store(Location(uri=str(tmp_path / f"work-{n}-{confidence}"))), confidence=confidence)
    with pytest.raises(Killed):
        run.publish(StoppingStore(open_store(place), n, kill), at_once=1)
    return run


def test_a_place_where_nothing_is_left_over_has_no_leftovers(place):
    store = publish_mails(place)
    before = contents(store)
    assert collect_garbage(place, older_than_s=0, delete=True) == []
    assert contents(store) == before


@pytest.mark.parametrize("n", range(1, N_BEFORE_COMMIT))
def test_what_a_killed_publisher_left_is_listed_first_and_then_removed(place, tmp_path, n):
    store = publish_mails(place)
    before = contents(store)
    killed_publisher(tmp_path, place, n)
    assert contents(store) != before
    left = collect_garbage(place, older_than_s=0)
    assert [(one.kind, one.n_objects, one.kept) for one in left] == [(Kind.FOLDER, n - 1, "")]
    assert len(contents(store)) > len(before)
    assert [one.path for one in collect_garbage(place, older_than_s=0, delete=True)] == [left[0].path]
    assert contents(store) == before
    assert collect_garbage(place, older_than_s=0) == []
    assert verify_version(find_version(dataset_at(place))) == []


def test_a_first_publisher_that_was_killed_leaves_nothing_either(place, tmp_path):
    killed_publisher(tmp_path, place, 3)
    store = open_store(place)
    assert [one.kind for one in collect_garbage(dataset_at(place), older_than_s=0)] == [Kind.FOLDER]
    assert len(collect_garbage(place, older_than_s=0, delete=True)) == 1
    assert contents(store) == {}


def test_what_was_written_to_lately_stays(place, tmp_path):
    killed_publisher(tmp_path, place, 3)
    store = open_store(place)
    before = contents(store)
    left = collect_garbage(place, delete=True)
    assert [one.kept for one in left] == ["a publisher may be at work on it"]
    assert contents(store) == before


def test_only_the_newest_sign_of_a_publisher_counts(disk, tmp_path):
    killed_publisher(tmp_path, disk, 3)
    age(disk.uri)
    lease = next(Path(disk.uri, "mails/publishing").rglob("*.json"))
    os.utime(lease)
    assert [one.kept for one in collect_garbage(disk, delete=True)] == ["a publisher may be at work on it"]
    age(disk.uri)
    assert [one.kept for one in collect_garbage(disk, delete=True)] == [""]
    assert contents(open_store(disk)) == {}
    assert not Path(disk.uri, "mails/versions").exists() or not list(Path(disk.uri, "mails/versions").iterdir())


class Paused:
    """A publisher on its way in a thread, stopped before its n-th write until it is let go."""

    def __init__(self, tmp_path, place, n, confidence=0.25):
        self._reached, self._go = threading.Event(), threading.Event()
        run = Run(open_store(Location(uri=str(tmp_path / f"paused-{n}"))), confidence=confidence)
        store = StoppingStore(open_store(place), n, self._pause)
        self.outcome = None

        def publish():
            try:
                self.outcome = run.publish(store, at_once=1)
            except TransientError as error:
                self.outcome = error

        self._thread = threading.Thread(target=publish)
        self._thread.start()
        assert self._reached.wait(30)

    def _pause(self):
        self._reached.set()
        assert self._go.wait(60)

    def resume(self):
        self._go.set()
        self._thread.join(60)
        return self.outcome


@pytest.mark.parametrize("n", range(1, N_BEFORE_COMMIT + 1))
def test_a_publisher_paused_in_the_middle_keeps_everything_and_publishes(place, tmp_path, n):
    publish_mails(place)
    paused = Paused(tmp_path, place, n)
    try:
        left = collect_garbage(place, delete=True)
    finally:
        published = paused.resume()
    assert [one.kept != "" for one in left] == [True]
    assert (published.number, published.is_new) == (2, True)
    assert verify_version(find_version(dataset_at(place))) == []
    assert collect_garbage(place, older_than_s=0) == []


@pytest.mark.parametrize("n", range(1, N_BEFORE_COMMIT))
def test_a_publisher_paused_for_longer_than_any_bound_publishes_nothing_torn(place, tmp_path, n):
    publish_mails(place)
    paused = Paused(tmp_path, place, n)
    try:
        left = collect_garbage(place, older_than_s=0, delete=True)
    finally:
        outcome = paused.resume()
    assert [one.kept for one in left] == [""]
    if n == 1:
        # Nothing but its lease was there to remove: all that it writes after that stays.
        assert outcome.number == 2
    else:
        assert isinstance(outcome, TransientError)
        assert "is gone since it was written" in str(outcome)
        assert list_versions(open_store(place), "mails") == [1]
        assert publish_mails(place, confidence=0.25)
    version = find_version(dataset_at(place))
    assert version.manifest.number == 2
    assert verify_version(version) == []


def test_a_publisher_paused_right_before_its_commit_is_never_robbed(place, tmp_path):
    publish_mails(place)
    paused = Paused(tmp_path, place, N_BEFORE_COMMIT)
    try:
        left = collect_garbage(place, older_than_s=0, delete=True)
    finally:
        published = paused.resume()
    assert [one.kept for one in left] == [
        "its publisher stopped right before its commit as version 2, which is still to be had"
    ]
    assert published.number == 2
    assert verify_version(find_version(dataset_at(place, "2"))) == []


def test_once_its_number_is_taken_a_publisher_killed_right_before_its_commit_holds_nothing_up(place, tmp_path):
    store = publish_mails(place)
    killed_publisher(tmp_path, place, N_BEFORE_COMMIT)
    assert [one.kept != "" for one in collect_garbage(place, older_than_s=0, delete=True)] == [True]
    publish_mails(place, confidence=0.75)
    assert [one.kept for one in collect_garbage(place, older_than_s=0, delete=True)] == [""]
    assert store.list_paths("mails/publishing") == []
    assert all(verify_version(find_version(dataset_at(place, str(n)))) == [] for n in (1, 2))


def test_a_publisher_paused_before_its_commit_whose_number_is_taken_begins_anew_or_stops(place, tmp_path):
    publish_mails(place)
    paused = Paused(tmp_path, place, N_BEFORE_COMMIT)
    try:
        publish_mails(place, confidence=0.75)
        left = collect_garbage(place, older_than_s=0, delete=True)
    finally:
        outcome = paused.resume()
    assert [one.kept for one in left] == [""]
    assert isinstance(outcome, TransientError)
    assert list_versions(open_store(place), "mails") == [1, 2]


class PausingStore:
    """A store that waits before its n-th creation or delete until it is let go."""

    def __init__(self, store, n):
        self._store, self._n = store, n
        self.reached, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _step(self):
        self._n -= 1
        if self._n == -1:
            self.reached.set()
            assert self.go.wait(60)

    def create_bytes(self, path, data):
        self._step()
        return self._store.create_bytes(path, data)

    def delete(self, paths):
        for path in paths:
            self._step()
            self._store.delete([path])


@pytest.mark.parametrize("n", range(7))
def test_a_removal_paused_anywhere_while_the_same_content_is_published_tears_nothing(place, tmp_path, n):
    # Steps of the removal: its mark, two parts and the rejects, the lease, the mark; at n = 6 it has ended.
    publish_mails(place)
    run = killed_publisher(tmp_path, place, 4)
    store = open_store(place)
    pausing = PausingStore(store, n)
    removal = threading.Thread(target=lambda: list(_Collection(pausing, "mails", 0.0, True).leftovers()))
    removal.start()
    try:
        is_paused = n < 6
        assert pausing.reached.wait(30 if is_paused else 1) == is_paused
        try:
            outcome = run.publish(store)
        except TransientError as error:
            outcome = error
    finally:
        pausing.go.set()
        removal.join(60)
    # Before the mark stands it is the removal that finds itself too late, after that the publisher.
    assert isinstance(outcome, TransientError) == (0 < n < 6)
    assert all(verify_version(find_version(dataset_at(place, str(i)))) == [] for i in list_versions(store, "mails"))
    assert run.publish(store).number == 2
    assert verify_version(find_version(dataset_at(place))) == []
    collect_garbage(place, older_than_s=0, delete=True)
    assert store.list_paths("mails/publishing") == []
    assert verify_version(find_version(dataset_at(place))) == []


def removable(place):
    """A data set of two versions, the first of which has lost its manifest to a removal; and that manifest."""
    store = publish_mails(place)
    publish_mails(place, confidence=0.25)
    first = read_manifest(store, "mails", 1)
    store.delete([manifest_path("mails", 1)])
    return store, first


def assert_one_won(place, has_rolled_back, left):
    version = find_version(dataset_at(place))
    assert version.manifest.number == (3 if has_rolled_back else 2)
    assert verify_version(version) == []
    assert (left.kept != "") == has_rolled_back
    assert version.store.list_paths("mails/publishing") == []


@pytest.mark.parametrize("n", range(8))
def test_a_removal_paused_anywhere_while_its_version_is_rolled_back_to_tears_nothing(place, n):
    # Steps of the removal: its mark, the five files of the version, the mark; at n = 7 it has ended.
    store, first = removable(place)
    pausing, left = PausingStore(store, n), []
    removal = threading.Thread(target=lambda: left.append(remove_unnamed(pausing, "mails", first.version)))
    removal.start()
    has_rolled_back = False
    try:
        is_paused = n < 7
        assert pausing.reached.wait(30 if is_paused else 1) == is_paused
        if n == 0:
            has_rolled_back = roll_back(store, first, datetime.now(UTC))[1]
        else:
            with pytest.raises(TransientError if is_paused else StoreError):
                roll_back(store, first, datetime.now(UTC))
    finally:
        pausing.go.set()
        removal.join(60)
    assert has_rolled_back == (n == 0)
    assert_one_won(place, has_rolled_back, left[0])


@pytest.mark.parametrize("n", range(4))
def test_a_rollback_paused_anywhere_while_its_version_is_removed_tears_nothing(place, n):
    # Writes of the rollback: its lease, the number, the manifest, the hint.
    store, first = removable(place)
    left = []
    stopping = StoppingStore(store, n, lambda: left.append(remove_unnamed(store, "mails", first.version)))
    if n > 1:
        assert roll_back(stopping, first, datetime.now(UTC))[1]
    else:
        with pytest.raises(StoreError, match="5 of its files gone"):
            roll_back(stopping, first, datetime.now(UTC))
    assert_one_won(place, n > 1, left[0])


def test_while_a_folder_is_being_removed_nobody_publishes_into_it(place, tmp_path):
    store = publish_mails(place)
    run = killed_publisher(tmp_path, place, 3)
    version = collect_garbage(place, older_than_s=0)[0].path.rpartition("/")[2]
    store.write_bytes(f"{lease_folder('mails', version)}/removal.json", b"{}")
    with pytest.raises(TransientError, match="candist gc or candist remove is at work on it"):
        run.publish(store)
    assert list_versions(store, "mails") == [1]
    assert [one.kept for one in collect_garbage(place, older_than_s=0, delete=True)] == [
        "another candist gc is removing it"
    ]


def test_a_removal_that_was_killed_is_finished_by_the_next(disk, tmp_path):
    store = publish_mails(disk)
    before = contents(store)
    run = killed_publisher(tmp_path, disk, 3)
    version = collect_garbage(disk, older_than_s=0)[0].path.rpartition("/")[2]
    store.write_bytes(f"{lease_folder('mails', version)}/removal.json", b"{}")
    age(disk.uri)
    assert [one.kept for one in collect_garbage(disk, delete=True)] == [""]
    assert contents(store) == before
    assert run.publish(store).number == 2


def test_the_lease_of_a_publisher_killed_after_its_commit_is_removed_alone(place, tmp_path):
    store = publish_mails(place)
    killed_publisher(tmp_path, place, N_BEFORE_COMMIT + 1)
    assert list_versions(store, "mails") == [1, 2]
    left = collect_garbage(place, older_than_s=0, delete=True)
    assert [(one.kind, one.path.split("/")[1]) for one in left] == [(Kind.WRITE, "publishing")]
    assert store.list_paths("mails/publishing") == []
    assert all(verify_version(find_version(dataset_at(place, str(n)))) == [] for n in (1, 2))


def test_unfinished_writes_on_disk_are_removed_wherever_they_lie(disk):
    store = publish_mails(disk)
    before = contents(store)
    folder = read_manifest(store, "mails").folder
    hidden = [Path(disk.uri, path) for path in (f"{folder}/data/.candist-1", "mails/manifests/.candist-2")]
    for path in hidden:
        path.write_bytes(b"half")
    assert [one.kept for one in collect_garbage(disk, delete=True)] == ["a publisher may be at work on it"] * 2
    age(disk.uri)
    assert {one.path for one in collect_garbage(disk, delete=True)} == {str(p.relative_to(disk.uri)) for p in hidden}
    assert not any(path.exists() for path in hidden)
    assert contents(store) == before


@pytest.mark.s3
def test_multipart_uploads_that_never_ended_are_aborted_below_the_place_alone(bucket):
    place = bucket.at("sets")
    store = publish_mails(place)
    fs = store.place.fs
    keys = ("sets/mails/versions/x/data/train-00000.parquet", "sets/other/x", "elsewhere/mails/x")
    for key in keys:
        fs.call_s3("create_multipart_upload", Bucket=bucket.name, Key=key)
    # The test server says of every upload that it began in 2010.
    kept = collect_garbage(place, older_than_s=30 * 365 * 86400, delete=True)
    assert [one.kept for one in kept] == ["a publisher may be at work on it"]
    left = collect_garbage(place, older_than_s=3600)
    assert [(one.kind, one.path) for one in left] == [(Kind.UPLOAD, keys[0].removeprefix("sets/"))]
    collect_garbage(place, older_than_s=3600, delete=True)
    still = fs.call_s3("list_multipart_uploads", Bucket=bucket.name)["Uploads"]
    assert sorted(upload["Key"] for upload in still) == sorted(keys[1:])


def test_nothing_is_removed_where_a_manifest_is_of_a_later_contract(disk, tmp_path):
    store = publish_mails(disk)
    killed_publisher(tmp_path, disk, 3)
    path = "mails/manifests/v00000002.json"
    store.write_bytes(path, json.dumps({"contract": "manifest/2"}).encode())
    before = contents(store)
    publish_mails(disk, name="posts")
    store.write_bytes(f"posts/versions/{'0' * 16}/data/x.parquet", b"left")
    left = collect_garbage(disk, older_than_s=0, delete=True)
    assert [(one.kind, one.dataset) for one in left] == [(Kind.DATASET, "mails"), (Kind.FOLDER, "posts")]
    assert "manifest/2" in left[0].kept
    assert {path: data for path, data in contents(store).items() if path.startswith("mails")} == before
    assert store.list_paths(f"posts/versions/{'0' * 16}") == []


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b'{"contract": "manifest/1"}'])
def test_a_damaged_manifest_holds_up_no_other_data_set(disk, written):
    store = publish_mails(disk)
    publish_mails(disk, name="posts")
    for name in ("mails", "posts"):
        store.write_bytes(f"{name}/versions/{'0' * 16}/data/x.parquet", b"left")
    store.write_bytes("mails/manifests/v00000001.json", written)
    left = collect_garbage(disk, older_than_s=0, delete=True)
    assert [(one.kind, one.dataset) for one in left] == [(Kind.DATASET, "mails"), (Kind.FOLDER, "posts")]
    assert "mails/manifests/v00000001.json" in left[0].kept
    assert len(store.list_paths("mails/versions")) == 6


def test_a_lease_of_a_later_contract_stops_the_removal_and_leaves_no_mark(disk, tmp_path):
    store = publish_mails(disk)
    killed_publisher(tmp_path, disk, 3)
    lease = store.list_paths("mails/publishing")[0]
    store.write_bytes(lease, b'{"contract": "lease/2"}')
    before = contents(store)
    (left,) = collect_garbage(disk, older_than_s=0, delete=True)
    assert left.kind is Kind.DATASET
    assert "lease/2" in left.kept
    assert contents(store) == before


def test_a_lease_that_is_only_half_written_is_none_and_goes_with_the_rest(disk, tmp_path):
    store = publish_mails(disk)
    before = contents(store)
    killed_publisher(tmp_path, disk, 3)
    lease = store.list_paths("mails/publishing")[0]
    Path(disk.uri, lease).with_name(f"{UNFINISHED}0a1b").write_bytes(b'{"contr')
    assert [one.kept for one in collect_garbage(disk, older_than_s=0, delete=True)] == [""]
    assert contents(store) == before
    assert not [path for path in Path(disk.uri).rglob("*") if path.name.startswith(UNFINISHED)]


def test_a_lease_that_is_gone_when_it_is_to_be_read_is_asked_nothing(place, tmp_path):
    store = publish_mails(place)
    before = contents(store)
    killed_publisher(tmp_path, place, 3)
    (lease,) = store.list_paths("mails/publishing")
    version = lease.split("/")[2]

    class Vanishing:
        """A store whose lease is taken away right before it is read."""

        def __getattr__(self, name):
            return getattr(store, name)

        def read_bytes(self, path):
            if path == lease:
                store.delete([lease])
            return store.read_bytes(path)

    assert _Collection(Vanishing(), "mails", older_than_s=0, delete=True).remove(version).kept == ""
    assert contents(store) == before


def test_nothing_is_removed_where_the_manifests_cannot_be_listed(disk, tmp_path):
    store = publish_mails(disk)
    manifests = Path(disk.uri, "mails/manifests")
    manifests.rename(tmp_path / "manifests")
    # A link to itself: as with a folder that may not be listed, but for root as well.
    manifests.symlink_to(manifests)
    with pytest.raises(StoreError, match=r"(folder|object) mails/manifests"):
        collect_garbage(disk, older_than_s=0, delete=True)
    assert len(store.list_paths("mails/versions")) == 5


def test_a_place_without_data_sets_is_told(disk):
    with pytest.raises(StoreError, match="found no data set"):
        collect_garbage(disk)


FOREIGN = ("tool/versions/3.11.9/bin/python", "tool/versions/deadbeef/x", "tool/publishing/3.11.9/x.json")


@pytest.fixture
def beside_others(place):
    """A place with folders of other programs, which happen to be called as those of a data set are."""
    store = open_store(place)
    for path in (*FOREIGN, f".tool/versions/{'0' * 16}/x", "mails/versions/deadbeef/x"):
        store.write_bytes(path, b"not candist's")
    if store.local_root is not None:
        Path(store.local_root, "tool/.candist-1").write_bytes(b"not candist's either")
        age(store.local_root)
    return store


def test_folders_of_other_programs_are_no_leftovers_and_nothing_of_theirs_goes(place, beside_others):
    before = contents(beside_others)
    publish_mails(place, name="posts")
    publish_mails(place)
    published = contents(beside_others)
    left = [f"{name}/versions/{'0' * 16}" for name in ("mails", "posts")]
    for folder in left:
        beside_others.write_bytes(f"{folder}/data/x.parquet", b"left")
    found = collect_garbage(place, older_than_s=0, delete=True)
    assert [(one.kind, one.path, one.kept) for one in found] == [(Kind.FOLDER, folder, "") for folder in left]
    assert contents(beside_others) == published
    assert before.items() <= published.items()
    if beside_others.local_root is not None:
        assert Path(beside_others.local_root, "tool/.candist-1").exists()


def test_a_place_with_folders_of_other_programs_alone_has_no_data_set(place, beside_others):
    before = contents(beside_others)
    for uri in (place.uri, f"{place.uri}/tool", f"{place.uri}/.tool"):
        with pytest.raises(StoreError, match="found no data set"):
            collect_garbage(place.model_copy(update={"uri": uri}), older_than_s=0, delete=True)
    assert contents(beside_others) == before
