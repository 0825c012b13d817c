import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from io import BytesIO

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.card import escaped
from candist_core.config import Location, RunConfig, SourceConfig
from candist_core.edges.report.page import Page
from candist_core.edges.store import open_store
from candist_core.errors import ContractError, StoreError, TransientError
from candist_core.ingest import SourceBatch, ingest
from candist_core.manifest import VersionFile, decode_manifest
from candist_core.publish import publish
from candist_core.reports import (
    AnnotateReport,
    CheckResult,
    EvaluateReport,
    Finding,
    GoldReport,
    Interval,
    PredictReport,
    QualityReport,
    RunReports,
    SourceFile,
    StoredFile,
    StudentReport,
    Usage,
)
from candist_core.stages.versions import Version, scan_version
from candist_core.tables import ANNOTATIONS, CONTRACTS, LABELS, REJECTS, empty
from candist_core.versions import list_versions, read_manifest

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LABEL_NAMES = ["spam", "ham"]
ROWS = [
    {"id": "r0", "text": "buy", "gold": "spam", "split": "train", "lang": "en"},
    {"id": "r1", "text": "hello", "gold": None, "split": "test", "lang": "en"},
    {"id": "r2", "text": "buy", "gold": "ham", "split": "test", "lang": "de"},
    {"id": "r3", "text": "again", "gold": None, "split": "train", "lang": "fr"},
    {"id": "r4", "text": "hello", "gold": None, "split": None, "lang": "en"},
]


def read_labels(store, manifest):
    return scan_version(Version(manifest, store), verify=True).collect()


def config_of(**changes):
    data = {
        "name": "mails",
        "task": {"labels": [{"name": "spam", "description": "Unwanted."}, {"name": "ham"}]},
        "source": {"uri": "f", "id": "id", "gold": "gold", "split": "split", "shard_rows": 2},
        "publish": {"uri": "published"},
    }
    for key, value in changes.items():
        data[key] = data[key] | value if isinstance(data.get(key), dict) else value
    return RunConfig.model_validate(data)


def label_rows(doc_ids, confidence=0.5):
    rows = [
        (name, LABEL_NAMES[i % 2], confidence, LABEL_NAMES, "spam", "agreed", i % 2 == 1, "r" if i % 2 else None)
        for i, name in enumerate(doc_ids)
    ]
    return pl.DataFrame(rows, schema=LABELS.columns, orient="row")


class Run:
    """What a run would have left in its store, made without teacher or student."""

    def __init__(self, work, rows=ROWS, *, confidence=0.5, unlabelled=(), student=(), files=(), **changes):
        self.work, self.config = work, config_of(**changes)
        frame = pl.DataFrame(rows, infer_schema_length=None)
        uri = files[0].uri if files else "f"
        batch = SourceBatch(uri, frame, pl.int_range(1, frame.height + 1, eager=True))
        ingested = ingest([batch], self.source, files, self._write, work.read_table)
        annotated, predicted = [], []
        for i, texts in enumerate(ingested.texts):
            ids = [name for name in work.read_table(texts)["doc_id"] if name not in unlabelled]
            labels = work.write_table(f"labels/{i}.parquet", label_rows(ids, confidence), LABELS)
            predicted.append(PredictReport(labels=labels, n_review=0, sources={}))
            annotated.append(
                AnnotateReport(
                    annotations=work.write_table(f"annotations/{i}.parquet", empty(ANNOTATIONS), ANNOTATIONS),
                    rejects=work.write_table(f"annotations/{i}-rejects.parquet", self._refused(texts), REJECTS),
                    usage=Usage(n_requests=2, cost_usd=0.25), statuses={}, set_sizes={},
                )
            )  # fmt: skip
        self.reports = RunReports(
            ingested=ingested, annotated=tuple(annotated), predicted=tuple(predicted),
            student=StudentReport(folder="students/k", files=tuple(student), key="k", base_model="minilm", device="cpu",
                                  device_reason="no GPU", n_train=3, epochs=(), seconds=1.0),
            metrics=EvaluateReport(n_rows=5, n_labelled=5, n_review=2, mean_set_size=2.0, set_sizes={2: 5},
                                   statuses={"ok": 5}, class_counts={"spam": 3, "ham": 2}, agreement=1.0,
                                   mean_confidence=0.5, gold=None),
            checks=(CheckResult(name="c", passed=True, observed="0", wanted="0"),),
        )  # fmt: skip

    @property
    def source(self) -> SourceConfig:
        return self.config.source

    def _write(self, kind, index, frame):
        return self.work.write_table(f"{kind.partition('/')[0]}/{index}.parquet", frame, CONTRACTS[kind])

    def _refused(self, texts):
        ids = self.work.read_table(texts)["doc_id"].to_list()
        rows = [("r3", "annotate", "refused", "content filter")] if "r3" in ids else []
        return pl.DataFrame(rows, schema=REJECTS.columns, orient="row")

    def publish(self, target, **more):
        facts = {"run_id": "run-1", "created_at": NOW, "code_version": "0.1"} | more
        return publish(self.work, target, self.config, self.reports, **facts)


@pytest.fixture
def work(tmp_path):
    return open_store(Location(uri=str(tmp_path / "work")))


@pytest.fixture
def target(tmp_path):
    return open_store(Location(uri=str(tmp_path / "published")))


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def published_at(request, tmp_path):
    """Where to publish: on disk, in a bucket."""
    if request.param == "s3":
        return request.getfixturevalue("bucket").at("published")
    return Location(uri=str(tmp_path / "published"))


# what a version holds


def test_every_row_has_its_label_gold_and_own_columns_and_repeats_share_the_label(work, target):
    published = Run(work).publish(target)
    rows = read_labels(target, published.manifest)
    # Texts in order: r0 buy, r1 hello | r3 again; the first and the third of each shard of labels are spam.
    assert rows.select("doc_id", "text", "label", "gold", "lang", "split").rows() == [
        ("r0", "buy", "spam", "spam", "en", "train"),
        ("r3", "again", "spam", None, "fr", "train"),
        ("r4", "hello", "ham", None, "en", "train"),
        ("r1", "hello", "ham", None, "en", "test"),
        ("r2", "buy", "spam", "ham", "de", "test"),
    ]
    assert rows.columns == [
        "doc_id", "text", "label", "confidence", "candidates", "teacher_label", "source", "needs_review", "reason",
        "gold", "lang", "split",
    ]  # fmt: skip
    assert published.manifest.counts.model_dump() == {
        "rows": 5, "texts": 3, "needs_review": 2, "rejects": 1, "reject_reasons": {"refused": 1},
    }  # fmt: skip


def test_a_version_has_the_files_that_its_manifest_names_and_no_others(work, target):
    published = Run(work).publish(target)
    manifest, folder = published.manifest, f"mails/versions/{published.version}"
    assert manifest.folder == folder
    assert [file.path for file in manifest.files] == [
        "data/train-00000.parquet", "data/test-00000.parquet", "rejects.parquet", "README.md", "croissant.json",
    ]  # fmt: skip
    assert target.list_paths("") == sorted(
        [f"{folder}/{file.path}" for file in manifest.files] + ["mails/manifests/v00000001.json", "mails/latest.json"]
    )
    for file in manifest.files:
        data = target.read_bytes(f"{folder}/{file.path}")
        assert (file.size_bytes, file.sha256) == (len(data), sha256(data).hexdigest())
    assert json.loads(target.read_bytes("mails/latest.json")) == {
        "contract": "latest/1", "number": 1, "version": published.version,
    }  # fmt: skip


def test_a_report_lies_in_the_version_and_changes_nothing_of_what_it_is(tmp_path, work, target):
    run = Run(work)
    plain = run.publish(open_store(Location(uri=str(tmp_path / "plain")))).manifest
    told = run.publish(target, page=Page(run.config.task)).manifest
    assert told.version == plain.version
    assert [file.path for file in told.files] == [*(file.path for file in plain.files), "metrics.json", "report.html"]
    html = target.read_bytes(f"{told.folder}/report.html")
    assert (told.files[-1].size_bytes, told.files[-1].sha256) == (len(html), sha256(html).hexdigest())
    # Its number is given after it; its id is known before.
    assert f"Version <code>{told.version}</code>" in html.decode()
    assert "5 texts, 2 labels" in html.decode()


def test_a_report_that_an_earlier_try_left_stays_as_it_is(work, target):
    run = Run(work)
    # The tenth write is that of the manifest.
    with pytest.raises(TransientError):
        run.publish(FailingStore(target, 9, TransientError("s3", "gone")), page=Page(run.config.task), at_once=1)
    folder = next(path for path in target.list_paths("mails") if path.endswith("report.html"))
    left = target.read_bytes(folder)
    later = datetime(2027, 1, 1, tzinfo=UTC)
    published = run.publish(target, page=Page(run.config.task), created_at=later)
    assert target.read_bytes(folder) == left
    assert published.manifest.files[-1].sha256 == sha256(left).hexdigest()


def test_the_manifest_tells_where_everything_came_from(work, target):
    run = Run(work)
    published = run.publish(target, run_id="run-9", code_version="1.2.3")
    manifest = read_manifest(target, "mails")
    assert manifest == published.manifest
    assert (published.uri, published.number, published.is_new) == ("published/mails", 1, True)
    assert (manifest.run_id, manifest.code_version, manifest.created_at, manifest.parent) == (
        "run-9",
        "1.2.3",
        NOW,
        None,
    )
    assert manifest.spec == run.config.task
    assert manifest.spec_fingerprint == run.config.task.fingerprint
    assert (manifest.usage.n_requests, manifest.usage.cost_usd) == (4, 0.5)
    assert (manifest.student.device, manifest.student.device_reason) == ("cpu", "no GPU")
    assert manifest.config["source"]["shard_rows"] == 2


def test_a_version_is_named_by_its_content_and_its_spec_alone(work, target):
    published = Run(work).publish(target)
    files = sorted([f.path, f.sha256] for f in published.manifest.files if f.path.endswith(".parquet"))
    content = json.dumps([files, published.manifest.spec_fingerprint], separators=(",", ":"))
    assert published.version == blake2b(content.encode(), digest_size=8).hexdigest()


def test_a_corpus_without_gold_has_no_column_of_it(work, target):
    rows = [{"id": "a", "text": "x", "gold": None, "split": None}]
    assert "gold" not in read_labels(target, Run(work, rows).publish(target).manifest).columns


def test_how_rows_were_cut_into_shards_changes_nothing(tmp_path, target):
    versions = set()
    for shard_rows in (1, 2, 3, 100):
        work = open_store(Location(uri=str(tmp_path / f"work-{shard_rows}")))
        run = Run(work, source={"shard_rows": shard_rows})
        labels = label_rows(["r0", "r1", "r3"])
        for i, (texts, report) in enumerate(zip(run.reports.ingested.texts, run.reports.predicted, strict=True)):
            shard = labels.join(work.read_table(texts).select("doc_id"), on="doc_id", maintain_order="left")
            assert work.write_table(f"labels/{i}.parquet", shard, LABELS).rows == texts.rows
            report.__dict__["labels"] = work.write_table(f"labels/{i}.parquet", shard, LABELS)
        versions.add(run.publish(target).version)
    assert len(versions) == 1
    assert list_versions(target, "mails") == [1]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_labels_find_their_rows_however_texts_repeat(data):
    texts = data.draw(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=25))
    shard_rows = data.draw(st.integers(1, 5))
    work, target = (open_store(Location(uri=f"memory://test_publish/{name}")) for name in ("work", "published"))
    for store in (work, target):
        store.delete(store.list_paths(""))
    rows = [{"id": f"r{i}", "text": text, "gold": None, "split": None} for i, text in enumerate(texts)]
    run = Run(work, rows, source={"shard_rows": shard_rows})
    got = read_labels(target, run.publish(target).manifest)
    assert got["text"].to_list() == texts
    wanted = {}
    for texts_ref, report in zip(run.reports.ingested.texts, run.reports.predicted, strict=True):
        wanted |= dict(zip(work.read_table(texts_ref)["text"], work.read_table(report.labels)["label"], strict=True))
    assert got["label"].to_list() == [wanted[text] for text in texts]


def test_a_row_whose_text_has_no_label_is_a_reject_once(work, target):
    published = Run(work, unlabelled=("r1", "r3")).publish(target)
    rejects = pl.read_parquet(target.read_bytes(f"{published.manifest.folder}/rejects.parquet"))
    assert rejects.rows() == [
        ("r3", "annotate", "refused", "content filter"),
        ("r1", "publish", "unlabelled", "its text, that of row r1, has no label"),
        ("r4", "publish", "unlabelled", "its text, that of row r1, has no label"),
    ]
    assert read_labels(target, published.manifest)["doc_id"].to_list() == ["r0", "r2"]


def test_nothing_labelled_is_nothing_to_publish(work, target):
    with pytest.raises(ContractError, match="no row with a label"):
        Run(work, unlabelled=("r0", "r1", "r3")).publish(target)
    assert target.list_paths("") == []


@pytest.mark.slow
def test_large_splits_are_cut_into_parts_of_50000_rows(work, target):
    rows = [{"id": f"r{i}", "text": f"t{i}", "gold": None, "split": None} for i in range(100_001)]
    published = Run(work, rows, source={"shard_rows": 70_000}).publish(target)
    parts = [(file.path, file.rows) for file in published.manifest.files if file.split]
    assert parts == [(f"data/train-0000{i}.parquet", n) for i, n in enumerate([50_000, 50_000, 1])]
    assert read_labels(target, published.manifest)["doc_id"].to_list() == [row["id"] for row in rows]


def test_splits_with_odd_names_have_files_that_stay_in_their_folder(work, target):
    names = ["../../x", "dev set", "dev_set", "Dev Set", "日本", "a/b", "t" * 300]
    rows = [{"id": f"r{i}", "text": f"t{i}", "gold": None, "split": name} for i, name in enumerate(names)]
    published = Run(work, rows).publish(target)
    files = {file.split: file.path for file in published.manifest.files if file.split}
    assert list(files) == names
    stems = [path.removeprefix("data/").removesuffix("-00000.parquet") for path in files.values()]
    assert stems == ["x", "dev_set", "dev_set_2", "Dev_Set_3", "split", "a_b", "t" * 40]
    assert read_labels(target, published.manifest)["split"].to_list() == names


def test_the_student_is_published_where_it_is_wanted(work, target):
    work.write_bytes("students/k/model.safetensors", b"1234")
    student = [StoredFile(uri="students/k/model.safetensors", size_bytes=4, sha256=sha256(b"1234").hexdigest())]
    without = Run(work, student=student).publish(target)
    wanted = Run(work, student=student, publish={"include_student": True}).publish(target)
    assert target.read_bytes(f"{wanted.manifest.folder}/student/model.safetensors") == b"1234"
    assert wanted.version != without.version
    assert [file.path for file in without.manifest.files if "student" in file.path] == []


def test_secrets_in_urls_do_not_reach_the_manifest(work, target):
    run = Run(work, teacher={"base_url": "https://llm.example/v1?key=hunter2"})
    published = run.publish(target)
    assert published.manifest.config["teacher"]["base_url"] == "https://llm.example/v1"
    assert published.manifest.config["teacher"]["api_key_env"] == "OPENAI_API_KEY"
    for path in target.list_paths(""):
        assert b"hunter2" not in target.read_bytes(path)


def test_the_signature_of_a_corpus_reaches_no_object_of_a_version(work, target):
    file = SourceFile(uri="https://me@h/x.csv?sig=S#f", size_bytes=1, etag="e")
    local = SourceFile(uri="inbox/what?sig.csv", size_bytes=1, etag="e")
    # A row without an id is told with its file.
    run = Run(work, [*ROWS, {"id": None, "text": "nameless"}], files=(file, local), source={"uri": file.uri})
    published = run.publish(target, page=Page(run.config.task))
    assert [one.uri for one in published.manifest.source_files] == ["https://h/x.csv", "inbox/what?sig.csv"]
    folder = published.manifest.folder
    rejects = pl.read_parquet(BytesIO(target.read_bytes(f"{folder}/rejects.parquet")))
    assert "https://h/x.csv:6" in rejects["doc_id"].to_list()
    assert "sig=S" not in rejects.write_csv()
    assert b"https://h/x.csv" in target.read_bytes(f"{folder}/report.html")
    for path in target.list_paths(""):
        assert b"sig=S" not in target.read_bytes(path), path


# versions


def test_the_same_labels_are_one_version_however_often_they_are_published(work, target):
    run = Run(work)
    first = run.publish(target)
    stored = {path: target.read_bytes(path) for path in target.list_paths("")}
    again = run.publish(target, run_id="run-2", code_version="9", created_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert (again.is_new, again.version, again.number) == (False, first.version, 1)
    assert again.manifest.run_id == "run-1"
    assert {path: target.read_bytes(path) for path in target.list_paths("")} == stored


def test_new_labels_are_the_next_version_with_the_last_one_as_parent(work, target):
    first = Run(work).publish(target)
    second = Run(work, confidence=0.75).publish(target)
    assert (second.number, second.manifest.parent, second.is_new) == (2, first.version, True)
    back = Run(work).publish(target)
    assert (back.number, back.is_new) == (1, False)
    assert list_versions(target, "mails") == [1, 2]
    assert read_labels(target, first.manifest)["confidence"].to_list() == [0.5] * 5


class CountingStore:
    """A store that notes what is read."""

    def __init__(self, store):
        self._store, self.read = store, []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read_bytes(self, path):
        self.read.append(path)
        return self._store.read_bytes(path)


def test_publishing_new_labels_reads_the_last_manifest_alone_however_many_there_are(work, target):
    for i in range(5):
        Run(work, confidence=i / 16).publish(target)
    counting = CountingStore(target)
    assert Run(work, confidence=0.75).publish(counting).number == 6
    assert counting.read == ["mails/manifests/v00000005.json"]


def test_another_spec_is_another_version_of_the_same_data(work, target):
    Run(work).publish(target)
    other = Run(work, task={"instruction": "Sort them."}).publish(target)
    assert (other.number, other.is_new) == (2, True)


def test_a_version_is_found_by_number_by_id_and_as_the_latest(work, target):
    first, second = Run(work).publish(target), Run(work, confidence=0.75).publish(target)
    for version in (1, "1", first.version):
        assert read_manifest(target, "mails", version) == first.manifest
    for version in (2, "2", second.version, "latest"):
        assert read_manifest(target, "mails", version) == second.manifest
    assert read_manifest(target, "mails") == second.manifest


def test_a_lost_hint_changes_nothing_for_readers(work, target):
    published = Run(work).publish(target)
    target.delete(["mails/latest.json"])
    assert read_manifest(target, "mails", "latest") == published.manifest


@pytest.mark.parametrize("version", [3, "3", "newest", "0123456789abcdef", "", "-1"])
def test_an_unknown_version_is_told_with_those_there_are(work, target, version):
    Run(work).publish(target)
    Run(work, confidence=0.75).publish(target)
    with pytest.raises(StoreError, match=rf"no version '{version}', wanted latest, one of 1, 2, or an id"):
        read_manifest(target, "mails", version)


def test_an_unknown_data_set_is_told_with_those_there_are(work, target):
    with pytest.raises(StoreError, match="wanted one that was published"):
        read_manifest(target, "mails")
    Run(work).publish(target)
    Run(work, name="posts").publish(target)
    with pytest.raises(StoreError, match="data set 'males': found no version of it, wanted one of mails, posts"):
        read_manifest(target, "males")
    assert list_versions(target, "males") == []


@pytest.mark.parametrize("name", ["../work", "/etc", "a//b", ""])
def test_a_data_set_name_cannot_leave_the_publish_location(target, name):
    with pytest.raises(StoreError, match="may leave its folder"):
        read_manifest(target, name)


def test_other_objects_among_the_manifests_are_passed_over(work, target):
    published = Run(work).publish(target)
    for name in ("v00000009.json.bak", "notes.txt", "v12.json", "old/v00000003.json"):
        target.write_bytes(f"mails/manifests/{name}", b"{}")
    assert list_versions(target, "mails") == [1]
    assert read_manifest(target, "mails") == published.manifest


# manifests that others wrote


def manifest_with(**changes):
    value = {
        "contract": "manifest/1", "dataset": "mails", "number": 1, "version": "0" * 16,
        "created_at": "2026-11-21T12:00:00Z",
        "run_id": "r", "code_version": "1", "spec": {"labels": [{"name": "a"}, {"name": "b"}]}, "spec_fingerprint": "",
        "seed": 0, "config": {}, "source_files": [], "files": [], "usage": {}, "checks": [],
        "counts": {"rows": 0, "texts": 0, "needs_review": 0, "rejects": 0},
        "student": {"folder": "", "files": [], "key": "", "base_model": "", "device": "", "device_reason": "",
                    "n_train": 0, "epochs": [], "seconds": 0},
        "metrics": {"n_rows": 0, "n_labelled": 0, "n_review": 0, "mean_set_size": 0, "set_sizes": {}, "statuses": {},
                    "class_counts": {}, "agreement": 0, "mean_confidence": 0, "gold": None},
    }  # fmt: skip
    return json.dumps(value | changes).encode()


def test_a_manifest_with_fields_of_a_later_release_is_still_read():
    assert decode_manifest(manifest_with(new_field=1), "p").dataset == "mails"


@pytest.mark.parametrize("path", ["../../other/x", "/etc/passwd", "data/../../x", "data\\..\\x", ""])
def test_a_path_in_a_manifest_cannot_leave_the_version(path):
    file = {"path": path, "size_bytes": 1, "sha256": "", "rows": 1}
    with pytest.raises(ContractError, match=r"files\.0\.path in p"):
        decode_manifest(manifest_with(files=[file]), "p")


@pytest.mark.parametrize("changes", [{"version": "../x"}, {"dataset": "../x"}, {"number": 0}, {"files": 1}])
def test_a_manifest_that_is_not_what_its_contract_says_is_refused(changes):
    with pytest.raises(ContractError, match="manifest/1"):
        decode_manifest(manifest_with(**changes), "p")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"contract": "manifest/1", "dat'])
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(ContractError, match=r"table manifest/1: found .* in p"):
        decode_manifest(data, "p")


def test_a_manifest_of_a_later_version_is_refused_by_its_name_and_not_built_upon(work, target):
    target.write_bytes("mails/manifests/v00000001.json", manifest_with(contract="manifest/2"))
    for use in (lambda: read_manifest(target, "mails"), lambda: Run(work).publish(target)):
        with pytest.raises(ContractError, match=r"table manifest/2: found a contract that this version does not know"):
            use()
    assert list_versions(target, "mails") == [1]


def test_a_manifest_moved_to_another_place_is_refused(work, target):
    Run(work).publish(target)
    target.write_bytes("mails/manifests/v00000002.json", target.read_bytes("mails/manifests/v00000001.json"))
    with pytest.raises(ContractError, match=r"mails number 1 in .*v00000002\.json"):
        read_manifest(target, "mails", 2)


def test_changed_labels_are_not_read(work, target):
    manifest = Run(work).publish(target).manifest
    path = f"{manifest.folder}/{manifest.files[0].path}"
    target.write_bytes(path, target.read_bytes(path)[:-1] + b"x")
    with pytest.raises(StoreError, match=r"1 of its objects not as published \(data/train-00000\.parquet: sha256"):
        read_labels(target, manifest)


# failures and races


class FailingStore:
    """A store whose n-th write fails, and all after it."""

    def __init__(self, store, n, error):
        self._store, self._n, self._error = store, n, error

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _count(self):
        self._n -= 1
        if self._n < 0:
            raise self._error

    def write_bytes(self, path, data):
        self._count()
        self._store.write_bytes(path, data)

    def create_bytes(self, path, data):
        self._count()
        return self._store.create_bytes(path, data)


@pytest.mark.parametrize("n", range(8))
def test_a_failure_at_any_write_leaves_no_version_and_the_next_try_publishes(work, target, n):
    # Writes: lease, two parts, rejects, card, croissant, lease, manifest; then the hint.
    with pytest.raises(TransientError):
        Run(work).publish(FailingStore(target, n, TransientError("s3", "gone")), at_once=1)
    assert list_versions(target, "mails") == []
    published = Run(work).publish(target)
    assert (published.number, published.is_new) == (1, True)
    assert read_labels(target, published.manifest).height == 5


def test_a_failure_of_the_hint_alone_is_no_failure_of_the_version(work, target, caplog):
    published = Run(work).publish(FailingStore(target, 8, StoreError("store", "full", "room", "free some")))
    assert published.is_new
    assert list_versions(target, "mails") == [1]
    assert "latest.json of mails was not written" in caplog.text


class ChangingStore:
    """A store that gives other labels each time."""

    def __init__(self, store):
        self._store, self._n = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read_table(self, ref, columns=None):
        self._n += 1
        frame = self._store.read_table(ref, columns)
        return frame.with_columns(confidence=pl.lit(self._n / 64, pl.Float32)) if ref.contract == "labels/1" else frame


def test_tables_that_change_between_the_two_readings_are_not_published(work, target):
    run = Run(work)
    run.work = ChangingStore(work)
    with pytest.raises(ContractError, match=r"data/train-00000\.parquet changed between two readings"):
        run.publish(target)
    assert list_versions(target, "mails") == []


def test_labels_that_do_not_fit_the_texts_are_not_published(work, target):
    run = Run(work)
    run.reports = run.reports.model_copy(update={"predicted": run.reports.predicted[:1]})
    with pytest.raises(ContractError, match="1 shards of labels, wanted 2 as of texts"):
        run.publish(target)
    assert target.list_paths("") == []


def test_two_labels_for_one_text_are_not_published(work, target):
    run = Run(work)
    twice = PredictReport(
        labels=work.write_table("labels/x.parquet", label_rows(["r0", "r3"]), LABELS), n_review=0, sources={}
    )
    run.reports = run.reports.model_copy(update={"predicted": (run.reports.predicted[0], twice)})
    with pytest.raises(ContractError, match="two labels for one text"):
        run.publish(target)


def at_once(n, tmp_path, published_at, confidence):
    """Publish n times at once, each by a thread with stores of its own."""
    gate = threading.Barrier(n)

    def one(i):
        run = Run(open_store(Location(uri=str(tmp_path / f"work-{i}"))), confidence=confidence(i))
        gate.wait()
        return run.publish(open_store(published_at), run_id=f"run-{i}")

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(one, range(n)))


@pytest.mark.slow
def test_twelve_who_publish_at_once_take_the_numbers_from_1_to_12(tmp_path, published_at):
    published = at_once(12, tmp_path, published_at, lambda i: i / 16)
    target = open_store(published_at)
    assert sorted(one.number for one in published) == list(range(1, 13)) == list_versions(target, "mails")
    assert all(one.is_new for one in published)
    for i, one in enumerate(published):
        manifest = read_manifest(target, "mails", one.number)
        assert manifest.run_id == f"run-{i}"
        assert read_labels(target, manifest)["confidence"].to_list() == [i / 16] * 5
    by_number = sorted(published, key=lambda one: one.number)
    assert [one.manifest.parent for one in by_number] == [None, *(one.version for one in by_number[:-1])]


@pytest.mark.slow
def test_twelve_who_publish_the_same_at_once_make_one_version(tmp_path, published_at):
    published = at_once(12, tmp_path, published_at, lambda _: 0.5)
    assert {(one.number, one.version) for one in published} == {(1, published[0].version)}
    assert [one.is_new for one in published].count(True) == 1
    assert list_versions(open_store(published_at), "mails") == [1]


@pytest.mark.s3
def test_a_bucket_holds_the_same_version_as_a_folder(bucket, work, target):
    run = Run(work)
    on_disk, in_bucket = run.publish(target), run.publish(open_store(bucket.at("sets")))
    assert in_bucket.manifest == on_disk.manifest
    place = bucket.at("sets")
    assert read_labels(open_store(place), in_bucket.manifest).equals(read_labels(target, on_disk.manifest))


# the card


def card_of(target, published):
    text = target.read_bytes(f"{published.manifest.folder}/README.md").decode()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_cards_head_tells_the_hub_where_each_split_lies(work, target):
    head, body = card_of(target, Run(work).publish(target))
    assert head == {
        "pretty_name": "mails",
        "task_categories": ["text-classification"],
        "tags": ["candist", "candidate-labels", "weak-supervision"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "data/train-*.parquet"},
                    {"split": "test", "path": "data/test-*.parquet"},
                ],
            }
        ],
    }
    assert "| spam | Unwanted. | 3 |" in body
    assert "| lang | from the corpus |" in body
    assert "2026" not in body.replace("2506.03857", ""), "a card has no date"


def test_the_card_tells_licence_and_languages_where_they_are_known(work, target):
    head, _ = card_of(target, Run(work, publish={"license": "cc-by-4.0", "language": ["en"]}).publish(target))
    assert (head["license"], head["language"]) == ("cc-by-4.0", ["en"])


def test_the_card_tells_of_an_audit_of_failed_checks_and_of_findings_that_warn(work, target):
    def share(value):
        return Interval(value=value, low=value - 0.1, high=value + 0.1, n=40)

    run = Run(work)
    audit = GoldReport(
        teacher_accuracy=share(0.5), final_accuracy=share(0.625), macro_f1=0.5, coverage=share(0.75),
        kept_accuracy=share(0.875), lift=None,
    )  # fmt: skip
    _, without = card_of(target, run.publish(target))
    assert "is not measured" in without
    assert "## Warnings" not in without
    findings = [
        Finding(name=f"is-{severity}", severity=severity, evidence="Seen.", consequence="Bent.", remedy="Mend.")
        for severity in ("warn", "note")
    ]
    quality = QualityReport.model_validate(
        {"n_sets": 1, "mean_set_size": 1, "set_sizes": {}, "single_share": 1, "identical_share": 1, "entropy": 1,
         "confusable": [], "coverage": share(0.5), "is_audited": True, "in_set_entropy": 0, "findings": findings}
    )  # fmt: skip
    checks = (CheckResult(name="max_rejects", passed=False, observed="9 <b>", wanted="1", on_fail="warn"),)
    metrics = run.reports.metrics.model_copy(update={"audit": audit})
    run.reports = run.reports.model_copy(update={"metrics": metrics, "quality": quality, "checks": checks})
    # Another spec, for another version: what lies in a version is never written anew.
    run.config = config_of(task={"instruction": "Sort them."})
    _, told = card_of(target, run.publish(target))
    assert "Against an audit, 40 texts labelled by a person" in told
    assert "| final label is the audited label | 62.5 % (52.5 to 72.5) |" in told
    plain = re.sub(r"\\(.)", r"\1", told)
    assert "- max_rejects: observed 9 <b>, wanted 1" in plain
    assert "<b>" not in told
    assert "- is-warn: Seen. Bent." in plain
    assert "note" not in told
    assert "`reviewed` by a person" in told


def test_the_card_calls_a_teacher_without_a_language_model_no_language_model(work, target):
    _, body = card_of(target, Run(work, teacher={"kind": "zeroshot"}).publish(target))
    assert "language model" not in body
    assert "a zero-shot classifier" in body
    more = {"kind": "openai", "base_url": "https://llm.example/v1", "model": "m"}
    both = Run(work, teacher={"kind": "zeroshot"}, more_teachers=[more], confidence=0.25)
    _, body = card_of(target, both.publish(target))
    assert "2 teachers held possible" in body
    assert r"openai m" in body


def test_the_card_shows_odd_names_letter_by_letter_and_keeps_its_form(work, target):
    label = "a|b\n---\n<script>alert(1)</script> [x](javascript:y) `c` \x1b[31m"
    rows = [{"id": "r0", "text": "x", "gold": None, "split": "| split: !!python/object"}]
    run = Run(work, rows, task={"labels": [{"name": label}, {"name": "ham"}]}, name="mails")
    head, body = card_of(target, run.publish(target))
    assert head["configs"][0]["data_files"] == [
        {"split": "split_python_object", "path": "data/split_python_object-*.parquet"}
    ]
    assert not re.search(r"(?<!\\)<script", body)
    assert "\x1b" not in body
    row = next(line for line in body.splitlines() if "script" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


@given(st.text(max_size=30))
def test_escaped_text_is_one_line_without_an_open_mark(text):
    shown = escaped(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[<|`]", shown)
    assert re.sub(r"\\(.)", r"\1", shown).isprintable()


def test_a_file_of_a_version_keeps_its_split_beyond_the_manifest():
    file = VersionFile(path="data/train-00000.parquet", size_bytes=1, sha256="", rows=1, split="train")
    assert VersionFile.model_validate_json(file.model_dump_json()) == file
