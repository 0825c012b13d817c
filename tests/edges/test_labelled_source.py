"""The file of labelled texts: any format of a corpus, and one sentence for every mistake in it."""

import gzip
import json

import polars as pl
import pytest

from candist_core.config import ACCESS, AuditConfig, SourceConfig
from candist_core.edges.labelled_source import Verdict, read_audit, read_labelled
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError
from candist_core.shots import Shot
from candist_core.teacher_config import ShotsConfig

LABELS = ("spam", "ham")
PLACE = SourceConfig(uri="the/corpus")
ROWS = [{"text": "win a prize", "label": "spam", "who": 1}, {"text": "at noon?", "label": "ham", "who": 2}]
SHOTS = (Shot("win a prize", "spam"), Shot("at noon?", "ham"))


def read(path, place=PLACE, **settings):
    return read_labelled(ShotsConfig(uri=str(path), **settings), place, LABELS)


def csv(*lines):
    return "\n".join(lines).encode()


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet", "s.csv.gz"])
def test_every_format_of_a_corpus_will_do(tmp_path, name):
    data = {
        "csv": pl.DataFrame(ROWS).write_csv().encode(),
        "jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    }.get(name.removesuffix(".gz").split(".")[1])
    if data is None:
        pl.DataFrame(ROWS).write_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read(tmp_path / name) == SHOTS


def test_without_a_file_there_are_no_shots():
    assert read_labelled(ShotsConfig(), PLACE, LABELS) == ()


def test_columns_may_have_other_names_and_labels_may_be_numbers(tmp_path):
    (tmp_path / "s.jsonl").write_bytes(b'{"body": "a", "class": 1}\n{"body": "b", "class": null}')
    config = ShotsConfig(uri=str(tmp_path / "s.jsonl"), text="body", label="class")
    assert read_labelled(config, PLACE, ("1", "2")) == (Shot("a", "1"),)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (csv("text,labels", "a,spam"), "found no column 'label', wanted the column that shots.label names; "
         "set shots.label: labels"),
        (csv("body,label", "a,spam"), "found no column 'text', wanted the column that shots.text names; "
         "set shots.text to one of: body, label"),
        (csv("text,label", "a,spamm"), "found the label 'spamm', wanted one of task.labels in each row; "
         "did you mean 'spam'?"),
        (csv("text,label", "a,", "b,"), "found no row with a text and a label, wanted at least one; "
         "correct the file or shots.label"),
        (b"PAR1", "found a Parquet file, wanted UTF-8 text; correct shots.uri or the file"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_in_one_sentence(tmp_path, data, sentence):
    path = tmp_path / "s.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"shots.uri {path}: {sentence}"


def test_a_row_that_cannot_be_read_is_told_with_its_line(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(csv("text,label", "a,spam", "b,ham,more"))
    with pytest.raises(ConfigError, match=r"line 3: found the row has 3 fields, the header has 2, wanted a row that"):
        read(path)


def test_a_file_that_is_not_there_is_the_configurations_fault(tmp_path):
    with pytest.raises(ConfigError, match=r"shots\.uri .*none\.csv: found no file, wanted at least one; correct shots"):
        read(tmp_path / "none.csv")


def test_a_file_too_long_to_be_labelled_by_hand_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("candist_core.edges.labelled_source._MAX_ROWS", 1)
    (tmp_path / "s.csv").write_bytes(csv("text,label", "a,spam", "b,ham"))
    with pytest.raises(ConfigError, match=r"found more than 1 rows, wanted at most 1; give fewer"):
        read(tmp_path / "s.csv")


@pytest.mark.s3
def test_shots_in_a_bucket_are_reached_like_the_corpus(bucket):
    open_store(bucket.at()).write_bytes("s.csv", csv("text,label", "a,spam"))
    place = SourceConfig(uri="the/corpus", **bucket.at().model_dump(include=ACCESS))
    assert read(bucket.at("s.csv").uri, place) == (Shot("a", "spam"),)


# an audit


def audit(path, *lines, **settings):
    path.write_bytes(csv(*lines))
    return read_audit(AuditConfig(uri=str(path), **settings), PLACE, LABELS)


def test_without_a_column_that_tells_why_all_audited_texts_are_random(tmp_path):
    assert audit(tmp_path / "a.csv", "text,label", "a,spam", " b ,ham") == {
        "a": Verdict("spam", is_random=True),
        "b": Verdict("ham", is_random=True),
    }


def test_a_text_both_doubtful_and_random_was_drawn_at_random(tmp_path):
    lines = ["text,label,why", "a,spam,doubtful", "b,ham,Doubtful ", "a,spam,random", "c,ham,"]
    found = audit(tmp_path / "a.csv", *lines)
    assert {text: verdict.is_random for text, verdict in found.items()} == {"a": True, "b": False, "c": True}


def test_another_reason_is_refused_until_the_column_is_named_or_none(tmp_path):
    lines = ["text,label,why", "a,spam,because it shouts"]
    with pytest.raises(ConfigError, match="found 'because it shouts' in the column 'why', wanted random or doubtful"):
        audit(tmp_path / "a.csv", *lines)
    assert audit(tmp_path / "a.csv", *lines, why=None) == {"a": Verdict("spam", is_random=True)}


def test_one_text_with_two_labels_is_refused_whatever_the_reasons(tmp_path):
    with pytest.raises(ConfigError, match="two labels, 'spam' and 'ham', for one text"):
        audit(tmp_path / "a.csv", "text,label,why", "a,ham,doubtful", "a ,spam,random")
