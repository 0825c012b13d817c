import polars as pl
import pytest

from candist_core.errors import ContractError
from candist_core.parquet import decode_table, encode_table
from candist_core.tables import ANNOTATIONS, CONTRACTS, EXAMPLES, LABELS, REJECTS, TEXTS, Contract, check, empty


def texts(**columns):
    return pl.DataFrame({"doc_id": ["a", "b"], "text": ["x", "y"]} | columns)


def test_a_frame_that_fits_comes_back_with_the_contracts_columns_first():
    frame = pl.DataFrame({"mine": [1], "same_as": ["a"], "gold": ["g"], "split": ["s"], "text": ["t"], "doc_id": ["a"]})
    assert check(frame, EXAMPLES).columns == ["doc_id", "text", "split", "gold", "same_as", "mine"]


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (texts().drop("text"), "no column 'text'"),
        (texts(text=[1, 2]), "column 'text' of type Int64"),
        (texts(text=["x", None]), "1 nulls in 'text'"),
        (texts(mine=[1, 2]), "unknown columns ['mine']"),
        (texts(doc_id=["a", "a"]), "doc_id 'a' more than once"),
    ],
)
def test_a_frame_that_breaks_its_contract_is_refused_with_what_was_found(frame, found):
    with pytest.raises(ContractError) as caught:
        check(frame, TEXTS)
    assert caught.value.contract == "texts/1"
    assert caught.value.found == found


def test_rejects_have_no_key_since_one_row_may_be_rejected_by_several_stages():
    row = {"doc_id": "a", "stage": "annotate", "reason": "refused", "detail": "."}
    assert check(pl.DataFrame([row, row]), REJECTS).height == 2


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=list(CONTRACTS))
def test_an_empty_table_of_every_contract_survives_its_file(contract):
    back = decode_table(encode_table(empty(contract), contract), contract.name)
    assert back.schema == pl.Schema(contract.columns)
    assert back.height == 0


def test_equal_frames_give_equal_bytes_and_other_rows_give_others():
    rows = {"doc_id": [f"d{i}" for i in range(5000)], "text": [f"word {i % 97}" for i in range(5000)]}
    once, again = (encode_table(pl.DataFrame(rows), TEXTS) for _ in range(2))
    assert once == again
    assert encode_table(pl.DataFrame(rows).reverse(), TEXTS) != once


def test_nulls_lists_and_odd_text_come_back_as_they_were():
    labels = pl.DataFrame(
        {
            "doc_id": ["a\0", "ü\u2028\U0001f600"],
            "label": ["x", "y"],
            "confidence": [0.5, 1.0],
            "candidates": [["x", "y"], []],
            "teacher_label": ["x", None],
            "source": ["agreed", "student"],
            "needs_review": [False, True],
            "reason": [None, ""],
        },
        schema_overrides={"confidence": pl.Float32},
    )
    assert decode_table(encode_table(labels, LABELS), "labels/1").equals(labels)


def test_only_some_columns_can_be_read():
    assert decode_table(encode_table(texts(), TEXTS), "texts/1", ["text"]).to_dict(as_series=False) == {
        "text": ["x", "y"]
    }


def test_a_table_of_a_later_version_is_refused_by_its_name():
    later = Contract("examples/2", TEXTS.columns)
    with pytest.raises(ContractError, match=r"table examples/2: found a contract that this version does not know"):
        decode_table(encode_table(texts(), later), "examples/1")


def test_a_table_under_another_contract_is_refused():
    with pytest.raises(ContractError, match=r"table annotations/1: found a file under texts/1"):
        decode_table(encode_table(texts(), TEXTS), ANNOTATIONS.name)


def test_a_parquet_file_of_someone_else_and_a_torn_one_are_refused(tmp_path):
    texts().write_parquet(tmp_path / "t.parquet")
    foreign = (tmp_path / "t.parquet").read_bytes()
    with pytest.raises(ContractError, match="no contract"):
        decode_table(foreign, "texts/1")
    with pytest.raises(ContractError, match="cannot be read"):
        decode_table(encode_table(texts(), TEXTS)[:-20], "texts/1")
    with pytest.raises(ContractError, match="cannot be read"):
        decode_table(encode_table(texts(), TEXTS), "texts/1", ["no_such_column"])
