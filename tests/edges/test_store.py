import errno
import os
import pickle
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.config import Location
from candist_core.edges.filesystem import explain
from candist_core.edges.multipart import PIECE_BYTES
from candist_core.edges.objects import list_uploads
from candist_core.edges.store import fetch_folder, open_store, read_uri
from candist_core.errors import ContractError, SourceError, StoreError, TransientError
from candist_core.paths import check_relative
from candist_core.reports import IngestReport, PredictReport, Report, SourceFile, StoredFile
from candist_core.tables import TEXTS, Contract, TableRef

FRAME = pl.DataFrame({"doc_id": ["a", "b"], "text": ["x", "y"]})


@pytest.fixture(
    params=["path", "file", "memory", pytest.param("s3", marks=pytest.mark.s3)],
)
def location(request, tmp_path):
    """A place of each kind, empty."""
    if request.param == "s3":
        return request.getfixturevalue("bucket").at("some/work")
    uris = {"path": tmp_path / "work", "file": f"file://{tmp_path}/work", "memory": f"memory://{tmp_path}/work"}
    return Location(uri=str(uris[request.param]))


@pytest.fixture
def store(location):
    return open_store(location)


@pytest.fixture
def disk(tmp_path):
    return open_store(Location(uri=str(tmp_path / "work")))


def predicted(ref, n_review=1):
    return PredictReport(labels=ref, n_review=n_review, sources={"agreed": 2})


def test_a_table_comes_back_as_it_was_written(store):
    ref = store.write_table("texts/00000.parquet", FRAME, TEXTS)
    assert (ref.uri, ref.contract, ref.rows) == ("texts/00000.parquet", "texts/1", 2)
    assert store.read_table(ref).equals(FRAME)
    assert store.read_table(ref, columns=["text"])["text"].to_list() == ["x", "y"]


def test_the_reference_is_the_same_wherever_the_table_lies(store, tmp_path):
    elsewhere = open_store(Location(uri=str(tmp_path / "elsewhere")))
    assert store.write_table("t.parquet", FRAME, TEXTS) == elsewhere.write_table("t.parquet", FRAME, TEXTS)


def test_objects_are_listed_by_folder_and_sorted(store):
    for path in ("b/2", "b/1", "ba/1", "b/c/3"):
        store.write_bytes(path, b"x")
    assert store.list_paths("b") == ["b/1", "b/2", "b/c/3"]
    assert store.list_paths("") == ["b/1", "b/2", "b/c/3", "ba/1"]
    assert store.list_paths("no/such/folder") == []


def test_what_another_process_wrote_is_listed_at_once(location, store):
    assert store.list_paths("a") == []
    open_store(location).write_bytes("a/1", b"x")
    assert store.list_paths("a") == ["a/1"]
    open_store(location).delete(["a/1"])
    assert store.list_paths("a") == []


def test_deleting_what_is_not_there_is_no_error(store):
    store.write_bytes("a", b"x")
    store.delete(["a", "b"])
    assert store.list_paths("") == []


def test_an_object_is_created_only_once(store):
    assert store.create_bytes("v/1.json", b"first")
    assert not store.create_bytes("v/1.json", b"second")
    assert store.read_bytes("v/1.json") == b"first"


def test_of_twelve_who_create_the_same_object_one_succeeds(location):
    gate = threading.Barrier(12)

    def create(i):
        mine = open_store(location)
        gate.wait()
        return mine.create_bytes("v/1.json", f"writer {i}".encode() * 1000)

    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(create, range(12)))
    assert won.count(True) == 1
    assert open_store(location).read_bytes("v/1.json") == f"writer {won.index(True)}".encode() * 1000


@pytest.mark.parametrize("size", [0, 5, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_a_stream_comes_back_as_it_was_written_however_it_was_cut(store, size):
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    cut = PIECE_BYTES // 3 + 7
    store.write_chunks("a/b", (data[i : i + cut] for i in range(0, size, cut)))
    assert b"".join(store.read_chunks("a/b")) == store.read_bytes("a/b") == data


def test_a_stream_that_breaks_off_leaves_what_was_there_and_no_trace(store):
    def broken():
        yield b"x" * (PIECE_BYTES + 1)
        raise ContractError("student", "other bytes", "these")

    store.write_bytes("a/b", b"before")
    with pytest.raises(ContractError, match="other bytes"):
        store.write_chunks("a/b", broken())
    assert store.read_bytes("a/b") == b"before"
    assert store.list_paths("") == ["a/b"]
    assert list_uploads(store, "a") == []
    if store.local_root:
        assert [path.name for path in (store.local_root / "a").iterdir()] == ["b"]


def test_a_missing_object_is_told_in_one_sentence(store):
    with pytest.raises(StoreError, match=r"object a/b: found nothing there, wanted something to read") as caught:
        store.read_bytes("a/b")
    assert "\n" not in str(caught.value)


def test_changed_bytes_are_not_read_as_the_table(store):
    ref = store.write_table("t.parquet", FRAME, TEXTS)
    store.write_table("t.parquet", FRAME.reverse(), TEXTS)
    with pytest.raises(StoreError, match="other bytes than were written"):
        store.read_table(ref)


def test_a_table_of_a_later_version_is_refused_by_name(store):
    later = Contract("examples/2", TEXTS.columns)
    ref = store.write_table("t.parquet", FRAME, later)
    with pytest.raises(ContractError, match="examples/2"):
        store.read_table(ref)


def test_a_store_survives_a_process_border(store):
    assert store.create_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_only_a_store_on_disk_has_a_local_root(tmp_path):
    assert open_store(Location(uri=str(tmp_path))).local_root == tmp_path
    assert open_store(Location(uri="memory://x")).local_root is None


def test_a_home_directory_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store(Location(uri="~/work")).local_root == tmp_path / "work"


# done-markers


def test_done_work_is_found_with_its_report(store):
    report = predicted(store.write_table("labels/1.parquet", FRAME, TEXTS))
    assert store.find_done("predict", "k1", PredictReport) is None
    store.mark_done("predict", "k1", report)
    assert store.find_done("predict", "k1", PredictReport) == report
    assert store.find_done("predict", "k2", PredictReport) is None
    assert store.list_paths("done") == ["done/predict/k1.json"]


def test_work_whose_table_is_gone_is_not_done(store):
    ref = store.write_table("labels/1.parquet", FRAME, TEXTS)
    store.mark_done("predict", "k", predicted(ref))
    store.delete([ref.uri])
    assert store.find_done("predict", "k", PredictReport) is None


def test_work_whose_table_has_another_size_is_not_done(store):
    ref = store.write_table("labels/1.parquet", FRAME, TEXTS)
    store.mark_done("predict", "k", predicted(ref))
    store.write_bytes(ref.uri, b"torn")
    assert store.find_done("predict", "k", PredictReport) is None


@pytest.mark.parametrize("n_shards", [1, 30])
def test_every_table_of_a_long_report_must_stand(store, n_shards):
    refs = tuple(store.write_table(f"texts/{i}.parquet", FRAME, TEXTS) for i in range(n_shards))
    report = IngestReport(
        examples=(), texts=refs, rejects=refs[0], files=(SourceFile(uri="s3://not/here", size_bytes=9, etag="e"),),
        n_rows=2, n_examples=2, n_texts=2, n_rejects=0, n_gold=0, user_columns=(),
    )  # fmt: skip
    store.mark_done("ingest", "k", report)
    assert store.find_done("ingest", "k", IngestReport) == report
    store.delete([refs[-1].uri])
    assert store.find_done("ingest", "k", IngestReport) is None


def test_files_named_in_a_report_must_stand_too(disk):
    class Folder(Report):
        files: dict[str, StoredFile]

    disk.write_bytes("students/k/model.bin", b"1234")
    report = Folder(files={"model": StoredFile(uri="students/k/model.bin", size_bytes=4, sha256="")})
    disk.mark_done("distill", "k", report)
    assert disk.find_done("distill", "k", Folder) == report
    disk.write_bytes("students/k/model.bin", b"123")
    assert disk.find_done("distill", "k", Folder) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"contract": "done/1", "report": "PredictReport", "va',
        b"[]",
        b"{}",
        b'{"labels": 1}',
        b'{"contract": "done/2", "report": "PredictReport", "value": {}}',
        b'{"contract": "done/1", "report": "PredictReport", "value": {}}',
        b'{"contract": "done/1", "report": "AnnotateReport", "value": {}}',
        b"\xff\xfe",
    ],
)
def test_a_torn_or_foreign_marker_counts_as_none(disk, content):
    disk.write_bytes("done/predict/k.json", content)
    assert disk.find_done("predict", "k", PredictReport) is None


def test_a_marker_of_another_kind_of_report_counts_as_none(disk):
    class Relabelled(PredictReport):
        pass

    disk.mark_done("predict", "k", predicted(disk.write_table("t", FRAME, TEXTS)))
    assert disk.find_done("predict", "k", Relabelled) is None


def test_a_marker_that_points_out_of_the_store_is_refused(disk):
    disk.mark_done("predict", "k", predicted(TableRef("../../etc/passwd", "texts/1", 1, "", 1)))
    with pytest.raises(StoreError, match="may leave its folder"):
        disk.find_done("predict", "k", PredictReport)


# paths


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/", "a\\..\\b", "a\nb", "a\0b"]
)
def test_a_path_that_may_leave_the_store_is_refused(disk, path):
    for use in (disk.read_bytes, lambda p: disk.write_bytes(p, b""), lambda p: disk.create_bytes(p, b"")):
        with pytest.raises(StoreError, match="may leave its folder"):
            use(path)


@given(st.text(alphabet="ab./\\\0~:%é ", max_size=12))
def test_an_accepted_path_stays_below_its_root(path):
    try:
        check_relative(path)
    except StoreError:
        return
    root = "/root/of/store"
    assert os.path.normpath(f"{root}/{path}") == f"{root}/{path}"
    assert Path(root, path).is_relative_to(root)
    assert path


# a disk that says no


def test_a_file_in_the_place_of_the_store_is_told(tmp_path):
    (tmp_path / "work").write_text("I am a file")
    store = open_store(Location(uri=str(tmp_path / "work")))
    with pytest.raises(StoreError, match=r"found a file in the way .*, wanted a folder; move the file"):
        store.write_bytes("a/b", b"x")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder where not even root may write: /sys")
def test_a_folder_without_the_right_to_write_is_told():
    store = open_store(Location(uri="/sys/kernel"))
    with pytest.raises(
        StoreError, match=r"object work/a: found .*, wanted the right to read and write there"
    ) as caught:
        store.write_bytes("work/a", b"x")
    assert "\n" not in str(caught.value)


_FILLS_THE_DISK = """
import resource, signal, sys
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import StoreError

store = open_store(Location(uri=sys.argv[1]))
store.write_bytes("a", b"before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (store.write_bytes, store.create_bytes):
    try:
        write("a" if write == store.write_bytes else "b", b"x" * 2000)
    except StoreError as error:
        print(error)
print(store.read_bytes("a").decode(), store.list_paths(""))
"""


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    # A limit on file sizes stands in for a full disk: the kernel cuts the write short and says EFBIG.
    done = subprocess.run(
        [sys.executable, "-c", _FILLS_THE_DISK, str(tmp_path / "work")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    *errors, rest = done.stdout.splitlines()
    assert [error.partition(": ")[2] for error in errors] == [
        "found file too large, wanted room to write; free some space or choose another place"
    ] * 2
    assert rest == "before ['a']"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (errno.ENOSPC, "room to write"),
        (errno.EDQUOT, "room to write"),
        (errno.EROFS, "the right to read and write there"),
        (errno.EACCES, "the right to read and write there"),
        (errno.ENAMETOOLONG, "a place that can be read and written"),
    ],
)
def test_each_refusal_of_a_disk_has_its_own_next_step(number, wanted):
    failure = explain(OSError(number, "words of the system"), "store x", StoreError)
    assert isinstance(failure, StoreError)
    assert failure.wanted == wanted
    assert failure.found == os.strerror(number).lower()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_may_recover_is_worth_another_try(number):
    assert isinstance(explain(OSError(number, "x"), "store x", StoreError), TransientError)


def test_an_unfinished_write_is_not_listed(disk, tmp_path):
    disk.write_bytes("a/1", b"x")
    (tmp_path / "work/a/.candist-0123").write_bytes(b"half")
    assert disk.list_paths("a") == ["a/1"]


def test_files_are_readable_by_others_as_far_as_the_umask_allows(disk, tmp_path):
    before = os.umask(0o022)
    try:
        disk.write_bytes("a", b"x")
        disk.create_bytes("b", b"x")
    finally:
        os.umask(before)
    assert [(tmp_path / "work" / name).stat().st_mode & 0o777 for name in "ab"] == [0o644, 0o644]


def test_on_a_file_system_without_links_an_object_is_still_created_only_once(disk, monkeypatch):
    # Such a file system (exFAT, some network shares) is not to be had in a test, so the call says what it would say.
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert disk.create_bytes("v/1", b"first")
    assert not disk.create_bytes("v/1", b"second")
    assert disk.read_bytes("v/1") == b"first"
    assert disk.list_paths("") == ["v/1"]


# locations


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("s3://", "no bucket"),
        ("nonsense://a/b", "the protocol 'nonsense', which is not to be had here"),
        ("s3://user:hunter2@bucket/x", "a password in its URL"),
        ("package://no_such_package/x", "no package 'no_such_package'"),
        ("package://candist_core/demo", "an installed package"),
        ("package://os.path/x", "no package 'os.path'"),
    ],
)
def test_a_location_that_cannot_be_a_store_is_refused(uri, found):
    with pytest.raises(StoreError) as caught:
        open_store(Location(uri=uri))
    assert caught.value.found == found
    assert "hunter2" not in str(caught.value)


def test_a_password_in_an_endpoint_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="a password in its URL") as caught:
        open_store(Location(uri="s3://b", endpoint_url="http://me:hunter2@127.0.0.1:1"))
    assert "hunter2" not in str(caught.value)


def test_what_ships_with_a_package_can_be_read_by_url():
    first = read_uri(Location(uri="package://candist_core/demo/corpus.jsonl")).splitlines()[0]
    assert first.startswith(b'{"id": "msg-0001"')


def test_a_package_url_cannot_leave_its_package():
    with pytest.raises(SourceError, match="may leave its folder"):
        read_uri(Location(uri="package://candist_core/../flows/cli.py"), SourceError)


def test_a_file_system_not_known_to_be_create_only_takes_no_commits(tmp_path):
    store = open_store(Location(uri=f"local://{tmp_path}"))
    with pytest.raises(StoreError, match="the protocol 'local', which may overwrite others' work"):
        store.create_bytes("a", b"x")
    assert store.list_paths("") == []


# folders


def test_a_folder_is_fetched_with_its_subfolders(store, location, tmp_path):
    store.write_bytes("student/config.json", b"{}")
    store.write_bytes("student/sub/model.bin", b"\0" * 1000)
    place = location.model_copy(update={"uri": f"{location.uri}/student"})
    got = fetch_folder(place, tmp_path / "into")
    assert (got / "config.json").read_bytes() == b"{}"
    assert (got / "sub/model.bin").read_bytes() == b"\0" * 1000
    assert got == (store.local_root / "student" if store.local_root else tmp_path / "into")


def test_an_empty_folder_cannot_be_fetched(location, tmp_path):
    with pytest.raises(StoreError, match="nothing there"):
        fetch_folder(location, tmp_path / "into")


# S3


@pytest.mark.s3
def test_a_missing_bucket_is_named_as_such(bucket):
    store = open_store(Location(uri="s3://no-such-bucket/x", endpoint_url=bucket.endpoint_url))
    uses = (
        lambda: store.read_bytes("a"),
        lambda: store.write_bytes("a", b""),
        lambda: store.create_bytes("a", b""),
        lambda: store.list_paths("a"),
        lambda: store.find_done("s", "k", PredictReport),
    )
    for use in uses:
        with pytest.raises(StoreError, match="no bucket of that name"):
            use()


@pytest.mark.s3
def test_what_a_stranger_put_into_the_bucket_is_listed_at_once(bucket):
    store = open_store(bucket.at("work"))
    store.write_bytes("a/1", b"x")
    assert store.list_paths("a") == ["a/1"]
    url = f"{bucket.endpoint_url}/{bucket.name}/work/a/2"
    urllib.request.urlopen(urllib.request.Request(url, data=b"y", method="PUT"), timeout=30).close()
    assert store.list_paths("a") == ["a/1", "a/2"]


@pytest.mark.s3
def test_missing_credentials_are_told_with_the_next_step(bucket, aws_environment):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name)
    with pytest.raises(StoreError, match=r"no usable credentials .* set AWS_ACCESS_KEY_ID"):
        open_store(bucket.at("x")).write_bytes("a", b"x")


@pytest.mark.s3
def test_an_unknown_profile_is_told(bucket):
    with pytest.raises(StoreError, match=r"no usable credentials \(ProfileNotFound\)"):
        open_store(bucket.at("x").model_copy(update={"profile": "nobody"})).read_bytes("a")


@pytest.mark.s3
def test_a_bucket_name_that_cannot_be_is_the_users_mistake(bucket):
    with pytest.raises(StoreError):
        open_store(Location(uri="s3://Not_A_Bucket!/x", endpoint_url=bucket.endpoint_url)).read_bytes("a")


@pytest.mark.s3
def test_an_endpoint_that_is_no_url_is_the_users_mistake(bucket):
    with pytest.raises(StoreError):
        open_store(Location(uri="s3://b/x", endpoint_url="not a url")).read_bytes("a")


class _Refusing(BaseHTTPRequestHandler):
    """An S3 endpoint that answers every request with one and the same error."""

    # botocore asks for leave to send a body (100-continue), which HTTP/1.0 cannot give.
    protocol_version = "HTTP/1.1"
    status, code = 503, "SlowDown"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>secret words</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        # A body after HEAD would be read as the start of the next answer.
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = answer  # noqa: N815 (names given by http.server)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def refusing(aws_environment, monkeypatch):
    """An endpoint that refuses, as a function of status and code."""
    servers = []

    def start(status, code):
        handler = type("Handler", (_Refusing,), {"status": status, "code": code})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Location(uri="s3://b/x", endpoint_url=f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.s3
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (403, "InvalidAccessKeyId")])
def test_a_refusal_for_good_is_the_users_to_mend(refusing, status, code):
    store = open_store(refusing(status, code))
    for use in (lambda: store.read_bytes("a"), lambda: store.write_bytes("a", b"x"), lambda: store.list_paths("a")):
        with pytest.raises(StoreError, match=rf"access denied \(({code}|403)\)") as caught:
            use()
        assert "secret words" not in str(caught.value)


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "ServiceUnavailable"), (400, "RequestTimeout")]
)
def test_a_server_in_trouble_is_worth_another_try(refusing, status, code):
    with pytest.raises(TransientError, match=code):
        open_store(refusing(status, code)).write_bytes("a", b"x")


@pytest.mark.s3
@pytest.mark.parametrize("status", [409, 412])
def test_a_lost_race_is_told_by_status_whatever_the_error_is_called(refusing, status):
    assert open_store(refusing(status, "SomeName")).create_bytes("a", b"x") is False


@pytest.mark.s3
@pytest.mark.slow
def test_an_endpoint_that_does_not_answer_is_worth_another_try(aws_environment):
    with pytest.raises(TransientError, match="EndpointConnectionError"):
        open_store(Location(uri="s3://b/x", endpoint_url="http://127.0.0.1:9")).read_bytes("a")


def test_opening_a_store_touches_nothing(tmp_path):
    open_store(Location(uri=str(tmp_path / "work")))
    assert list(tmp_path.iterdir()) == []
