"""Parts are stored side by side, their number and their bytes under way are bounded, and none is stored changed."""

import threading
from hashlib import sha256

import pytest

from candist_core.assemble import Part
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import ContractError, TransientError
from candist_core.manifest import VersionFile
from candist_core.upload import Uploads


def part(path, data=b"x", source=None):
    file = VersionFile(path=path, size_bytes=len(data), sha256=sha256(data).hexdigest())
    return Part(file, b"" if source else data, source=source)


class Gauge:
    """A store that notes how many writes and bytes are under way at most, and waits in each until it is let go."""

    def __init__(self, n_wanted=0):
        self._lock, self._n_wanted, self.go = threading.Lock(), n_wanted, threading.Event()
        self.n_now = self.n_most = self.bytes_now = self.bytes_most = 0
        self.paths = []

    def write_bytes(self, path, data):
        with self._lock:
            self.n_now += 1
            self.bytes_now += len(data)
            self.n_most, self.bytes_most = max(self.n_most, self.n_now), max(self.bytes_most, self.bytes_now)
            if self.n_now >= self._n_wanted:
                self.go.set()
        assert self.go.wait(20)
        with self._lock:
            self.n_now -= 1
            self.bytes_now -= len(data)
            self.paths.append(path)


def upload(target, parts, at_once=4, source=None):
    with Uploads(target, "f", source, at_once, on_wait=lambda: None) as uploads:
        for one in parts:
            uploads.put(one)
        uploads.finish()


def test_parts_are_stored_side_by_side_up_to_the_bound():
    # Each write waits until four are under way: fewer at once would wait for ever.
    gauge = Gauge(n_wanted=4)
    upload(gauge, [part(f"{i}") for i in range(20)])
    assert gauge.n_most == 4
    assert sorted(gauge.paths) == sorted(f"f/{i}" for i in range(20))


def test_large_parts_wait_until_those_before_them_are_stored():
    gauge = Gauge()
    upload(gauge, [part(f"{i}", bytes(30 * 2**20)) for i in range(6)], at_once=6)
    assert gauge.bytes_most <= 60 * 2**20
    assert len(gauge.paths) == 6


def test_one_part_above_every_bound_is_stored_alone():
    gauge = Gauge()
    upload(gauge, [part("a"), part("b", bytes(80 * 2**20)), part("c")])
    assert gauge.n_most == 1
    assert len(gauge.paths) == 3


def test_a_failure_is_raised_and_no_further_part_is_begun():
    class Failing(Gauge):
        def write_bytes(self, path, data):
            super().write_bytes(path, data)
            if path == "f/1":
                raise TransientError("s3", "gone")

    store = Failing()
    with pytest.raises(TransientError, match="gone"):
        upload(store, [part(f"{i}") for i in range(100)], at_once=2)
    assert len(store.paths) <= 5
    assert store.n_now == 0


@pytest.fixture
def stores(tmp_path):
    return [open_store(Location(uri=str(tmp_path / name))) for name in ("work", "published")]


def test_what_lies_in_the_runs_store_is_copied_as_a_stream(stores):
    work, target = stores
    data = bytes(range(256)) * 100_000
    work.write_bytes("students/k/model", data)
    upload(target, [part("student/model", data, source="students/k/model")], source=work)
    assert target.read_bytes("f/student/model") == data


@pytest.mark.parametrize("size", [1, 20_000_000])
def test_weights_that_changed_since_training_are_not_stored(stores, size):
    work, target = stores
    work.write_bytes("students/k/model", b"y" * size)
    with pytest.raises(ContractError, match="other bytes in students/k/model than were trained"):
        upload(target, [part("student/model", b"x" * size, source="students/k/model")], source=work)
    assert target.list_paths("") == []
