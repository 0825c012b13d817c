"""Versions are found by every kind of reference, read lazily by other tools, verified, named and rolled back."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from fsspec import filesystem

from candist_core import load
from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError, ContractError, StoreError
from candist_core.stages.versions import (
    find_datasets,
    find_version,
    list_entries,
    rollback_version,
    scan_version,
    tag_version,
    untag_version,
    verify_version,
)
from candist_core.versions import list_versions, read_manifest
from tests.published import dataset_at, publish_mails


@pytest.fixture(params=["disk", "file", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def place(request, tmp_path):
    """Where to publish, of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("bucket").at("sets")
    uris = {"disk": tmp_path / "sets", "file": f"file://{tmp_path}/sets", "memory": f"memory://{tmp_path}/sets"}
    return Location(uri=str(uris[request.param]))


def access(place):
    return {"endpoint_url": place.endpoint_url, "region": place.region, "profile": place.profile}


def ids(frame):
    return frame.collect()["doc_id"].to_list()


# reading


def test_a_version_is_a_lazy_frame_with_its_split_as_the_last_column(place):
    publish_mails(place)
    frame = load(dataset_at(place).uri, **access(place))
    assert isinstance(frame, pl.LazyFrame)
    rows = frame.collect()
    assert rows.columns[-1] == "split"
    assert rows.select("doc_id", "split").rows() == [
        ("r0", "train"), ("r3", "train"), ("r4", "train"), ("r1", "test"), ("r2", "test"),
    ]  # fmt: skip
    assert ids(load(dataset_at(place).uri, split="test", **access(place))) == ["r1", "r2"]
    assert rows.to_pandas()["label"].to_list() == rows["label"].to_list()


def test_a_query_reaches_the_parquet_reader(place):
    publish_mails(place)
    plan = load(dataset_at(place).uri, **access(place)).filter(pl.col("label") == "ham").select("doc_id").explain()
    assert "SELECTION" in plan
    assert "PROJECT" in plan
    assert "PROJECT */" not in plan


@pytest.mark.s3
def test_endpoint_region_and_credentials_of_a_profile_serve_polars_too(bucket, tmp_path, aws_environment):
    publish_mails(bucket.at("sets"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        aws_environment.delenv(name)
    settings = f"region = eu-west-1\nendpoint_url = {bucket.endpoint_url}\n"
    secrets = "aws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "config").write_text(f"[profile lab]\n{settings}{secrets}")
    aws_environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert len(ids(load(f"s3://{bucket.name}/sets/mails", profile="lab"))) == 5
    assert len(ids(load(f"s3://{bucket.name}/sets/mails", profile="lab", region="us-east-1"))) == 5


@pytest.mark.parametrize("version", ["", "latest", "1", "tagged"])
def test_a_reference_by_any_name_reads_the_same_rows(place, version):
    publish_mails(place)
    tag_version(dataset_at(place), "tagged")
    assert len(ids(load(dataset_at(place, version).uri, **access(place)))) == 5
    by_id = find_version(dataset_at(place)).manifest.version
    assert len(ids(load(dataset_at(place, by_id).uri, **access(place)))) == 5


def test_an_unknown_split_names_those_there_are(disk):
    publish_mails(disk)
    with pytest.raises(StoreError, match=r"no split 'dev', wanted one of test, train"):
        load(dataset_at(disk).uri, split="dev")


@pytest.mark.parametrize("reference", ["mails", "s3://mails", "sets/@3", "sets/mails@", "/"])
def test_a_reference_that_names_no_version_is_refused(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"found no (data set|version)"):
        load(reference)


def test_a_lost_file_is_told_before_anything_is_read(place):
    store = publish_mails(place)
    manifest = read_manifest(store, "mails")
    store.delete([f"{manifest.folder}/data/test-00000.parquet"])
    with pytest.raises(StoreError, match=r"1 of its objects not as published \(data/test-00000.parquet: nothing"):
        load(dataset_at(place).uri, **access(place))


def flip_a_byte(store, path):
    data = bytearray(store.read_bytes(path))
    data[len(data) // 2] ^= 1
    store.write_bytes(path, bytes(data))


def test_a_flipped_byte_is_refused_where_hashes_are_wanted(place):
    store = publish_mails(place)
    flip_a_byte(store, f"{read_manifest(store, 'mails').folder}/data/train-00000.parquet")
    load(dataset_at(place).uri, **access(place))
    with pytest.raises(StoreError, match=r"data/train-00000.parquet: sha256"):
        load(dataset_at(place).uri, verify=True, **access(place))


# other tools


def data_files(version):
    files = [file for file in version.manifest.files if file.split]
    return {
        split: [f"{version.uri}/{file.path}" for file in files if file.split == split] for split in ("train", "test")
    }


def test_polars_alone_reads_the_folder(disk):
    publish_mails(disk)
    folder = find_version(dataset_at(disk)).uri
    assert pl.scan_parquet(f"{folder}/data/*.parquet").select(pl.len()).collect().item() == 5


def test_duckdb_queries_the_folder_and_the_lazy_frame(disk):
    publish_mails(disk)
    folder = find_version(dataset_at(disk)).uri
    query = "SELECT label, count(*) FROM {} GROUP BY label ORDER BY label"
    labels = load(dataset_at(disk).uri)
    with duckdb.connect() as db:
        by_file = db.sql(query.format(f"read_parquet('{folder}/data/*.parquet')")).fetchall()
        assert by_file == [("ham", 2), ("spam", 3)]
        assert db.sql(query.format("labels")).fetchall() == by_file
    assert labels.collect_schema().names()[-1] == "split"


@pytest.mark.s3
def test_duckdb_queries_a_bucket_through_fsspec(bucket):
    place = bucket.at("sets")
    publish_mails(place)
    folder = find_version(dataset_at(place)).uri
    with duckdb.connect() as db:
        db.register_filesystem(filesystem("s3", endpoint_url=place.endpoint_url))
        rows = db.sql(f"SELECT doc_id FROM read_parquet('{folder}/data/train-*.parquet') WHERE lang = 'fr'").fetchall()
    assert rows == [("r3",)]


def test_pandas_reads_the_folder(disk):
    import pandas as pd

    publish_mails(disk)
    frame = pd.read_parquet(f"{find_version(dataset_at(disk)).uri}/data")
    assert sorted(frame["doc_id"]) == ["r0", "r1", "r2", "r3", "r4"]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, with a cache of its own; it reads these variables when it is first imported."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.slow
def test_datasets_reads_the_files_of_each_split(disk, datasets):
    publish_mails(disk)
    found = datasets.load_dataset("parquet", data_files=data_files(find_version(dataset_at(disk))))
    assert {split: rows["doc_id"][:] for split, rows in found.items()} == {
        "train": ["r0", "r3", "r4"], "test": ["r1", "r2"],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlcroissant")
def test_the_examples_of_the_documentation_run_as_they_stand(tmp_path, monkeypatch, datasets):
    monkeypatch.chdir(tmp_path)
    store = publish_mails(Location(uri="published"), name="reviews")
    words = (Path(__file__).parents[2] / "docs" / "versions.md").read_text()
    made: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", words, re.DOTALL):
        exec(code, made)
    assert store.list_paths("reviews/publishing") == []
    # Of the rows r0 to r4 those with the texts of r1 want review; r3 and the others are spam.
    assert sorted(made["doubtful"]["doc_id"]) == ["r1", "r4"]
    assert len(made["frame"]) == len(made["also_pandas"]) == 5
    assert made["counts"] == {"ham": 2, "spam": 3}
    assert made["also_polars"].collect().height == 5
    assert made["by_file"]["train"].num_rows == made["by_card"]["train"].num_rows == 3
    assert made["by_card"]["test"].num_rows == 2
    assert [one["train/doc_id"] for one in made["records"]] == [b"r0", b"r3", b"r4"]
    ((texts, targets),) = list(made["batches"])
    assert sorted(zip(texts, targets.tolist(), strict=True)) == [("again", 0), ("buy", 0)]


# contracts


def rewrite_manifest(store, number=1, **changes):
    path = f"mails/manifests/v{number:08d}.json"
    store.write_bytes(path, json.dumps(json.loads(store.read_bytes(path)) | changes).encode())


def test_fields_and_columns_that_a_later_candist_adds_change_nothing(place):
    store = publish_mails(place)
    manifest = read_manifest(store, "mails")
    files = []
    for file in manifest.files:
        path = f"{manifest.folder}/{file.path}"
        if file.split:
            frame = pl.read_parquet(store.read_bytes(path)).with_columns(embedding=pl.lit([1.0]))
            local = open_store(Location(uri="memory://later"))
            local.write_bytes(file.path, b"")
            frame.write_parquet(local.place.fs.open(local.place.path_of(file.path), "wb"),
                                metadata={"contract": "published/1", "more": "1"})  # fmt: skip
            store.write_bytes(path, local.read_bytes(file.path))
        files.append(file.model_dump() | {"size_bytes": len(store.read_bytes(path)), "codec": "zstd"})
    rewrite_manifest(store, files=files, license="cc0", drift={"share": 0.1})
    frame = load(dataset_at(place).uri, **access(place))
    assert frame.collect().columns[-2:] == ["embedding", "split"]
    assert len(list_entries(place)) == 1


def test_a_manifest_of_a_later_contract_is_refused_by_its_name_by_every_reader(disk, tmp_path):
    store = publish_mails(disk)
    publish_mails(disk, confidence=0.75)
    rewrite_manifest(store, 2, contract="manifest/2")
    for use in (lambda: load(dataset_at(disk).uri), lambda: find_version(dataset_at(disk, "2"))):
        with pytest.raises(ContractError, match=r"manifest/2: found a contract that this version does not know"):
            use()
    assert len(ids(load(dataset_at(disk, "1").uri))) == 5
    entries = list_entries(dataset_at(disk))
    assert [(one.number, one.manifest is None) for one in entries] == [(1, False), (2, True)]
    assert "manifest/2" in entries[1].refusal


def test_data_of_a_later_contract_are_refused_by_its_name(disk):
    store = publish_mails(disk)
    manifest = read_manifest(store, "mails")
    path = f"{manifest.folder}/data/train-00000.parquet"
    frame = pl.read_parquet(store.read_bytes(path))
    frame.write_parquet(f"{disk.uri}/{path}", metadata={"contract": "published/2"})
    size = len(store.read_bytes(path))
    rewrite_manifest(
        store, files=[{"path": "data/train-00000.parquet", "size_bytes": size, "sha256": "", "split": "train"}]
    )
    with pytest.raises(ContractError, match=r"table published/2: found a contract that this version does not know"):
        load(dataset_at(disk).uri)


def test_a_manifest_without_data_is_refused(disk):
    rewrite_manifest(publish_mails(disk), files=[])
    with pytest.raises(ContractError, match="no data in number 1"):
        load(dataset_at(disk).uri)


# listing


def test_a_place_lists_each_data_set_and_a_data_set_each_version(place):
    publish_mails(place)
    store = publish_mails(place, confidence=0.75)
    publish_mails(place, name="posts")
    tag_version(dataset_at(place, "1"), "first")
    store.write_bytes("notes/readme.txt", b"not a data set")
    assert [(one.dataset, one.number, one.n_versions) for one in list_entries(place)] == [
        ("mails", 2, 2), ("posts", 1, 1),
    ]  # fmt: skip
    assert [(one.number, one.tags) for one in list_entries(dataset_at(place))] == [(1, ("first",)), (2, ())]
    assert find_datasets(store) == ["mails", "posts"]


def test_a_place_without_data_sets_is_told(place):
    with pytest.raises(StoreError, match="found no data set"):
        list_entries(place)


# verification


def test_a_whole_version_has_no_findings(place):
    publish_mails(place)
    assert verify_version(find_version(dataset_at(place))) == []


def test_verification_says_what_is_wrong_where(place):
    store = publish_mails(place)
    version = find_version(dataset_at(place))
    folder = version.manifest.folder
    flip_a_byte(store, f"{folder}/data/train-00000.parquet")
    store.delete([f"{folder}/rejects.parquet"])
    store.write_bytes(f"{folder}/README.md", b"short")
    store.write_bytes(f"{folder}/data/other.parquet", b"x")
    findings = {one.path: (one.found, one.wanted) for one in verify_version(version)}
    sizes = {file.path: file for file in version.manifest.files}
    assert set(findings) == {"data/train-00000.parquet", "rejects.parquet", "README.md", "data/other.parquet"}
    assert findings["data/train-00000.parquet"][1] == f"sha256 {sizes['data/train-00000.parquet'].sha256[:12]}…"
    assert findings["data/train-00000.parquet"][0].startswith("sha256 ")
    assert findings["rejects.parquet"][0] == "nothing"
    assert findings["README.md"] == ("5 bytes", f"{sizes['README.md'].size_bytes:,} bytes")
    assert findings["data/other.parquet"] == ("an object that no manifest names", "none")


# tags


def test_a_tag_names_one_version_until_it_is_moved(place):
    publish_mails(place)
    publish_mails(place, confidence=0.75)
    version, is_new = tag_version(dataset_at(place, "1"), "production")
    assert (version.manifest.number, is_new, version.tags) == (1, True, ["production"])
    assert tag_version(dataset_at(place, "1"), "production")[1] is False
    with pytest.raises(StoreError, match=r"found it at version 1, wanted a name still free; move it with --move"):
        tag_version(dataset_at(place, "2"), "production")
    assert find_version(dataset_at(place, "production")).manifest.number == 1
    assert tag_version(dataset_at(place), "production", may_move=True)[1] is True
    assert find_version(dataset_at(place, "production")).manifest.number == 2


@pytest.mark.parametrize(
    "name", ["latest", "3", "0123456789abcdef", "abcdefabcdefabcd", "a/b", "../x", "", "-x", "x y"]
)
def test_a_tag_cannot_be_taken_for_something_else(disk, name):
    store = publish_mails(disk)
    with pytest.raises(ConfigError, match="a name that cannot be one"):
        tag_version(dataset_at(disk), name)
    assert store.list_paths("mails/tags") == []


def test_a_version_with_a_file_missing_takes_no_tag(place):
    store = publish_mails(place)
    store.delete([f"{read_manifest(store, 'mails').folder}/rejects.parquet"])
    with pytest.raises(StoreError, match=r"1 of its objects not as published \(rejects.parquet: nothing"):
        tag_version(dataset_at(place), "production")
    assert store.list_paths("mails/tags") == []


def test_a_tag_that_is_taken_away_leaves_its_version(place):
    store = publish_mails(place)
    tag_version(dataset_at(place), "production")
    assert untag_version(dataset_at(place), "production").manifest.number == 1
    assert store.list_paths("mails/tags") == []
    assert list_versions(store, "mails") == [1]
    with pytest.raises(StoreError, match=r"no version 'production', wanted latest, one of 1, or an id"):
        untag_version(dataset_at(place), "production")


def test_an_unknown_tag_is_told_with_those_there_are(disk):
    publish_mails(disk)
    tag_version(dataset_at(disk), "production")
    with pytest.raises(StoreError, match=r"no version 'staging', wanted latest, one of 1, production, or an id"):
        find_version(dataset_at(disk, "staging"))


@pytest.mark.parametrize(
    "written", [{"contract": "tag/2"}, {"contract": "tag/1", "name": "p", "number": 1, "version": "f" * 16}, []]
)
def test_a_tag_that_others_wrote_is_refused_by_its_contract(disk, written):
    store = publish_mails(disk)
    store.write_bytes("mails/tags/p.json", json.dumps(written).encode())
    with pytest.raises(ContractError, match=r"table tag/\d"):
        find_version(dataset_at(disk, "p"))


# rolling back


def test_a_rollback_is_the_next_version_with_the_older_content(place):
    store = publish_mails(place)
    publish_mails(place, confidence=0.75)
    before = {path: store.read_bytes(path) for path in store.list_paths("mails/versions")}
    version, is_new = rollback_version(dataset_at(place, "1"))
    first, second, third = (read_manifest(store, "mails", number) for number in (1, 2, 3))
    assert is_new
    assert (third, third.restores, third.version, third.parent) == (
        version.manifest, 1, first.version, second.version,
    )  # fmt: skip
    assert third.files == first.files
    assert load(dataset_at(place).uri, **access(place)).collect()["confidence"].to_list() == [0.5] * 5
    assert {path: store.read_bytes(path) for path in store.list_paths("mails/versions")} == before
    assert rollback_version(dataset_at(place, "1"))[1] is False
    assert list_versions(store, "mails") == [1, 2, 3]
    forward, _ = rollback_version(dataset_at(place, "2"))
    assert (forward.manifest.number, forward.manifest.restores) == (4, 2)
    assert rollback_version(dataset_at(place, "3"))[0].manifest.restores == 1


def test_nothing_is_rolled_back_to_a_version_with_a_file_gone(disk):
    store = publish_mails(disk)
    publish_mails(disk, confidence=0.75)
    store.delete([f"{read_manifest(store, 'mails', 1).folder}/rejects.parquet"])
    with pytest.raises(StoreError, match=r"1 of its files gone, the first is rejects\.parquet"):
        rollback_version(dataset_at(disk, "1"))
    assert list_versions(store, "mails") == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", pytest.param("s3", marks=pytest.mark.s3)])
def test_readers_see_one_whole_version_while_others_publish_and_roll_back(kind, request, tmp_path):
    place = request.getfixturevalue("bucket").at("sets") if kind == "s3" else Location(uri=str(tmp_path / "sets"))
    publish_mails(place)
    is_over = threading.Event()

    def read():
        seen = []
        while not is_over.is_set():
            version = find_version(dataset_at(place))
            confidences = set(scan_version(version, verify=True).collect()["confidence"])
            assert len(confidences) == 1
            seen.append((version.manifest.number, *confidences))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for i in range(1, 5):
                publish_mails(place, confidence=i / 8)
                rollback_version(dataset_at(place, "1"))
        finally:
            is_over.set()
        seen = [reader.result() for reader in readers]
    store = open_store(place)
    # 1 is of 0.5 as is the fourth published; the rollbacks stand at every second number after it.
    wanted = {
        n: scan_version(find_version(dataset_at(place, str(n)))).collect()["confidence"][0]
        for n in list_versions(store, "mails")
    }
    for one in seen:
        assert one == sorted(one, key=lambda pair: pair[0])
        assert all(wanted[number] == confidence for number, confidence in one)
