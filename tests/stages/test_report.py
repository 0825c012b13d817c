"""The report of a run and of a version, made by the stages themselves."""

import sys
from pathlib import Path

import pytest

from candist_core import annotate_shard, distill_student, ingest_corpus, plan_annotation, predict_shard
from candist_core.config import Location
from candist_core.errors import ConfigError, StoreError
from candist_core.stages.preflight import preflight
from candist_core.stages.publish import publish_version
from candist_core.stages.report import report_of_run, report_of_version, reports_of_run, write_report
from tests.edges.test_lineage import receiver as receiver
from tests.flows.corpora import demo_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, tiny_bert):
    """A run that has labelled 60 texts and published nothing."""
    config = demo_config(tmp_path_factory.mktemp("run"), n=60, student={"model": str(tiny_bert)})
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    student = distill_student(config, corpus.texts, annotated)
    for pair in zip(corpus.texts, annotated, strict=True):
        predict_shard(config, *pair, student)
    return config


def test_a_run_is_reported_before_it_is_published_and_its_version_after(labelled):
    before = report_of_run(labelled)
    assert "Do not use it yet." in before.html.decode()
    assert "Not published" in before.html.decode()
    published = publish_version(labelled, reports_of_run(labelled), "run-1")
    after = report_of_run(labelled)
    assert (after.manifest.version, after.manifest.number) == (published.version, 1)
    assert "Version 1, " in after.html.decode()
    assert report_of_version(Location(uri=f"{published.uri}@1")).html == after.html


def test_the_report_in_the_version_is_that_of_the_version_but_for_what_the_commit_gives(labelled):
    published = publish_version(labelled, reports_of_run(labelled), "run-1")
    inside = Path(labelled.publish.uri, published.manifest.folder, "report.html").read_text(encoding="utf-8")
    made = report_of_version(Location(uri=published.uri)).html.decode()
    parts = [html[html.index("<section") : html.index('<section aria-labelledby="lineage"')] for html in (made, inside)]
    assert parts[0] == parts[1]
    # Number and parent are given at the commit, after the page is stored.
    assert ("Version 1, " in made, "Parent version" in made) == (True, True)
    assert ("Version 1, " in inside, "Parent version" in inside) == (False, False)


def test_the_page_is_written_under_the_versions_name_and_a_missing_folder_is_told(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = report_of_run(labelled)
    assert write_report(made).name == f"slice-{made.manifest.version}.html"
    with pytest.raises(StoreError, match="no such folder"):
        write_report(made, tmp_path / "none" / "r.html")


def test_a_run_that_has_not_labelled_everything_names_the_stage(labelled):
    for changes, found in (
        ({"task": labelled.task.model_copy(update={"instruction": "Another one."})}, "0 of 1 shards annotated"),
        ({"seed": 7}, "no student"),
    ):
        with pytest.raises(StoreError, match=found):
            report_of_run(labelled.model_copy(update=changes))


def test_a_receiver_of_lineage_is_told_of_a_new_version_once(labelled, tmp_path, receiver):
    place = labelled.publish.model_copy(update={"uri": str(tmp_path / "sets"), "lineage_url": receiver.url})
    config = labelled.model_copy(update={"publish": place})
    for is_new in (True, False):
        assert publish_version(config, reports_of_run(labelled), "run-1").is_new is is_new
    ((_, _, event),) = receiver.got
    assert event["outputs"][0]["name"] == f"{tmp_path}/sets/{config.dataset}"
    assert [one["namespace"] for one in event["inputs"]] == ["file"]


def test_without_the_extra_for_lineage_a_run_is_refused_but_a_version_that_stands_is_not(
    labelled, tmp_path, monkeypatch, caplog
):
    place = labelled.publish.model_copy(update={"uri": str(tmp_path / "sets"), "lineage_url": "http://127.0.0.1:9"})
    config = labelled.model_copy(update={"publish": place})
    preflight(config)
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    assert publish_version(config, reports_of_run(labelled)).is_new
    assert f"{config.dataset} version 1: candist[lineage] is missing" in caplog.text
    with pytest.raises(ConfigError, match=r"publish\.lineage_url: found no OpenLineage client, .* candist\[lineage\]"):
        preflight(config)
    preflight(labelled)
