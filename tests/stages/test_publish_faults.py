"""Whatever a store does while a version is published, readers see the old version whole or the new one whole.

A few moments by default, every request of a publication with CANDIST_FULL=1 (`make test-full`).
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from candist_core.edges import filesystem
from candist_core.edges.multipart import PIECE_BYTES
from candist_core.edges.objects import list_uploads
from candist_core.edges.store import open_store
from candist_core.errors import CandistError, StoreError, TransientError
from candist_core.stages.gc import collect_garbage
from candist_core.stages.versions import find_version, verify_version
from candist_core.versions import list_versions, read_manifest
from tests.faulty_s3 import CUT, HELD, LOST, Answer, FaultyS3
from tests.published import dataset_at, publish_mails
from tests.published_student import run_with_student

IS_FULL = os.environ.get("CANDIST_FULL") == "1"
pytestmark = [pytest.mark.slow, pytest.mark.s3]

PASSING = {
    "500": (Answer(500, "InternalError"), "answer (InternalError|500)"),
    "503": (Answer(503, "ServiceUnavailable"), "answer (ServiceUnavailable|503)"),
    "slow down": (Answer(503, "SlowDown"), "answer (SlowDown|503)"),
    "cut": (CUT, "no answer"),
    "answers lost": (LOST, "no answer"),
}
LASTING = {
    "denied": (Answer(403, "AccessDenied"), r"access denied \((AccessDenied|403)\), wanted the right to"),
    "other region": (
        Answer(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        r"a bucket of another region \((PermanentRedirect|301)\), wanted its own region 'eu-west-1'; set the region",
    ),
    "bucket gone": (Answer(404, "NoSuchBucket"), "(no bucket of that name|nothing there)"),
}


@pytest.fixture
def proxy(s3_endpoint, aws_environment):
    # With its own five tries a store that is away for good takes ten seconds to be given up.
    aws_environment.setattr(S3FileSystem, "retries", 2)
    with FaultyS3(s3_endpoint) as faulty:
        yield faulty
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def through(bucket, proxy):
    """The place as the publisher reaches it; a reader goes straight to `bucket.at("sets")`."""
    return bucket.at("sets").model_copy(update={"endpoint_url": proxy.endpoint_url})


def assert_whole(place, dataset="mails"):
    """Every version that there is, is whole; their numbers."""
    numbers = list_versions(open_store(place), dataset)
    for number in numbers:
        assert verify_version(find_version(dataset_at(place, str(number)))) == []
    return numbers


def assert_nothing_left_but_versions(place, n_versions):
    store = open_store(place)
    assert assert_whole(place) == list(range(1, n_versions + 1))
    collect_garbage(place, older_than_s=0, delete=True)
    manifests = [read_manifest(store, "mails", number) for number in range(1, n_versions + 1)]
    named = {f"{one.folder}/{file.path}" for one in manifests for file in one.files}
    named |= {f"mails/manifests/v{number:08d}.json" for number in range(1, n_versions + 1)}
    assert set(store.list_paths("mails")) - {"mails/latest.json"} == named
    assert list_uploads(store, "mails") == []
    assert assert_whole(place) == list(range(1, n_versions + 1))


def undisturbed(proxy, through, run):
    """Requests of a publication without faults of a second version, and the number of the one that commits."""
    place = through.model_copy(update={"uri": f"{through.uri}-measured"})
    publish_mails(place)
    proxy.plan(lambda *_: None)
    run.publish(open_store(place))
    requests = list(proxy.requests)
    commit = next(i for i, (method, path) in enumerate(requests) if method == "PUT" and "/manifests/v" in path)
    return requests, commit


def failure_of(run, place):
    """What a publication failed with; None where it did not fail."""
    try:
        run.publish(open_store(place))
    except CandistError as error:
        return error
    return None


def moments(n, commit, seed):
    """Requests at which to fail: the commit, and others drawn by chance; in the long form all."""
    return range(n) if IS_FULL else sorted({commit, random.Random(seed).randrange(n)})


@pytest.mark.parametrize("name", [*PASSING, *LASTING])
def test_a_store_that_fails_from_some_request_on_tears_nothing(name, bucket, proxy, through, tmp_path):
    fault, words = (PASSING | LASTING)[name]
    kind = TransientError if name in PASSING else StoreError
    n = 1
    publish_mails(bucket.at("sets"))
    requests, commit = undisturbed(proxy, through, run_with_student(tmp_path / "work", 0.0))
    n_failed = 0
    for k in moments(len(requests), commit, seed=len(name)):
        run = run_with_student(tmp_path / "work", confidence=n / 1024)
        proxy.plan(lambda number, method, path, k=k: fault if number >= k else None)
        if (error := failure_of(run, through)) is not None:
            n_failed += 1
            assert isinstance(error, kind)
            assert re.search(words, str(error)), str(error)
            assert "\n" not in str(error)
            assert "words of the store" not in str(error)
        assert assert_whole(bucket.at("sets")) in (list(range(1, n + 1)), list(range(1, n + 2)))
        # Who failed may have stopped right before its commit; what it left is never taken from under it.
        collect_garbage(bucket.at("sets"), older_than_s=0, delete=True)
        proxy.plan(lambda *_: None)
        assert run.publish(open_store(through)).number == n + 1
        n += 1
    assert n_failed >= (commit if IS_FULL else 1)
    assert_nothing_left_but_versions(bucket.at("sets"), n)


@pytest.mark.parametrize("fault", [LOST, CUT, Answer(500, "InternalError"), Answer(503, "SlowDown")], ids=str)
def test_one_failure_at_any_request_is_no_failure_of_the_publication(fault, bucket, proxy, through, tmp_path):
    n = 1
    publish_mails(bucket.at("sets"))
    requests, commit = undisturbed(proxy, through, run_with_student(tmp_path / "work", 0.0))
    for k in moments(len(requests), commit, seed=1):
        run = run_with_student(tmp_path / "work", confidence=n / 1024)
        proxy.plan(lambda number, method, path, k=k: fault if number == k else None)
        published = run.publish(open_store(through))
        n += 1
        # Also where the commit was done and its answer lost: the number is its own, and so is the version.
        assert (published.number, published.is_new) == (n, True)
        hint = open_store(bucket.at("sets")).read_bytes("mails/latest.json")
        assert f'"number": {n},'.encode() in hint
    assert_nothing_left_but_versions(bucket.at("sets"), n)


def test_a_store_that_holds_back_its_answers_is_given_up(bucket, proxy, through, tmp_path, monkeypatch):
    # The bound on waiting is half a minute and more for each try; a test has not so long.
    monkeypatch.setattr(filesystem, "_READ_S", 0.2)
    publish_mails(bucket.at("sets"))
    run = run_with_student(tmp_path / "work", 0.25)
    proxy.plan(lambda number, method, path: HELD if number >= 8 else None)
    with pytest.raises(TransientError, match=r"no answer \(.*\), wanted it done; check that it can be reached"):
        run.publish(open_store(through))
    assert assert_whole(bucket.at("sets")) == [1]


def test_uploads_of_large_objects_that_were_cut_off_are_aborted_by_gc(bucket, proxy, through, tmp_path):
    run = run_with_student(tmp_path / "work", 0.25, n_bytes=3 * PIECE_BYTES)
    proxy.plan(lambda number, method, path: CUT if "uploadId" in path and "partNumber=1" not in path else None)
    with pytest.raises(TransientError, match=r"object mails/.*/model"):
        run.publish(open_store(through))
    place = bucket.at("sets")
    assert [upload.path.rpartition("/")[2] for upload in list_uploads(open_store(place), "mails")] == [
        "model.safetensors"
    ]
    proxy.plan(lambda *_: None)
    assert run.publish(open_store(through)).number == 1
    assert_nothing_left_but_versions(place, 1)


_FILLS_A_DISK = """
import sys
from pathlib import Path
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import StoreError
from candist_core.stages.gc import collect_garbage
from tests.published_student import run_with_student
from tests.stages.test_publish_faults import assert_nothing_left_but_versions, assert_whole

place, work = Location(uri=f"{sys.argv[1]}/sets"), Path(sys.argv[2])
run_with_student(work, 0.0, n_bytes=4000).publish(open_store(place))
n = 1
filler = Path(sys.argv[1]) / "filler"
for i, room in enumerate(range(0, 130_000, int(sys.argv[3]))):
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                continue
        except OSError:
            file.truncate(max(0, filler.stat().st_size - room))
    run = run_with_student(work, (i + 1) / 1024, n_bytes=40_000)
    try:
        published = run.publish(open_store(place))
        n += 1
        print("published")
    except StoreError as error:
        print(error)
    numbers = assert_whole(place)
    assert numbers == list(range(1, n + 1)), numbers
    filler.unlink()
    collect_garbage(place, older_than_s=0, delete=True)
assert_nothing_left_but_versions(place, n)
"""


def test_a_disk_that_fills_up_at_any_moment_tears_nothing(tmp_path):
    """A real file system of four megabytes, most of them taken, in a mount namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system in a namespace")
    step = "4096" if IS_FULL else "16384"
    command = [sys.executable, "-c", _FILLS_A_DISK, str(disk), str(tmp_path / "work"), step]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.splitlines()
    failures = [line for line in told if line != "published"]
    assert len(failures) >= 2
    assert told[-1] == "published"
    wanted = "found no space left on device, wanted room to write; free some space or choose another place"
    assert {line.partition(": ")[2] for line in failures} == {wanted}
