"""The commands about versions: what they print, the one sentence where they refuse, and their exit codes."""

import json

import pytest

from candist_core.config import Location
from candist_core.versions import list_versions, read_manifest
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence
from tests.hub import ID
from tests.hub import hub as hub
from tests.published import publish_mails


@pytest.fixture
def store(tmp_path):
    """Two versions of the data set mails in the folder published."""
    place = Location(uri=str(tmp_path / "published"))
    publish_mails(place)
    return publish_mails(place, confidence=0.75)


def test_ls_lists_data_sets_and_then_versions(candist, store):
    code, out, _ = candist("ls", "published")
    assert code == 0
    assert "mails" in out
    code, out, _ = candist("ls", "published/mails")
    assert code == 0
    for number in (1, 2):
        assert read_manifest(store, "mails", number).version in out


def test_ls_shows_a_version_of_a_later_contract_beside_the_others(candist, store):
    store.write_bytes("mails/manifests/v00000003.json", json.dumps({"contract": "manifest/9"}).encode())
    code, out, _ = candist("ls", "published/mails")
    assert code == 0
    assert "manifest/9" in out
    assert read_manifest(store, "mails", 1).version in out
    code, _, err = candist("pull", "published/mails", "copy")
    assert code == 2
    assert "manifest/9" in one_sentence(err)


def test_show_tells_splits_tags_and_how_to_read_it(candist, store):
    candist("tag", "published/mails@1", "first")
    code, out, _ = candist("show", "published/mails@first")
    assert code == 0
    assert "train 3, test 2" in out
    assert "first" in out
    assert 'candist_core.load("published/mails@1")' in out
    assert f"published/mails/versions/{read_manifest(store, 'mails', 1).version}" in out


def test_pull_copies_and_goes_on(candist, store, tmp_path):
    code, out, _ = candist("pull", "published/mails@1", "copy")
    assert (code, out.strip()) == (0, "pulled version 1 into copy: 5 files, all as published")
    (tmp_path / "copy/README.md").unlink()
    assert "1 files, 4 were there" in candist("pull", "published/mails@1", "copy")[1]


def test_rollback_moves_latest_and_says_so(candist, store):
    code, out, _ = candist("rollback", "published/mails@1")
    assert (code, out.strip()) == (0, "mails@latest is version 3, with the content of 1")
    assert "which holds that content already" in candist("rollback", "published/mails@1")[1]
    assert list_versions(store, "mails") == [1, 2, 3]
    assert "content of 1 again" in candist("show", "published/mails")[1]


def test_a_tag_moves_only_when_told_to(candist, store):
    assert candist("tag", "published/mails@1", "production")[1].strip() == "mails@production is version 1"
    code, _, err = candist("tag", "published/mails@2", "production")
    assert code == 2
    assert "--move" in one_sentence(err)
    assert "version 2" in candist("tag", "published/mails@2", "production", "--move")[1]


def test_a_tag_is_taken_away_on_demand(candist, store):
    candist("tag", "published/mails@1", "production")
    assert candist("tag", "published/mails", "production", "--delete")[1].strip() == (
        "mails@production is gone; version 1 stays"
    )
    code, _, err = candist("tag", "published/mails", "production", "--delete")
    assert code == 2
    assert "no version 'production'" in one_sentence(err)
    assert candist("tag", "published/mails", "production", "--delete", "--move")[0] == 2


def test_a_copy_is_shown_and_verified_by_its_folder(candist, store):
    candist("pull", "published/mails@1", "copy")
    assert "5 files" in candist("verify", "copy")[1]
    code, out, _ = candist("show", "copy")
    assert code == 0
    assert 'candist_core.load("' in out
    assert "copy" in out
    assert candist("labels", "copy")[0] == 0


def test_gc_names_a_data_set_that_it_left_alone_and_does_the_others(candist, store):
    store.write_bytes("mails/manifests/v00000003.json", b"{}")
    store.write_bytes(f"posts/versions/{'0' * 16}/data/x.parquet", b"left")
    code, out, err = candist("gc", "published", "--older-than", "0", "--delete")
    assert code == 2
    assert "removed" in out
    said = one_sentence(err)
    assert "data set mails: found a manifest or lease that this candist cannot read" in said
    assert "v00000003.json" in out
    assert "other data sets were not held up" in said
    assert store.list_paths("posts") == []


def test_verify_takes_a_version_and_names_the_file_that_changed(candist, store):
    code, out, _ = candist("verify", "published/mails@1")
    assert code == 0
    assert "5 files" in out
    path = f"{read_manifest(store, 'mails', 1).folder}/data/train-00000.parquet"
    store.write_bytes(path, store.read_bytes(path)[:-1] + b"x")
    code, out, err = candist("verify", "published/mails@1")
    assert code == 2
    assert "data/train-00000.parquet: found sha256" in out
    # Told once: in the list, not in the sentence.
    assert "data/train-00000.parquet" not in one_sentence(err)
    assert "1 of its objects not as published" in err
    assert candist("labels", "published/mails@1")[0] == 2


def test_verify_takes_what_ends_in_yaml_for_a_run(candist, store):
    code, _, err = candist("verify", "nowhere.yaml")
    assert code == 2
    assert "configuration nowhere.yaml" in one_sentence(err)
    code, _, err = candist("verify", "published/mails", "--set", "a=b")
    assert code == 2
    assert "--set" in one_sentence(err)


def test_gc_lists_first_and_removes_when_told_to(candist, store):
    assert "nothing is left over" in candist("gc", "published")[1]
    store.write_bytes(f"mails/versions/{'0' * 16}/data/x.parquet", b"left")
    assert "stays" in candist("gc", "published", "--delete")[1]
    code, out, _ = candist("gc", "published", "--older-than", "0")
    assert code == 0
    assert "may go" in out
    assert "--delete" in out
    assert "removed" in candist("gc", "published/mails", "--older-than", "0", "--delete")[1]
    assert "nothing is left over" in candist("gc", "published", "--older-than", "0")[1]


@pytest.mark.parametrize("command", ["ls", "show", "pull", "tag", "rollback", "verify", "gc"])
def test_every_command_explains_itself_with_an_example(candist, command):
    code, out, _ = candist(command, "--help")
    assert code == 0
    assert f"candist {command}" in out


def test_an_empty_place_is_refused(candist):
    code, _, err = candist("ls", "")
    assert code == 2
    one_sentence(err)


def test_push_says_where_the_version_is_and_a_refusal_is_one_sentence(candist, store, hub):
    code, out, _ = candist("push", "published/mails@1", ID, "--public")
    assert (code, hub.private, list(hub.tags)) == (0, False, ["v1"])
    assert f"pushed version 1 to {hub.url}/datasets/{ID}/commit/" in out
    hub.status = 403
    code, _, err = candist("push", "published/mails@2", ID)
    assert code == 2
    assert "set HF_TOKEN" in one_sentence(err)
    hub.status = 500
    assert candist("push", "published/mails@2", ID)[0] == 5
