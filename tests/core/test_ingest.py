from collections.abc import Iterable
from hashlib import blake2b

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.config import SourceConfig
from candist_core.errors import SourceError
from candist_core.ingest import SourceBatch, ingest
from candist_core.parquet import decode_table, encode_table
from candist_core.reports import SourceFile
from candist_core.schema import as_text, conform, join_types, stored_type
from candist_core.tables import CONTRACTS, TableRef
from candist_core.template import parse_template

FILES = (SourceFile(uri="f", size_bytes=1, etag="e"),)


class Tables:
    """Keeps tables as bytes and counts how often each was written."""

    def __init__(self):
        self.data, self.writes = {}, []

    def write(self, kind, index, frame):
        name = f"{kind.partition('/')[0]}-{index}"
        self.writes.append(name)
        self.data[name] = encode_table(frame, CONTRACTS[kind])
        return TableRef(name, kind, frame.height, "", len(self.data[name]))

    def read(self, ref):
        return decode_table(self.data[ref.uri], ref.contract)


def batch_of(rows, uri="f", first=1, bad=()):
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, infer_schema_length=None)
    return SourceBatch(uri, frame, pl.int_range(first, first + frame.height, eager=True), bad)


class Outcome:
    """What ingest made of some batches."""

    def __init__(self, *batches, **source):
        tables = Tables()
        self.report = ingest(iter(batches), SourceConfig(uri="f", **source), FILES, tables.write, tables.read)
        self.writes = tables.writes
        self.examples = pl.concat(tables.read(ref) for ref in self.report.examples)
        self.texts = pl.concat(tables.read(ref) for ref in self.report.texts)
        self.rejects = tables.read(self.report.rejects)


def of_rows(*rows, **source):
    return Outcome(batch_of(list(rows)), **source)


def column(frame, name) -> list[object]:
    return frame[name].to_list()


def digest(text):
    return blake2b(text.encode(), digest_size=16).hexdigest()


# ids


def test_without_an_id_column_an_id_is_the_hash_of_the_text_and_repeats_are_numbered():
    out = of_rows({"text": "x"}, {"text": "y"}, {"text": "x"}, {"text": "x"})
    x, y = digest("x"), digest("y")
    assert column(out.examples, "doc_id") == [x, y, f"{x}-2", f"{x}-3"]
    assert column(out.examples, "same_as") == [x, y, x, x]
    assert out.texts.rows() == [(x, "x"), (y, "y")]


def test_equal_texts_are_one_text_under_the_id_of_their_first_row():
    out = of_rows({"k": "1", "text": "x"}, {"k": "2", "text": "x"}, {"k": "3", "text": "y"}, id="k")
    assert column(out.examples, "doc_id") == ["1", "2", "3"]
    assert column(out.examples, "same_as") == ["1", "1", "3"]
    assert out.texts.rows() == [("1", "x"), ("3", "y")]
    assert (out.report.n_examples, out.report.n_texts) == (3, 2)


def test_texts_that_differ_in_outer_space_alone_are_two_texts_and_stay_as_they_are():
    out = of_rows({"text": " x"}, {"text": "x "}, {"text": "x"})
    assert column(out.texts, "text") == [" x", "x ", "x"]


def test_an_id_seen_before_is_rejected_and_the_first_row_is_kept():
    out = of_rows({"k": 7, "text": "x"}, {"k": 7, "text": "y"}, {"k": 7, "text": "x"}, id="k")
    assert out.examples.select("doc_id", "text").rows() == [("7", "x")]
    assert out.rejects.select("doc_id", "reason").rows() == [("7", "duplicate_id")] * 2


def test_an_id_of_a_rejected_row_is_still_free():
    out = of_rows({"k": "1", "text": ""}, {"k": "1", "text": "y"}, id="k")
    assert out.examples.select("doc_id", "text").rows() == [("1", "y")]
    assert out.rejects.select("doc_id", "reason").rows() == [("1", "empty")]


def test_repeats_are_known_across_batches_and_files():
    out = Outcome(
        batch_of([{"text": "x"}]), batch_of([{"text": "x"}], uri="g"), batch_of([{"text": "z"}], uri="g", first=2)
    )
    assert column(out.texts, "text") == ["x", "z"]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, 2.5], ["1", "2.5"]),
        ([True, False], ["true", "false"]),
        (["007", "a b"], ["007", "a b"]),
    ],
)
def test_ids_become_text(ids, wanted):
    out = of_rows(*({"k": value, "text": f"t{i}"} for i, value in enumerate(ids)), id="k")
    assert column(out.examples, "doc_id") == wanted


# rejects


def test_every_reason_is_told_with_the_place_of_its_row_and_without_its_text():
    rows = [
        {"k": "a", "text": "good"},
        {"k": "b", "text": " \t\n\u00a0"},
        {"k": "c", "text": None},
        {"k": "d", "text": "long" * 3},
        {"k": None, "text": "lost"},
        {"k": "  ", "text": "lost"},
        {"k": "e", "text": "n\0ul"},
        {"k": "a", "text": "again"},
    ]
    out = Outcome(batch_of(rows, bad=((9, "the line is not one JSON object"),)), id="k", max_chars=10)
    assert out.rejects.rows() == [
        ("b", "ingest", "empty", "f:2: no text"),
        ("c", "ingest", "empty", "f:3: no text"),
        ("d", "ingest", "oversized", "f:4: 12 characters, at most 10 are taken"),
        ("f:5", "ingest", "no_id", "f:5: no value in column 'k'"),
        ("f:6", "ingest", "no_id", "f:6: no value in column 'k'"),
        ("e", "ingest", "undecodable", "f:7: the text or the id holds NUL or bytes that are no UTF-8"),
        ("a", "ingest", "duplicate_id", "f:8: an earlier row has the same id"),
        ("f:9", "ingest", "undecodable", "f:9: the line is not one JSON object"),
    ]
    assert (out.report.n_rows, out.report.n_examples, out.report.n_rejects) == (9, 1, 8)


def test_a_text_of_exactly_the_longest_length_is_taken_counted_in_characters():
    out = of_rows({"text": "ü" * 10}, {"text": "ü" * 11}, max_chars=10)
    assert column(out.texts, "text") == ["ü" * 10]


def test_bytes_are_read_as_text_where_they_are_utf8():
    frame = pl.DataFrame({"text": [b"gr\xc3\xbc\xc3\x9fe", b"\xff", None]})
    out = Outcome(batch_of(frame))
    assert column(out.texts, "text") == ["grüße"]
    assert column(out.rejects, "reason") == ["undecodable", "empty"]


def test_a_corpus_without_a_usable_row_says_why():
    with pytest.raises(SourceError, match=r"no usable row among 3 \(2 empty, 1 undecodable\)"):
        Outcome(batch_of([{"text": ""}, {"text": None}], bad=((3, "x"),)))
    with pytest.raises(SourceError, match="found no row, wanted at least one text"):
        Outcome()


# shards


@pytest.mark.parametrize(
    ("n", "shard_rows", "wanted"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 5, [3]), (5, 1, [1] * 5)]
)
def test_shards_have_exactly_the_wanted_rows_and_the_last_what_is_left(n, shard_rows, wanted):
    out = of_rows(*({"text": f"t{i}"} for i in range(n)), shard_rows=shard_rows)
    assert [ref.rows for ref in out.report.examples] == wanted
    assert [ref.rows for ref in out.report.texts] == wanted
    assert column(out.examples, "text") == [f"t{i}" for i in range(n)]
    assert out.report.files == FILES


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y", "", None])), max_size=5), max_size=5
    ),
    st.integers(1, 4),
)
def test_every_row_is_one_example_or_one_reject_and_shards_are_full(chunks, shard_rows):
    schema = {"k": pl.String, "text": pl.String}
    batches = [batch_of(pl.DataFrame(chunk, schema=schema, orient="row")) for chunk in chunks]
    n_rows = sum(len(chunk) for chunk in chunks)
    if not any(text for chunk in chunks for _, text in chunk):
        with pytest.raises(SourceError):
            Outcome(*batches, id="k", shard_rows=shard_rows)
        return
    out = Outcome(*batches, id="k", shard_rows=shard_rows)
    assert out.report.n_rows == n_rows == out.examples.height + out.rejects.height
    assert out.examples["doc_id"].n_unique() == out.examples.height
    assert out.texts["text"].n_unique() == out.texts.height == out.examples["text"].n_unique()
    assert (
        out.examples.join(out.texts, left_on=["same_as", "text"], right_on=["doc_id", "text"]).height
        == out.examples.height
    )
    for refs in (out.report.examples, out.report.texts):
        assert all(ref.rows == shard_rows for ref in refs[:-1])
        assert 0 < refs[-1].rows <= shard_rows


def test_shards_are_written_as_they_fill():
    written_before = []

    def batches() -> Iterable[SourceBatch]:
        for i in range(3):
            yield batch_of([{"text": f"t{i}-{j}"} for j in range(10)])
            written_before.append(len(tables.writes))

    tables = Tables()
    ingest(batches(), SourceConfig(uri="f", shard_rows=10), FILES, tables.write, tables.read)
    assert written_before == [2, 4, 6]


# columns


def test_gold_and_split_are_text_and_blank_ones_are_null():
    rows = [
        {"text": "a", "y": 1.0, "part": "train"},
        {"text": "b", "y": None, "part": " "},
        {"text": "c", "y": 2.0, "part": None},
    ]
    out = of_rows(*rows, gold="y", split="part")
    assert column(out.examples, "gold") == ["1", None, "2"]
    assert column(out.examples, "split") == ["train", None, None]
    assert out.report.n_gold == 2
    assert "gold" not in out.texts.columns


def test_columns_that_were_not_chosen_pass_through_and_chosen_ones_do_not_stand_twice():
    out = of_rows({"k": "1", "body": "x", "y": "l", "lang": "en", "meta": {"n": [1]}}, id="k", text="body", gold="y")
    assert out.examples.columns == ["doc_id", "text", "split", "gold", "same_as", "lang", "meta"]
    assert out.report.user_columns == ("lang", "meta")
    assert column(out.examples, "meta") == [{"n": [1]}]


def test_a_column_with_a_name_of_ours_gets_another_one():
    row = {
        "body": "x",
        "text": "t",
        "doc_id": "d",
        "label": "l",
        "label_source": "s",
        "same_as": 1,
        "reason": "r",
        "": 5,
    }
    out = of_rows(row, text="body")
    names = (
        "text_source",
        "doc_id_source",
        "label_source",
        "label_source_source",
        "same_as_source",
        "reason_source",
        "unnamed",
    )
    assert out.report.user_columns == names
    assert out.examples.select(names).row(0) == ("t", "d", "l", "s", 1, "r", 5)
    assert column(out.examples, "text") == ["x"]


def test_a_chosen_column_may_have_a_name_of_ours():
    out = of_rows({"doc_id": "1", "text": "x", "gold": "g", "split": "s"}, id="doc_id", gold="gold", split="split")
    assert out.examples.row(0) == ("1", "x", "s", "g", "1")
    assert out.report.user_columns == ()


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ({"text": "txt"}, r"corpus f: found the columns text, label, wanted a column 'txt'; did you mean 'text'\?"),
        ({"id": "uid"}, "wanted a column 'uid'; set source.text, id, gold and split to columns that are there"),
        ({"gold": "labell"}, r"wanted a column 'labell'; did you mean 'label'\?"),
        ({"split": "part"}, "wanted a column 'part'"),
        ({"text": "{text} {lable}"}, r"wanted a column 'lable'; did you mean 'label'\?"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_those_that_are(setting, wanted):
    with pytest.raises(SourceError, match=wanted):
        of_rows({"text": "x", "label": "a"}, **setting)


def test_a_file_without_the_text_column_is_told_even_if_others_have_it():
    with pytest.raises(SourceError, match="corpus g: found the columns body"):
        Outcome(batch_of([{"text": "x"}]), batch_of([{"body": "y"}], uri="g"))


def test_gold_may_be_missing_from_some_files_and_batches():
    out = Outcome(
        batch_of([{"text": "x"}]),
        batch_of([{"text": "y", "g": "l"}], uri="g"),
        batch_of([{"text": "z"}], uri="g", first=2),
        gold="g",
    )
    assert column(out.examples, "gold") == [None, "l", None]


def test_a_text_column_of_lists_is_refused():
    with pytest.raises(SourceError, match=r"column 'text': found the type List\(String\), wanted text or numbers"):
        of_rows({"text": ["a", "b"]})


def test_a_column_of_ids_taken_for_splits_is_refused():
    with pytest.raises(SourceError, match="more than 100 splits"):
        of_rows(*({"text": f"t{i}", "k": f"{i}"} for i in range(101)), split="k")


def test_fields_taken_for_columns_are_refused():
    with pytest.raises(SourceError, match="more than 1000 columns"):
        of_rows({"text": "x"} | {f"user-{i}": 1 for i in range(1001)})


# batches that disagree


def test_columns_that_come_and_go_are_null_where_they_are_not():
    out = Outcome(batch_of([{"text": "a", "x": 1}]), batch_of([{"text": "b", "y": "w"}], first=2), shard_rows=1)
    assert out.examples.select("x", "y").rows() == [(1, None), (None, "w")]
    assert out.report.user_columns == ("x", "y")


def test_types_that_differ_become_text_in_every_shard():
    batches = [
        batch_of([{"text": f"t{i}", "x": value}], first=i) for i, value in enumerate([5, "five", 2.5, None, [1]])
    ]
    out = Outcome(*batches, shard_rows=1)
    assert column(out.examples, "x") == ["5", "five", "2.5", None, "[1]"]
    assert [ref.rows for ref in out.report.examples] == [1] * 5


def test_only_shards_of_another_type_are_written_again():
    batches = [batch_of([{"text": f"t{i}", "x": value}], first=i) for i, value in enumerate([5, "five", "six"])]
    out = Outcome(*batches, shard_rows=1)
    assert [name for name in out.writes if name.startswith("examples")] == [
        "examples-0",
        "examples-1",
        "examples-2",
        "examples-0",
    ]
    assert out.writes.count("texts-0") == 1


def test_a_struct_that_grows_a_field_keeps_both():
    out = Outcome(
        batch_of([{"text": "a", "m": {"p": 1}}]),
        batch_of([{"text": "b", "m": {"q": "z", "p": 2.5}}], first=2),
        shard_rows=1,
    )
    assert column(out.examples, "m") == [{"p": 1.0, "q": None}, {"p": 2.5, "q": "z"}]


def test_a_column_that_is_null_at_first_takes_its_later_type():
    later = [[1, 2], {"a": 1}, 3, "x"]
    for value in later:
        out = Outcome(
            batch_of([{"text": "a", "x": None}]), batch_of([{"text": "b", "x": value}], first=2), shard_rows=1
        )
        assert column(out.examples, "x") == [None, value]


def test_a_column_of_nulls_alone_is_text():
    assert of_rows({"text": "a", "x": None}).examples.schema["x"] == pl.String


INT, FLOAT, TEXT = pl.Int64(), pl.Float64(), pl.String()


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (INT, INT, INT),
        (pl.Null(), INT, INT),
        (INT, FLOAT, FLOAT),
        (pl.Int8(), pl.UInt32(), INT),
        (pl.UInt64(), INT, TEXT),
        (pl.Boolean(), INT, TEXT),
        (pl.Date(), TEXT, TEXT),
        (pl.Decimal(10, 2), FLOAT, TEXT),
        (pl.List(INT), pl.List(FLOAT), pl.List(FLOAT)),
        (pl.List(INT), pl.List(TEXT), TEXT),
        (pl.List(INT), INT, TEXT),
        (pl.Struct({"a": INT}), pl.Struct({"b": TEXT}), pl.Struct({"a": INT, "b": TEXT})),
        (pl.Struct({"a": INT}), pl.Struct({"a": TEXT}), TEXT),
        (pl.List(pl.Null()), pl.List(INT), pl.List(INT)),
    ],
)
def test_the_joint_type_holds_both_and_does_not_depend_on_the_order(first, second, wanted):
    assert join_types(first, second) == wanted
    other = join_types(second, first)
    # Fields of a struct stand in the order in which they were seen.
    assert dict(other.to_schema()) == dict(wanted.to_schema()) if isinstance(wanted, pl.Struct) else other == wanted


@pytest.mark.parametrize(
    "dtype",
    [pl.Null(), pl.Categorical(), pl.Enum(["a"]), pl.Int128(), pl.Struct([]), pl.List(pl.Struct([])), pl.Array(INT, 2)],
)
def test_types_at_which_other_readers_stumble_are_kept_as_text(dtype):
    assert stored_type(dtype) == TEXT


def test_odd_types_become_readable_text():
    frame = pl.DataFrame(
        {"c": ["a"], "i": [2**70], "s": [{}], "n": [[{"k": None}]]},
        schema={"c": pl.Categorical, "i": pl.Int128, "s": pl.Struct([]), "n": pl.List(pl.Struct({"k": pl.Null}))},
    )
    kept = conform(frame, dict(frame.schema))
    assert kept.select("c", "i", "s").row(0) == ("a", str(2**70), "{}")
    assert as_text(frame["n"]).to_list() == ['[{"k": null}]']


@given(st.lists(st.none() | st.floats() | st.integers(-(2**53), 2**53).map(float), max_size=5))
def test_numbers_as_text_are_the_same_numbers(values):
    for value, text in zip(values, as_text(pl.Series(values, dtype=pl.Float64)).to_list(), strict=True):
        if value is None or value != value:
            assert text is None
        else:
            assert float(text) == value
            assert not text.endswith(".0") or abs(value) > 2**53


# templates


def test_a_template_joins_columns_and_nulls_are_empty():
    rows = [{"title": "T", "body": "B", "n": 3}, {"title": None, "body": "B", "n": None}]
    out = of_rows(*rows, text="{title}. {body} {{#{n}}}")
    assert column(out.examples, "text") == ["T. B {#3}", ". B {#}"]
    assert out.report.user_columns == ("title", "body", "n")


def test_a_row_whose_fields_are_all_blank_is_empty_though_the_template_has_words():
    out = of_rows({"title": "T", "body": ""}, {"title": " ", "body": None}, text="{title}. {body}")
    assert column(out.rejects, "reason") == ["empty"]
    assert out.report.n_examples == 1


def test_a_field_is_a_column_name_and_nothing_more():
    out = of_rows({"a.b": "x", "c[0]": "y"}, text="{a.b}-{c[0]}")
    assert column(out.examples, "text") == ["x-y"]


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a", "{a!r}", "{a:>5}", "{a:{b}}", "{{a}}", "a}b"])
def test_a_template_that_is_more_than_names_is_refused(text):
    with pytest.raises(SourceError, match=r"source\.text"):
        parse_template(text)


names = st.text(st.characters(exclude_characters="{}!:[]", exclude_categories=["Cs"]), min_size=1, max_size=5)
literals = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.tuples(literals, names), min_size=1, max_size=4), literals)
def test_any_literals_and_names_come_back_from_a_template(pairs, tail):
    def doubled(text):
        return text.replace("{", "{{").replace("}", "}}")

    template = parse_template("".join(f"{doubled(literal)}{{{name}}}" for literal, name in pairs) + doubled(tail))
    assert template.literals == tuple(literal for literal, _ in pairs)
    assert template.fields == tuple(name for _, name in pairs)
    assert template.tail == tail


def test_a_plain_name_is_a_column_whose_value_is_the_text():
    assert parse_template("body").column == "body"
    assert parse_template("{body}").column == "body"
    assert parse_template("{body} ").column is None
