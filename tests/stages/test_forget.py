"""Forgetting rows: nothing in the store is about them any more, nothing else is lost, and old versions are told of."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from candist_core.config import Location
from candist_core.edges.reply_log import _LINE
from candist_core.edges.store import Store, open_store
from candist_core.errors import ConfigError, ContractError, StoreError
from candist_core.forgotten import read_forgotten
from candist_core.ports import Reply
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.drawing import tables_of
from candist_core.stages.forget import forget_rows, read_ids, read_texts
from candist_core.stages.gc import collect_garbage
from candist_core.stages.ingest import find_ingested, ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.remove import remove_version
from candist_core.stages.teachers import open_reply_log
from candist_core.stages.versions import find_version, load, tag_version
from tests.flows.corpora import demo_rows, write_jsonl
from tests.stages.test_incremental import damage_rows, grown, label
from tests.stages.test_sample import ask_rounds, sampled

pytestmark = pytest.mark.slow

N = 120
GONE = [row["id"] for row in demo_rows(N)[3:5]]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run that has published one version."""
    folder = tmp_path_factory.mktemp("labelled")
    label(grown(folder, N))
    return folder


@pytest.fixture
def config(labelled, tmp_path):
    """The same run in a folder of the test's own."""
    shutil.copytree(labelled, tmp_path, dirs_exist_ok=True)
    return grown(tmp_path, N)


def tables(folder: Path) -> dict[str, pl.DataFrame]:
    return {str(path.relative_to(folder)): pl.read_parquet(path) for path in sorted(folder.rglob("*.parquet"))}


def ids_in(folder: Path) -> set[str]:
    """Every doc_id in any table, also those that only rejects and replies have."""
    return {doc_id for frame in tables(folder).values() if "doc_id" in frame.columns for doc_id in frame["doc_id"]}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def holds(folder: Path, words: str) -> bool:
    """Whether any table or other file below a folder has these words in it."""
    cells = (
        frame[name] for frame in tables(folder).values() for name, kind in frame.schema.items() if kind == pl.String
    )
    return any(words.encode() in data for data in files(folder).values()) or any(
        column.str.contains(words, literal=True).any() for column in cells
    )


def asked(config) -> tuple[int, int]:
    """Requests made and replies reused by the annotation of the corpus as it is read now."""
    plan = plan_annotation(config)
    usage = [annotate_shard(plan, shard).usage for shard in ingest_corpus(config).texts]
    return sum(one.n_requests for one in usage), sum(one.n_reused for one in usage)


def test_nothing_in_the_store_is_about_forgotten_rows_and_no_other_reply_is_lost(config, tmp_path):
    store = tmp_path / "work"
    assert set(GONE) <= ids_in(store)
    found = forget_rows(config, GONE, delete=True)
    assert ids_in(store).isdisjoint(GONE)
    texts = {row["text"] for row in demo_rows(N) if row["id"] in GONE}
    assert not any(text.encode() in data for text in texts for data in files(store).values())
    held = {one.what: one.n_rows for one in found.held}
    assert held["replies"] == held["texts"] == held["annotations"] == held["labels"] == 2
    assert (found.n_asked, found.n_unknown, found.n_shared) == (2, 0, 0)
    assert [(one.number, one.n_rows, one.is_latest) for one in found.holders] == [(1, 2, True)]
    assert asked(config) == (0, N - 2)
    assert ids_in(store).isdisjoint(GONE)
    assert find_ingested(config).n_rows == N - 2


@pytest.mark.parametrize("damaged", ["rows", "manifest"])
def test_a_damaged_version_keeps_nothing_in_the_store(config, tmp_path, damaged):
    if damaged == "rows":
        damage_rows(next((tmp_path / "published/slice/versions").iterdir()))
        found = forget_rows(config, GONE, delete=True)
        assert [(one.number, one.n_rows, one.is_latest) for one in found.holders] == [(1, None, True)]
        assert (found.n_asked, found.n_unknown) == (2, 0)
    else:
        (tmp_path / "published/slice/manifests/v00000001.json").write_bytes(b"{")
        with pytest.raises(ContractError, match=r"no manifest in slice/manifests/v00000001\.json"):
            forget_rows(config, GONE, delete=True)
    assert ids_in(tmp_path / "work").isdisjoint(GONE)


def test_files_of_others_in_folders_of_the_store_stay(config, tmp_path):
    work = tmp_path / "work"
    for path in ("texts/mine.parquet", "labels/mine.parquet", "replies/mine/rows.parquet"):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"doc_id": GONE, "text": ["mine", "mine"]}).write_parquet(work / path)
    pl.DataFrame({"id": GONE}).write_parquet(work / "examples/mine.parquet")
    mine = {"sample/mine.npy", "spool/students/mine/weights", "spool/mine/rows.jsonl"}
    for path in mine:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(f'{{"doc_id": "{GONE[0]}"}}\n')
    mine |= {str(path.relative_to(work)) for path in work.rglob("*.parquet") if "mine" in str(path.relative_to(work))}
    before = files(work)
    found = forget_rows(config, GONE, delete=True)
    assert {one.what: one.n_rows for one in found.held}["texts"] == 2
    after = files(work)
    assert len(mine) == 7
    assert {path: after.get(path) for path in mine} == {path: before[path] for path in mine}


def test_without_delete_nothing_is_changed_and_the_same_is_told(config, tmp_path):
    before = files(tmp_path)
    looked = forget_rows(config, GONE)
    assert files(tmp_path) == before
    assert forget_rows(config, GONE, delete=True) == looked


def test_the_students_that_learned_from_them_go_unless_they_are_to_stay(config, tmp_path):
    assert list((tmp_path / "work/students").rglob("*.safetensors"))
    forget_rows(config, GONE, delete=True)
    assert not list((tmp_path / "work/students").rglob("*.safetensors"))
    _, why = label(config)
    assert why == "the student of version 1 is not in the store"


@pytest.mark.parametrize("keep_students", [False, True])
def test_a_first_training_that_was_killed_goes_as_well_unless_students_are_to_stay(tmp_path, keep_students):
    config = grown(tmp_path, 20)
    ingest_corpus(config)
    weights = tmp_path / f"work/spool/students/{'0' * 32}/state.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    forget_rows(config, ["nobody"], delete=True)
    assert weights.exists()
    forget_rows(config, [demo_rows(1)[0]["id"]], delete=True, keep_students=keep_students)
    assert weights.exists() == keep_students


def test_a_student_that_stays_knows_nothing_of_the_rows_and_the_others_keep_their_labels(config, tmp_path):
    forget_rows(config, GONE, delete=True, keep_students=True)
    assert ids_in(tmp_path / "work").isdisjoint(GONE)
    published, origin = label(config)
    assert (origin.is_reused, origin.reason) == (True, "no text is new")
    changes = published.manifest.changes
    assert (changes.n_removed, changes.n_kept, changes.n_relabelled, changes.n_added) == (2, N - 2, 0, 0)
    again = forget_rows(config, delete=True, keep_students=True)
    assert again.held == ()
    assert [(one.number, one.is_latest) for one in again.holders] == [(1, False)]


class CutOffError(Exception):
    """A death in the middle."""


@pytest.mark.parametrize("keep_students", [False, True])
def test_a_sweep_that_dies_at_any_removal_is_finished_by_one_that_is_told_of_no_row(
    labelled, tmp_path, monkeypatch, keep_students
):
    delete, n_left = Store.delete, [0]

    def dying(self, paths):
        for path in paths:
            if n_left[0] == 0:
                raise CutOffError
            n_left[0] -= 1
            delete(self, [path])

    died = True
    step = 0
    while died:
        folder = tmp_path / f"{step}"
        shutil.copytree(labelled, folder)
        config = grown(folder, N)
        n_left[0] = step
        with monkeypatch.context() as patch:
            patch.setattr(Store, "delete", dying)
            try:
                forget_rows(config, GONE, delete=True, keep_students=keep_students)
                died = False
            except CutOffError:
                assert find_ingested(config) is None, "rows on the list are read no more"
        forget_rows(config, delete=True, keep_students=keep_students)
        assert ids_in(folder / "work").isdisjoint(GONE)
        if not keep_students:
            assert not list((folder / "work/students").rglob("*.safetensors"))
        assert forget_rows(config).held == ()
        step += 4
    assert step > 8


def test_the_list_names_nobody(config, tmp_path):
    forget_rows(config, GONE, delete=True)
    kept = b"".join(files(tmp_path / "work/forgotten").values())
    assert kept
    assert not any(doc_id.encode() in kept for doc_id in GONE)
    assert len(read_forgotten(open_store(config.store), config.name).ids) == 2


def test_a_row_that_shares_its_text_goes_alone_and_a_text_goes_from_every_row(tmp_path):
    rows = demo_rows(20)
    twin = rows[3] | {"id": "twin"}
    config = grown(tmp_path, 20, rows=[*rows, twin])
    plan = plan_annotation(config)
    for shard in ingest_corpus(config).texts:
        annotate_shard(plan, shard)
    alone = forget_rows(config, ["twin", "nobody"])
    assert (alone.n_asked, alone.n_unknown, alone.n_shared) == (2, 1, 1)
    assert {one.what for one in alone.held} == {"examples"}
    write_jsonl(tmp_path / "gone.jsonl", [{"text": rows[3]["text"]}])
    forget_rows(config, texts=read_texts(config, tmp_path / "gone.jsonl"), delete=True)
    corpus = ingest_corpus(config)
    assert corpus.n_rows == 19
    assert ids_in(tmp_path / "work").isdisjoint({"twin", rows[3]["id"]})


def test_ids_that_candist_made_of_texts_mean_the_text_with_all_its_copies(tmp_path):
    rows = demo_rows(20)
    config = grown(tmp_path, 20, rows=[*rows, rows[3]], source={"id": None})
    store = open_store(config.store)
    corpus = ingest_corpus(config)
    first = store.read_table(corpus.texts[0])["doc_id"][3]
    forget_rows(config, [f"{first}-2"], delete=True)
    assert ingest_corpus(config).n_rows == 19
    assert not any(doc_id.startswith(first) for doc_id in ids_in(tmp_path / "work"))


def test_an_old_version_goes_for_good_and_leaves_no_garbage_but_never_the_latest_or_one_with_a_tag(config, tmp_path):
    place = Location(uri=f"{config.publish.uri}/slice")
    forget_rows(config, GONE, delete=True, keep_students=True)
    with pytest.raises(StoreError, match="publish the next version first"):
        remove_version(place, delete=True)
    label(config)
    first = Location(uri=f"{place.uri}@1")
    tag_version(first, "prod")
    with pytest.raises(StoreError, match="the tag prod"):
        remove_version(first, delete=True)
    tag_version(Location(uri=f"{place.uri}@2"), "prod", may_move=True)
    assert remove_version(first).numbers == (1,)
    assert load(first.uri).collect().height == N
    done = remove_version(first, delete=True)
    assert (done.numbers, done.kept) == ((1,), "")
    with pytest.raises(StoreError, match="no version '1'"):
        find_version(first)
    assert collect_garbage(place, older_than_s=0) == []
    assert load(place.uri).collect().height == N - 2
    assert ids_in(tmp_path / "published").isdisjoint(GONE)
    assert forget_rows(config).holders == ()


def test_replies_that_are_not_in_the_store_yet_are_forgotten_too_but_not_those_of_a_run_at_work(config, tmp_path):
    plan = plan_annotation(config)
    role, work = plan.roles[0], open_store(config.store)
    spool = tmp_path / "work/spool" / role.prompt.head.fingerprint
    spool.mkdir(parents=True, exist_ok=True)
    lines = [_LINE.dump_json(Reply(f"key-{i}", doc_id, "said", "stop")) for i, doc_id in enumerate([*GONE, "other"])]
    (spool / "dead.jsonl").write_bytes(b"\n".join([*lines, b'{"request_key": "cut']))
    assert {one.what: one.n_rows for one in forget_rows(config, GONE).held}["replies"] == 4
    forget_rows(config, GONE, delete=True)
    assert not list(spool.glob("*.jsonl"))
    log = open_reply_log(plan, role, work, "part")
    assert set(log.lookup([f"key-{i}" for i in range(3)])) == {"key-2"}
    log.append(Reply("key-9", GONE[0], "said", "stop"))
    with pytest.raises(StoreError, match="a run at work holds"):
        forget_rows(config, delete=True)
    log.close()
    assert [(one.what, one.n_rows) for one in forget_rows(config, delete=True).held] == [("replies", 1)]
    assert forget_rows(config).held == ()


@pytest.mark.parametrize("is_drawn", [True, False])
def test_nothing_of_a_sample_is_about_a_forgotten_row_whether_the_teacher_read_it_or_not(tmp_path, tiny_bert, is_drawn):
    config = sampled(tmp_path, tiny_bert, rounds=2)
    rounds, _ = ask_rounds(config, ingest_corpus(config))
    store, work = open_store(config.store), tmp_path / "work"
    drawn = {doc_id for table in tables_of(rounds) for doc_id in store.read_table(table)["doc_id"]}
    row = next(row for row in demo_rows(160) if (row["id"] in drawn) == is_drawn)
    assert holds(work, row["id"])
    assert holds(work, row["text"])
    assert list(work.glob("sample/*.npy"))
    found = forget_rows(config, [row["id"]], delete=True)
    assert {one.what: one.n_rows for one in found.held}["embeddings"] == 1
    assert ("sample" in {one.what for one in found.held}) == is_drawn
    assert not holds(work, row["id"])
    assert not holds(work, row["text"])
    assert not list(work.glob("sample/*.npy"))
    assert forget_rows(config).held == ()


def test_ids_of_a_file_are_its_lines_and_a_byte_order_mark_is_none_of_them(tmp_path):
    path = tmp_path / "ids"
    for written, ids in [
        (b"\xef\xbb\xbfr1\r\nr2", ["r1", "r2"]),
        ("a\u2028b\nc\u0085d\n".encode(), ["a\u2028b", "c\u0085d"]),
    ]:
        path.write_bytes(written)
        assert read_ids(path) == ids


def test_nothing_to_forget_and_a_file_without_ids_are_told(config, tmp_path):
    with pytest.raises(ConfigError, match="name them with --ids"):
        forget_rows(config)
    (tmp_path / "ids").write_text("\n")
    with pytest.raises(ConfigError, match="no id"):
        read_ids(tmp_path / "ids")
    with pytest.raises(ConfigError, match="no such file"):
        read_ids(tmp_path / "none")
    (tmp_path / "ids").write_text(" a \n\nb\n")
    assert read_ids(tmp_path / "ids") == ["a", "b"]
