"""Runs over a corpus that grows: what is asked, what stays, when the student has to go."""

import json
import shutil

import polars as pl
import pytest

from candist_core.config import Location
from candist_core.edges.store import open_store
from candist_core.errors import DriftError, StoreError
from candist_core.incremental_config import OnDrift
from candist_core.reports import RunReports
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.distill import distill_student, find_student, settings_key
from candist_core.stages.evaluate import assess_quality, evaluate_labels
from candist_core.stages.incremental import (
    Base,
    adopt_student,
    find_adopted,
    find_base,
    judge_student,
    stop_if_drifted,
)
from candist_core.stages.ingest import ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import predict_shard
from candist_core.stages.publish import publish_version
from candist_core.stages.remove import remove_version
from candist_core.stages.report import reports_of_run
from candist_core.stages.status import status_of_run
from candist_core.stages.versions import find_version, load
from candist_core.versions import list_versions
from tests.flows.corpora import demo_config, demo_labels, demo_replies, demo_rows, recipe_rows, write_jsonl

pytestmark = pytest.mark.slow

N = 160


def label(config):
    """A run without orchestrator: the version, and where its student came from."""
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    base: Base | str = "reuse is off"
    if config.incremental.reuse_student:
        base = find_base(config, corpus.texts, annotated)
    student = origin = None
    if not isinstance(base, str):
        adopted = adopt_student(config, base, corpus.texts, annotated)
        origin = judge_student(config, adopted)
        stop_if_drifted(config, origin)
        student = adopted.student if origin.is_reused else None
    student = student or distill_student(config, corpus.texts, annotated)
    predicted = [
        predict_shard(config, *pair, student.of_shards([pair[0]])) for pair in zip(corpus.texts, annotated, strict=True)
    ]
    reports = RunReports(
        ingested=corpus, annotated=tuple(annotated), student=student, predicted=tuple(predicted),
        metrics=evaluate_labels(config, corpus, annotated, predicted, student),
        quality=assess_quality(config, corpus.texts, annotated, student, predicted),
        checks=(), origin=origin,
    )  # fmt: skip
    return publish_version(config, reports), base if isinstance(base, str) else origin


def grown(tmp_path, n=300, rows=None, **changes):
    """The configuration over the first n rows of the sample corpus, or over such rows."""
    changes["incremental"] = {"reuse_student": True, "min_texts": 20} | changes.get("incremental", {})
    config = demo_config(tmp_path, n=n, **changes)
    said = json.dumps({"candidates": ["billing_dispute"]})
    # One recording for every night: from another every answer would be read anew.
    recipes = [{"id": row["id"], "reply": said} for row in recipe_rows(60)]
    write_jsonl(tmp_path / "replies.jsonl", [*demo_replies(1200), *recipes])
    if rows is not None:
        write_jsonl(tmp_path / "corpus.jsonl", rows)
    return config


def rows_of(config, number):
    return load(f"{config.publish.uri}/slice@{number}").sort("doc_id").collect()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run over 160 rows that has published one version."""
    folder = tmp_path_factory.mktemp("labelled")
    label(grown(folder, N))
    return folder


@pytest.fixture
def folder(labelled, tmp_path):
    """The same run in a folder of the test's own."""
    shutil.copytree(labelled, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_new_rows_are_labelled_by_the_old_student_and_no_old_row_is_touched(folder):
    config = grown(folder, N + 60)
    second, origin = label(config)
    first = find_version(Location(uri=f"{config.publish.uri}/slice@1")).manifest
    assert (origin.is_reused, origin.number, origin.n_new) == (True, 1, 60)
    assert [check.name for check in origin.checks] == [
        "drift.out_of_set_rate", "drift.low_confidence_rate", "drift.disagreement", "drift.balance", "drift.embedding",
    ]  # fmt: skip
    assert second.manifest.student.key == first.student.key
    old, new = rows_of(config, 1), rows_of(config, 2)
    assert new.join(old, on="doc_id", how="semi").equals(old)
    assert str(second.manifest.changes) == (
        f"since version 1: 60 added, 0 changed, 0 removed, {N} kept, 0 of them with another label"
    )
    assert second.manifest.parent == first.version
    # The run is found whole afterwards, though its student was never distilled on these texts.
    reports = reports_of_run(config)
    assert (reports.origin, reports.student.key) == (origin, first.student.key)
    assert [(stage.done, stage.total) for stage in status_of_run(config).stages[1:]] == [
        (3, 3), (12, 12), (1, 1), (3, 3)
    ]  # fmt: skip


def test_an_unchanged_corpus_is_a_version_that_is_there_already_and_reads_no_text_anew(folder):
    again, why = label(grown(folder, N))
    assert (again.is_new, again.number) == (False, 1)
    assert why == "these texts are the ones to learn from"


def test_rows_that_move_to_other_shards_keep_labels_and_the_beliefs_of_students_that_never_saw_them(folder):
    config = grown(folder, N)
    student = find_distilled(config)
    store, moved = open_store(config.store), grown(folder, rows=demo_rows(N)[7:])
    published, origin = label(moved)
    assert (origin.is_reused, origin.reason, origin.checks) == (True, "no text is new", ())
    changes = published.manifest.changes
    assert (changes.n_removed, changes.n_kept, changes.n_relabelled, changes.n_added) == (7, N - 7, 0, 0)
    before = pl.concat([store.read_table(table) for table in student.beliefs.values()])
    reused = reports_of_run(moved).student
    after = pl.concat([store.read_table(table) for table in reused.beliefs.values()])
    same = after.join(before, on="doc_id", suffix="_before")
    assert same.height == len(before) - 7
    assert same["belief"].equals(same["belief_before"].rename("belief"))


@pytest.mark.parametrize("effect", list(OnDrift))
def test_texts_of_another_kind_end_the_run_or_the_student_or_are_told_of(folder, effect):
    config = grown(folder, rows=[*demo_rows(N), *recipe_rows(60)], incremental={"on_drift": effect})
    if effect is OnDrift.FAIL:
        with pytest.raises(DriftError, match=r"drift\.embedding: observed .*; distil anew with"):
            label(config)
        assert list_versions(open_store(Location(uri=config.publish.uri)), "slice") == [1]
        return
    published, origin = label(config)
    failed = {check.name: check.on_fail for check in origin.checks if not check.passed}
    assert failed.keys() >= {"drift.balance", "drift.embedding"}
    assert set(failed.values()) == {"warn"}
    assert origin.is_reused is (effect is OnDrift.WARN)
    is_old = (
        published.manifest.student.key
        == find_version(Location(uri=f"{config.publish.uri}/slice@1")).manifest.student.key
    )
    assert is_old is (effect is OnDrift.WARN)
    # Whoever begins with the new version finds nothing new, and nothing to distil.
    again, _ = label(config)
    assert (again.is_new, again.number) == (False, 2)


def test_too_few_new_texts_wait_until_later_runs_have_added_enough(folder):
    settings = {"incremental": {"min_texts": 30}}
    _, few = label(grown(folder, N + 20, **settings))
    assert (few.is_reused, few.n_new, few.checks) == (True, 20, ())
    assert few.reason == "20 new texts are too few to judge (incremental.min_texts 30)"
    _, enough = label(grown(folder, N + 40, **settings))
    assert (enough.n_new, enough.number) == (20, 1)
    assert enough.reason == "fit for 40 new texts by 5 measures of drift"


def test_other_settings_of_the_student_the_task_or_the_teacher_distil_anew(folder):
    shown = [{"text": row["text"], "label": row["gold"]} for row in demo_rows(2)]
    shots = str(write_jsonl(folder / "shots.jsonl", shown))
    for changes in (
        {"student": {"folds": 3}}, {"task": {"instruction": "Sort them otherwise."}}, {"seed": 3},
        {"teacher": {"temperature": 0.5}}, {"teacher": {"max_text_tokens": 16}}, {"shots": {"uri": shots}},
    ):  # fmt: skip
        seed = changes.pop("seed", 0)
        config = grown(folder, N + 20, **changes).model_copy(update={"seed": seed})
        corpus, plan = ingest_corpus(config), plan_annotation(config)
        annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
        assert find_base(config, corpus.texts, annotated) == (
            "settings of task, teacher or student are not those of version 1"
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": {"model": "another"}}, {"teacher": {"response_format": "text"}}, {"teacher": {"max_tokens": 64}},
        {"teacher": {"truncate": "head"}}, {"shots": {"n": 1}}, {"shots": {"choice": "fixed"}},
    ],
)  # fmt: skip
def test_what_decides_a_teachers_answers_is_part_of_what_a_student_learns_by(tmp_path, changes):
    shown = [{"text": row["text"], "label": row["gold"]} for row in demo_rows(3)]
    shots = {"uri": str(write_jsonl(tmp_path / "shots.jsonl", shown))}
    key = settings_key(grown(tmp_path, 3, shots=shots))
    other = {name: {"shots": shots}.get(name, {}) | values for name, values in changes.items()}
    assert settings_key(grown(tmp_path, 3, **{"shots": shots} | other)) != key


def test_examples_count_by_their_rows_and_not_by_the_name_of_their_file(tmp_path):
    shown = [{"text": row["text"], "label": row["gold"]} for row in demo_rows(3)]
    shots = {"uri": str(write_jsonl(tmp_path / "shots.jsonl", shown))}
    key = settings_key(grown(tmp_path, 3, shots=shots))
    moved = {"uri": str(write_jsonl(tmp_path / "moved.jsonl", shown))}
    assert settings_key(grown(tmp_path, 3, shots=moved)) == key
    write_jsonl(tmp_path / "shots.jsonl", shown[:2])
    assert settings_key(grown(tmp_path, 3, shots=shots)) != key


def test_how_fast_and_by_which_way_a_teacher_is_asked_keeps_the_student(tmp_path):
    key = settings_key(grown(tmp_path, 3))
    rates = {"max_in_flight": 3, "timeout_s": 5.0, "max_requests_per_min": 7, "max_attempts": 2, "mode": "batch"}
    place = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": "OTHER_KEY"}
    assert settings_key(grown(tmp_path, 3, teacher=rates | place)) == key
    # Without a file of examples nothing is shown, however many might be.
    assert settings_key(grown(tmp_path, 3, shots={"n": 3})) == key


def test_a_text_whose_candidates_changed_gets_a_new_label_and_no_other_does(folder):
    config = grown(folder, N + 20)
    said = json.dumps({"candidates": ["roaming"]})
    first = demo_replies(1)[0]["id"]
    assert demo_rows(1)[0]["gold"] != "roaming"
    write_jsonl(folder / "replies.jsonl", [{"id": first, "reply": said}, *demo_replies(1200)[1:]])
    label(config)
    both = rows_of(config, 1).join(rows_of(config, 2), on="doc_id", suffix="_now")
    differing = both.filter(pl.col("candidates") != pl.col("candidates_now"))
    assert differing["doc_id"].to_list() == [first]
    assert differing["teacher_label_now"].to_list() == ["roaming"]
    same = both.filter(pl.col("doc_id") != first)
    assert (same["confidence"] == same["confidence_now"]).all()


def test_a_label_that_a_person_gave_to_a_text_is_its_label_also_when_the_text_comes_later(tmp_path):
    rows = demo_rows(N + 20)
    wrong = next(label["name"] for label in demo_labels() if label["name"] != rows[N + 3]["gold"])
    audited = [{"text": rows[1]["text"], "label": rows[1]["gold"]}, {"text": rows[N + 3]["text"], "label": wrong}]
    write_jsonl(tmp_path / "audit.jsonl", audited)
    audit = {"uri": str(tmp_path / "audit.jsonl")}
    label(grown(tmp_path, N, audit=audit))
    config = grown(tmp_path, N + 20, audit=audit)
    _, origin = label(config)
    assert origin.is_reused
    given = rows_of(config, 2).filter(pl.col("source") == "reviewed")
    assert dict(given.select("doc_id", "label").iter_rows()) == {
        rows[1]["id"]: rows[1]["gold"], rows[N + 3]["id"]: wrong,
    }  # fmt: skip


def test_taking_over_that_broke_off_goes_on_and_ends_in_the_same_tables(folder):
    class BrokenError(Exception):
        pass

    def break_off(progress):
        if progress.done == 2:
            raise BrokenError

    config = grown(folder, N + 60)
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    base = find_base(config, corpus.texts, annotated)
    with pytest.raises(BrokenError):
        adopt_student(config, base, corpus.texts, annotated, break_off)
    assert find_adopted(config, base, corpus.texts, annotated) is None
    whole = adopt_student(config, base, corpus.texts, annotated)
    assert find_adopted(config, base, corpus.texts, annotated) == whole
    assert adopt_student(config, base, corpus.texts, annotated) == whole


def test_a_student_whose_first_version_was_removed_is_not_asked_what_it_learned_from(folder):
    rows = demo_rows(N + 20)
    changed = [{**rows[0], "text": "Where do I find the bill of last May?"}, *rows[1:N]]
    published, origin = label(grown(folder, rows=changed))
    assert (published.number, origin.is_reused, published.manifest.changes.n_changed) == (2, True, 1)
    remove_version(Location(uri=f"{folder}/published/slice@1"), delete=True)
    config = grown(folder, rows=[*changed, *rows[N:]])
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    annotated = [annotate_shard(plan, shard) for shard in corpus.texts]
    # Version 2 holds another text under that id than the one that the student learned from.
    assert find_base(config, corpus.texts, annotated) == (
        "the version whose run distilled the student of version 2 was removed"
    )


def test_a_damaged_version_before_does_not_stop_the_next_one(folder):
    config = grown(folder, N + 20, incremental={"reuse_student": False})
    shutil.rmtree(next((folder / "published/slice/versions").iterdir()) / "data")
    published, _ = label(config)
    assert (published.number, published.manifest.changes, published.manifest.origin) == (2, None, None)


def damage_rows(version):
    """Overwrite the rows of a version's data in place: the same size, and a footer that can be read."""
    for path in version.glob("data/*.parquet"):
        data = path.read_bytes()
        n = len(data) - 12 - int.from_bytes(data[-8:-4], "little")
        path.write_bytes(data[:4] + b"\xff" * n + data[4 + n :])


def test_a_version_before_whose_rows_were_overwritten_does_not_stop_the_next_one(folder):
    config = grown(folder, N + 20, incremental={"reuse_student": False})
    damage_rows(next((folder / "published/slice/versions").iterdir()))
    published, _ = label(config)
    assert (published.number, published.manifest.changes, published.manifest.origin) == (2, None, None)


def test_a_run_that_needs_a_version_whose_rows_were_overwritten_names_the_file(folder):
    damage_rows(next((folder / "published/slice/versions").iterdir()))
    with pytest.raises(StoreError, match=r"not as published \(data/[a-z]+-00000\.parquet: sha256"):
        label(grown(folder, N + 20))


def find_distilled(config):
    corpus, plan = ingest_corpus(config), plan_annotation(config)
    return find_student(config, corpus.texts, [annotate_shard(plan, shard) for shard in corpus.texts])
