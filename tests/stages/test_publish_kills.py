"""Kill -9 of a publishing process at random moments: no reader ever sees a torn version, and gc removes what is left.

Four kills by default, twenty with CANDIST_FULL=1 (`make test-full`), on disk and in a bucket.
"""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from candist_core.edges.multipart import PIECE_BYTES
from candist_core.edges.objects import list_uploads
from candist_core.edges.store import open_store
from candist_core.errors import StoreError
from candist_core.stages.gc import collect_garbage
from candist_core.stages.versions import find_version, verify_version
from candist_core.versions import list_versions, read_manifest
from tests.published import dataset_at, publish_mails

N_KILLS = 20 if os.environ.get("CANDIST_FULL") == "1" else 4
N_BYTES = 2 * PIECE_BYTES + 1
WORK = """
import sys
from itertools import count
from pathlib import Path
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import TransientError
from tests.published_student import run_with_student

uri, endpoint, work, first, n_bytes = sys.argv[1:]
target = open_store(Location(uri=uri, endpoint_url=endpoint or None))
for i in count(int(first)):
    run = run_with_student(Path(work), i / 4096, int(n_bytes), n_splits=5)
    print(i, flush=True)
    try:
        run.publish(target)
    except TransientError as error:
        # What gc says where it came first.
        assert "candist gc" in str(error) or "is gone since" in str(error), error
"""


class Reader(threading.Thread):
    """Reads the latest version again and again, and keeps what was wrong with it."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self._place, self._is_over = place, threading.Event()
        self.numbers, self.faults = [], []

    def run(self):
        while not self._is_over.wait(0.02):
            version = find_version(dataset_at(self._place))
            self.faults += verify_version(version)
            self.numbers.append(version.manifest.number)

    def stop(self):
        self._is_over.set()
        self.join(60)
        assert not self.is_alive()


def start(place, work, first):
    arguments = [place.uri, place.endpoint_url or "", str(work), str(first), str(N_BYTES)]
    return subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def killed_publisher(place, work, first, chance, n_before=3):
    """A process that publishes one version after the other, killed in the middle of one; the number of its last."""
    process = start(place, work, first)
    # Some whole publications, then a random part of one: it took 0.05 to 0.5 s where this was written.
    for _ in range(1 + chance.randrange(n_before)):
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
    time.sleep(chance.random() * 0.25)
    assert process.poll() is None
    process.kill()
    rest, _ = process.communicate()
    return int((line + rest).split()[-1])


def leftovers(place):
    """Objects that no manifest names, and uploads that never ended."""
    store = open_store(place)
    manifests = [read_manifest(store, "mails", number) for number in list_versions(store, "mails")]
    named = {f"{one.folder}/{file.path}" for one in manifests for file in one.files}
    named |= {f"mails/manifests/v{one.number:08d}.json" for one in manifests} | {"mails/latest.json"}
    return sorted(set(store.list_paths("mails")) - named) + list_uploads(store, "mails")


@pytest.mark.slow
def test_publishers_killed_at_random_moments_tear_nothing_and_gc_removes_the_rest(place, tmp_path):
    chance = random.Random(11)
    publish_mails(place)
    reader = Reader(place)
    reader.start()
    n_left, last = 0, -1
    try:
        for _ in range(N_KILLS):
            last = killed_publisher(place, tmp_path / "work", last + 1, chance)
            n_left += bool(leftovers(place))
    finally:
        reader.stop()
    assert reader.faults == []
    assert reader.numbers == sorted(reader.numbers)
    numbers = list_versions(open_store(place), "mails")
    assert numbers == list(range(1, len(numbers) + 1))
    # A kill between two publications leaves nothing; most hit one.
    assert n_left >= N_KILLS / 4
    publish_mails(place, confidence=0.75)
    collect_garbage(place, older_than_s=0, delete=True)
    assert leftovers(place) == []
    for number in list_versions(open_store(place), "mails"):
        assert verify_version(find_version(dataset_at(place, str(number)))) == []


@pytest.mark.slow
def test_gc_at_work_beside_publishers_that_are_killed_takes_nothing_of_a_version(disk, tmp_path):
    chance = random.Random(5)
    publish_mails(disk)
    is_over = threading.Event()
    failures = []

    def collect():
        while not is_over.wait(0.4):
            try:
                collect_garbage(disk, older_than_s=0, delete=True)
            except StoreError as error:
                failures.append(error)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        last = -1
        for _ in range(max(2, N_KILLS // 4)):
            last = killed_publisher(disk, tmp_path / "work", last + 1, chance, n_before=8)
    finally:
        is_over.set()
        collector.join(60)
    assert failures == []
    # Now and then gc is the first, and the publisher stops.
    assert len(list_versions(open_store(disk), "mails")) > 1
    for number in list_versions(open_store(disk), "mails"):
        assert verify_version(find_version(dataset_at(disk, str(number)))) == []
