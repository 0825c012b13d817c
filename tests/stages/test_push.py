"""Pushing to the Hugging Face Hub, by its own client, against a double of its HTTP interface on loopback."""

import json

import pytest

from candist_core.errors import StoreError, TransientError
from candist_core.stages.push import push_version
from candist_core.stages.versions import find_version
from tests.hub import ID
from tests.hub import hub as hub
from tests.published import dataset_at, publish_mails


@pytest.fixture
def first(place):
    publish_mails(place)
    return find_version(dataset_at(place))


def test_a_version_is_one_tagged_commit_of_its_very_files_in_a_private_repository(hub, first):
    url = push_version(first, ID)
    assert url == f"{hub.url}/datasets/{ID}/commit/{hub.head}"
    wanted = {file.path: first.store.read_bytes(f"{first.folder}/{file.path}") for file in first.manifest.files}
    manifest = hub.files.pop("manifest.json")
    assert hub.files == wanted
    assert json.loads(manifest)["version"] == first.manifest.version
    assert hub.messages == [f"mails version 1 ({first.manifest.version})"]
    assert hub.tags == {"v1": hub.head}
    assert hub.private is True
    assert hub.tokens == {"Bearer hf_secret"}


def test_pushed_again_nothing_is_committed_and_a_later_version_takes_the_place_of_all_files(hub, first, place):
    push_version(first, ID, is_private=False)
    assert hub.private is False
    push_version(first, ID)
    assert len(hub.messages) == 1
    hub.files["data/of-another-version.parquet"] = b"old"
    publish_mails(place, confidence=0.75)
    second = find_version(dataset_at(place))
    push_version(second, ID)
    assert set(hub.files) == {"manifest.json", *(file.path for file in second.manifest.files)}
    assert sorted(hub.tags) == ["v1", "v2"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write_is_one_sentence(hub, first, status):
    hub.status = status
    with pytest.raises(StoreError, match=rf"may not write \(HTTP {status}\), wanted one that may; set HF_TOKEN"):
        push_version(first, ID)


def test_a_hub_in_trouble_is_worth_another_try(hub, first):
    hub.status = 503
    with pytest.raises(TransientError, match="HTTP 503 from the Hub; run again"):
        push_version(first, ID)


def test_a_name_that_is_none_is_one_sentence(hub, first):
    with pytest.raises(StoreError, match="a name that the Hub does not take, wanted OWNER/NAME"):
        push_version(first, "acme/mails/no")
