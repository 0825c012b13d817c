import gzip
import io
import json
import tracemalloc

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candist_core.config import Location, SourceConfig, SourceFormat
from candist_core.edges.readers import line_blocks, read_csv, read_jsonl
from candist_core.edges.source import find_files, read_batches
from candist_core.edges.store import open_store
from candist_core.errors import SourceError

ROWS = [{"id": f"{i:03d}", "text": f"text {i}, with a comma", "n": i} for i in range(10)]


def read(uri, batch_rows=4, **settings):
    source = SourceConfig(uri=str(uri), **settings)
    return list(read_batches(source, find_files(source), batch_rows))


def rows_of(batches):
    return [row for batch in batches for row in batch.rows.iter_rows(named=True)]


def lines_of(batches):
    return [line for batch in batches for line in batch.lines]


def bad_of(batches):
    return [entry for batch in batches for entry in batch.bad]


def encode(kind, rows=ROWS):
    frame = pl.DataFrame(rows)
    buffer = io.BytesIO()
    {"parquet": frame.write_parquet, "jsonl": frame.write_ndjson, "csv": frame.write_csv}[kind](buffer)
    return buffer.getvalue()


def jsonl(*lines):
    return [batch for batch in read_jsonl(iter([[line.encode() for line in lines]]), "f")]


# formats


@pytest.mark.parametrize("name", ["c.parquet", "c.pq", "c.jsonl", "c.ndjson", "c.jsonl.gz", "c.JSONL", "x.y.json"])
def test_every_row_arrives_in_order_with_its_types_and_its_line(tmp_path, name):
    data = encode("parquet" if "p" in name.split(".")[-1] else "jsonl")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    batches = read(tmp_path / name)
    assert rows_of(batches) == ROWS
    assert lines_of(batches) == list(range(1, 11))
    assert [batch.rows.height for batch in batches] == [4, 4, 2]
    assert not bad_of(batches)


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz"])
def test_csv_columns_are_text_so_that_an_id_keeps_its_zeros(tmp_path, name):
    data = encode("csv")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    batches = read(tmp_path / name)
    assert rows_of(batches) == [row | {"n": str(row["n"])} for row in ROWS]
    assert lines_of(batches) == list(range(2, 12))


def test_tab_separated_text_is_read_by_its_ending(tmp_path):
    (tmp_path / "c.tsv").write_text('a\tb\n1,5\t"x\ty"\n')
    assert rows_of(read(tmp_path / "c.tsv")) == [{"a": "1,5", "b": "x\ty"}]


def test_a_format_that_is_set_wins_over_the_ending(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(encode("jsonl"))
    assert rows_of(read(tmp_path / "corpus.txt", format=SourceFormat.JSONL)) == ROWS


def test_the_corpus_that_ships_with_the_package_is_read_by_url():
    batches = read("package://candist_core/demo/corpus.jsonl", batch_rows=1000)
    assert [batch.rows.height for batch in batches] == [1000, 200]
    assert batches[0].uri == "package://candist_core/demo/corpus.jsonl"


def test_a_corpus_in_memory_is_read_by_url():
    open_store(Location(uri="memory://test_source")).write_bytes("c.jsonl", encode("jsonl"))
    assert rows_of(read("memory://test_source/c.jsonl")) == ROWS


@pytest.mark.s3
@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.jsonl.gz"])
def test_a_corpus_in_a_bucket_is_read_in_batches(bucket, name):
    data = encode("parquet" if "p" in name.split(".")[-1] else "jsonl")
    open_store(bucket.at("in")).write_bytes(f"deep/{name}", gzip.compress(data) if name.endswith(".gz") else data)
    source = SourceConfig(uri=f"s3://{bucket.name}/in", endpoint_url=bucket.endpoint_url)
    files = find_files(source)
    assert [file.uri for file in files] == [f"s3://{bucket.name}/in/deep/{name}"]
    assert '"' not in files[0].etag
    assert rows_of(read_batches(source, files, 4)) == ROWS
    whole = SourceConfig(uri=f"s3://{bucket.name}/in/*/c.*", endpoint_url=bucket.endpoint_url)
    assert find_files(whole) == files


@pytest.mark.s3
def test_a_missing_bucket_is_told(bucket):
    with pytest.raises(SourceError, match="no bucket of that name"):
        find_files(SourceConfig(uri="s3://no-such-bucket/x", endpoint_url=bucket.endpoint_url))


# finding


def test_a_folder_is_read_file_by_file_in_the_order_of_paths(tmp_path):
    for i, name in enumerate(["b/2.jsonl", "a.jsonl", "b/1.jsonl"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"n": i}) + "\n")
    batches = read(tmp_path)
    assert [row["n"] for row in rows_of(batches)] == [1, 2, 0]
    assert [batch.uri for batch in batches] == [f"{tmp_path}/{name}" for name in ("a.jsonl", "b/1.jsonl", "b/2.jsonl")]


def test_hidden_files_and_files_of_no_known_ending_are_passed_over(tmp_path):
    for name in ("c.jsonl", "_SUCCESS", ".c.jsonl.crc", "README.txt", "_tmp/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode("jsonl"))
    assert [file.uri for file in find_files(SourceConfig(uri=str(tmp_path)))] == [f"{tmp_path}/c.jsonl"]


def test_a_relative_path_stays_relative_in_what_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/c.jsonl").write_bytes(encode("jsonl"))
    for uri, told in (
        ("in", "in/c.jsonl"),
        ("in/", "in/c.jsonl"),
        ("in/c.jsonl", "in/c.jsonl"),
        ("*/c.*", "./in/c.jsonl"),
    ):
        batches = read(uri)
        assert {batch.uri for batch in batches} == {told}
        assert len(rows_of(batches)) == 10


def test_a_glob_may_be_all_that_stands_behind_the_protocol(tmp_path, monkeypatch):
    store = open_store(Location(uri="memory://"))
    store.write_bytes("glob-1.jsonl", encode("jsonl"))
    assert [file.uri for file in find_files(SourceConfig(uri="memory://glob-*.jsonl"))] == ["memory://glob-1.jsonl"]
    assert rows_of(read("memory://glob-*.jsonl")) == ROWS
    store.delete(["glob-1.jsonl"])
    (tmp_path / "c.jsonl").write_bytes(encode("jsonl"))
    monkeypatch.chdir(tmp_path)
    assert rows_of(read("*.jsonl")) == ROWS
    assert rows_of(read(f"file://{tmp_path}/*.jsonl")) == ROWS


def test_a_glob_finds_what_it_says_also_below_a_folder_with_brackets(tmp_path):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    for name in ("a1.jsonl", "a2.jsonl", "b1.jsonl"):
        (folder / name).write_bytes(encode("jsonl"))
    assert len(find_files(SourceConfig(uri=str(folder)))) == 3
    assert len(find_files(SourceConfig(uri=str(folder / "a1.jsonl")))) == 1
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a[1].jsonl").write_bytes(encode("jsonl"))
    assert len(find_files(SourceConfig(uri=str(tmp_path / "plain/a[1].jsonl")))) == 1
    (tmp_path / "plain/a1.jsonl").write_bytes(encode("jsonl"))
    assert len(find_files(SourceConfig(uri=str(tmp_path / "plain/a?.jsonl")))) == 1


@pytest.mark.parametrize("uri", ["nothing", "nothing/*.csv", "empty"])
def test_a_corpus_without_a_file_is_told_in_one_sentence(tmp_path, uri):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=rf"corpus {tmp_path}/.*: found no file, wanted at least one"):
        find_files(SourceConfig(uri=str(tmp_path / uri)))


def test_files_of_no_known_ending_are_told_with_the_known_ones(tmp_path):
    (tmp_path / "c.xlsx").write_bytes(b"x")
    with pytest.raises(
        SourceError, match=r"no known ending, as in 'c\.xlsx', wanted one of \.parquet, .* set source\.format"
    ):
        find_files(SourceConfig(uri=str(tmp_path)))


def test_two_formats_in_one_folder_are_told_and_one_can_be_chosen(tmp_path):
    (tmp_path / "a.csv").write_bytes(encode("csv"))
    (tmp_path / "b.jsonl").write_bytes(encode("jsonl"))
    with pytest.raises(SourceError, match="files of the formats csv and jsonl"):
        find_files(SourceConfig(uri=str(tmp_path)))
    assert [file.uri for file in find_files(SourceConfig(uri=str(tmp_path), format="csv"))] == [f"{tmp_path}/a.csv"]


def test_the_token_of_a_file_changes_with_the_file_and_not_otherwise(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(encode("jsonl"))
    (first,) = find_files(SourceConfig(uri=str(path)))
    assert find_files(SourceConfig(uri=str(path))) == (first,)
    assert first.size_bytes == path.stat().st_size
    path.write_bytes(encode("jsonl").replace(b"text 1", b"text 2"))
    (second,) = find_files(SourceConfig(uri=str(path)))
    assert second.etag != first.etag


def test_a_file_that_changes_after_it_was_found_is_not_read(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(encode("jsonl"))
    source = SourceConfig(uri=str(path))
    files = find_files(source)
    path.write_bytes(encode("jsonl") + b'{"id": "x"}\n')
    with pytest.raises(SourceError, match="changed while the run went on"):
        list(read_batches(source, files))


# JSON lines


@pytest.mark.parametrize(
    "line",
    [
        "{bad",
        "5",
        "null",
        "[1]",
        '"x"',
        '{"a": 1}{"a": 2}',
        '{"a": "\\ud800"}',
        '{"a": {"b": ["\\udfff"]}}',
        "[" * 100_000,
    ],
)
def test_a_bad_line_is_told_with_its_number_and_the_others_are_read(line):
    (batch,) = jsonl('{"a": 1}', "", line, '{"a": 3}')
    assert [line for line, _ in batch.bad] == [3]
    assert batch.rows["a"].to_list() == [1, 3]
    assert batch.lines.to_list() == [1, 4]
    assert batch.bad[0][1] in {
        "the line is not one JSON object",
        "the line holds bytes or escapes that are no UTF-8 text",
    }


def test_bytes_that_are_no_utf8_spoil_one_line_only(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'{"a": "x"}\n{"a": "\xff"}\n{"a": "z"}\n')
    batches = read(tmp_path / "c.jsonl")
    assert [row["a"] for row in rows_of(batches)] == ["x", "z"]
    assert bad_of(batches) == [(2, "the line holds bytes or escapes that are no UTF-8 text")]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "x"}\r\n\r\n{"a": "y"}\r\n')
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfa,b\r\nx,1\r\n\r\ny,2\r\n")
    assert [
        (row["a"], line)
        for batch in read(tmp_path / "c.jsonl")
        for row, line in zip(batch.rows.iter_rows(named=True), batch.lines, strict=True)
    ] == [("x", 1), ("y", 3)]
    assert rows_of(read(tmp_path / "c.csv")) == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


def test_escaped_emoji_are_text_and_not_half_of_a_pair():
    (batch,) = jsonl('{"a": "\\ud83d\\ude00"}')
    assert batch.rows["a"].to_list() == ["\U0001f600"]
    assert not batch.bad


def test_a_key_that_only_some_rows_have_is_null_in_the_others():
    (batch,) = jsonl('{"a": 1}', '{"b": "x"}')
    assert batch.rows.rows() == [(1, None), (None, "x")]


@pytest.mark.parametrize(
    "values", [["true", "5"], ["5", '"x"', "null"], ['{"x": 1}', "5"], ["[1]", "2.5"], ["1", "true", "2.5"]]
)
def test_values_of_several_types_in_one_column_become_text(values):
    (batch,) = jsonl(*(f'{{"a": {value}}}' for value in values))
    assert batch.rows.schema["a"] == pl.String
    assert batch.rows["a"].to_list() == [None if v == "null" else v.strip('"') for v in values]


def test_nested_values_are_kept_as_they_are():
    (batch,) = jsonl('{"a": {"b": [1, 2]}, "t": "x"}', '{"a": null, "t": "y"}')
    assert batch.rows["a"].to_list() == [{"b": [1, 2]}, None]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def test_half_a_surrogate_pair_deep_inside_spoils_its_line():
    (batch,) = jsonl('{"a": {"b": "x"}}', '{"a": {"b": "\\ud800"}}')
    assert [line for line, _ in batch.bad] == [2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), json_values), max_size=4))
def test_any_json_objects_give_one_row_each(rows):
    lines = [json.dumps(row) for row in rows]
    batches = jsonl(*lines)
    n_bad = len(bad_of(batches))
    assert len(rows_of(batches)) + n_bad == len(rows)
    for line in lines:
        # Half a surrogate pair is the one thing that JSON can say and text cannot hold.
        n_bad -= any(0xD800 <= ord(c) < 0xE000 for c in str(json.loads(line)))
    assert n_bad == 0


@given(st.binary(max_size=60))
def test_no_bytes_end_the_reading_of_json_lines(data):
    data = data.replace(b"\n", b"")
    batches = list(read_jsonl(iter([[b'{"a": 1}', data, b'{"a": 3}']]), "f"))
    assert lines_of(batches)[0] == 1
    assert lines_of(batches)[-1] == 3


# CSV


def csv_of(text, batch_rows=100):
    data = text if isinstance(text, bytes) else text.encode()
    return list(read_csv(line_blocks(io.BytesIO(data).read, batch_rows, "f"), "f"))


def test_quoted_fields_may_hold_commas_quotes_and_line_ends():
    batches = csv_of('id,text\n1,"a, ""b""\nc\r\n\nd"\n2,e\n')
    assert rows_of(batches) == [{"id": "1", "text": 'a, "b"\nc\r\n\nd'}, {"id": "2", "text": "e"}]
    assert lines_of(batches) == [2, 6]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"2", "the row has 1 fields, the header has 2"),
        (b"2,b,c", "the row has 3 fields, the header has 2"),
        (b"2,\xff", "the row holds bytes that are no UTF-8"),
        (b'2,"a"b', "the row is not well quoted (read to line 3)"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_others_are_read(row, told):
    batches = csv_of(b"id,text\n1,a\n" + row + b"\n3,c\n")
    assert [row["id"] for row in rows_of(batches)] == ["1", "3"]
    assert lines_of(batches) == [2, 4]
    assert bad_of(batches) == [(3, told)]


def test_a_quote_that_never_closes_costs_its_rows_and_says_so():
    batches = csv_of('id,text\n1,a\n2,"b\n3,c\n4,d\n')
    assert [row["id"] for row in rows_of(batches)] == ["1"]
    assert bad_of(batches) == [(3, "the row is not well quoted (read to line 5)")]


def test_a_column_without_a_name_gets_one():
    assert rows_of(csv_of(",text\n0,a\n")) == [{"column_1": "0", "text": "a"}]


def test_a_column_that_stands_twice_is_told():
    with pytest.raises(SourceError, match="the column 'a' twice"):
        csv_of("a,b,a\n1,2,3\n")


def test_a_field_longer_than_the_csv_modules_own_limit_is_read():
    assert len(rows_of(csv_of("t\n" + "x" * 200_000 + "\n"))[0]["t"]) == 200_000


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=6), st.integers(1, 4))
def test_what_a_csv_writer_wrote_comes_back(rows, batch_rows):
    import csv

    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("a", "b"), *rows])
    batches = csv_of(buffer.getvalue(), batch_rows)
    assert [tuple(row.values()) for row in rows_of(batches)] == rows
    assert not bad_of(batches)


# Parquet


def test_a_row_with_broken_text_in_parquet_is_told_and_the_others_are_read(tmp_path):
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc"))
    pq.write_table(pa.table({"n": [1, 2, 3], "t": texts}), tmp_path / "c.parquet")
    (batch,) = read(tmp_path / "c.parquet")
    assert batch.rows.rows() == [(1, "a"), (3, "c")]
    assert batch.lines.to_list() == [1, 3]
    assert batch.bad == ((2, "the row holds bytes that are no UTF-8"),)


def test_many_row_groups_are_read_in_order(tmp_path):
    pl.DataFrame({"n": range(100)}).write_parquet(tmp_path / "c.parquet", row_group_size=7)
    assert [row["n"] for row in rows_of(read(tmp_path / "c.parquet", batch_rows=11))] == list(range(100))


def test_a_parquet_column_that_stands_twice_is_told(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "c.parquet")
    with pytest.raises(SourceError, match="the column 'a' twice"):
        read(tmp_path / "c.parquet")


# files that are not what they say


# The data is part of a test's name, which all processes of a test run must agree on; hence the fixed times of gzip.
@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("c.parquet", b"hello", "no Parquet file that can be read"),
        ("c.parquet", b"", "no Parquet file that can be read"),
        ("c.parquet", encode("parquet")[:-30], "no Parquet file that can be read"),
        ("c.jsonl.gz", b"hello", "data that is not gzip or is cut off"),
        ("c.jsonl.gz", gzip.compress(encode("jsonl"), mtime=0)[:-9], "data that is not gzip or is cut off"),
        (
            "c.csv.gz",
            gzip.compress(b"a\n" + b"x" * 99, mtime=0)[:20] + b"\xff" * 30,
            "data that is not gzip or is cut off",
        ),
        ("c.jsonl", encode("parquet"), "a Parquet file"),
        ("c.csv", gzip.compress(b"a", mtime=0), "gzip data without .gz in its name"),
        ("c.csv", "a,b".encode("utf-16"), "UTF-16 text"),
        ("c.csv", b"PK\x03\x04", "a ZIP archive or a spreadsheet"),
        ("c.jsonl", b"id,text\n" * 200, "no JSON object in its first 200 lines"),
    ],
)
def test_a_file_of_another_kind_than_it_says_is_told(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError) as caught:
        read(tmp_path / name, batch_rows=1000)
    assert caught.value.found == told


def test_damage_inside_a_parquet_file_is_told(tmp_path):
    data = bytearray(encode("parquet", [{"t": f"{i * 7919 % 1000}"} for i in range(5000)]))
    data[40:400] = b"\xff" * 360
    (tmp_path / "c.parquet").write_bytes(data)
    with pytest.raises(SourceError, match="no Parquet file that can be read"):
        read(tmp_path / "c.parquet")


def test_an_empty_text_file_has_no_rows(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b"")
    (tmp_path / "only_header.csv").write_bytes(b"a,b\n")
    assert rows_of(read(tmp_path / "c.jsonl")) == []
    assert rows_of(read(tmp_path / "only_header.csv")) == []


# bounded memory


class Endless:
    """A stream that never comes to an end of line."""

    def __init__(self, byte):
        self.byte, self.given = byte, 0

    def read(self, size):
        self.given += size
        return self.byte * size


@pytest.mark.slow
def test_a_line_without_end_is_given_up_after_64_mib():
    stream = Endless(b"x")
    with pytest.raises(SourceError, match="a line of more than 64 MiB"):
        list(line_blocks(stream.read, 100, "f"))
    assert stream.given < 80 << 20


@pytest.mark.slow
def test_a_quote_without_end_is_given_up_before_all_is_read():
    taken = []

    def blocks():
        yield [b"a,b"]
        for i in range(100):
            taken.append(i)
            yield [b'1,"' if i == 0 else b"x", *([b"x" * 1000] * 30_000)]

    with pytest.raises(SourceError, match="a quote that does not close"):
        list(read_csv(blocks(), "f"))
    assert len(taken) == 4, "three blocks of 30 MB hold more than 64 MiB"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_large_file_is_never_held_whole(tmp_path, kind):
    row = encode(kind, [{"text": "x" * 1000}]).splitlines()[-1] + b"\n"
    with (tmp_path / f"c.{kind}").open("wb") as file:
        file.write(b"text\n" if kind == "csv" else b"")
        for _ in range(80):
            file.write(row * 1000)
    source = SourceConfig(uri=str(tmp_path / f"c.{kind}"))
    tracemalloc.start()
    n = sum(batch.rows.height for batch in read_batches(source, find_files(source), 2000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n == 80_000
    assert peak < 30 << 20, "the file has 80 MB"
