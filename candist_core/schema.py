"""Types of the columns that users bring: joined over batches that disagree, and made fit for Parquet.

Invariant: joining never depends on the values, and after `conform` every batch of a corpus has one schema.
"""

import json

import polars as pl
from polars.datatypes import DataTypeClass

Schema = dict[str, pl.DataType]


def join_schemas(first: Schema, second: Schema) -> Schema:
    """Columns of both, in order of first sight, each with a type that holds both.

    Example:
        >>> join_schemas({"a": pl.Int64()}, {"a": pl.String(), "b": pl.Null()})
        {'a': String, 'b': Null}
    """
    return first | {name: join_types(first.get(name, pl.Null()), dtype) for name, dtype in second.items()}


def join_types(first: pl.DataType, second: pl.DataType) -> pl.DataType:
    """A type that holds the values of both: the wider number, a struct of all fields, text for all that differ more."""
    joined = _join(first, second)
    return pl.String() if joined is None else joined


def _join(first: pl.DataType, second: pl.DataType) -> pl.DataType | None:
    """The joint type, None where only text would do."""
    if first == second or second == pl.Null:
        return first
    if first == pl.Null:
        return second
    if first.is_numeric() and second.is_numeric():
        return _join_numbers(first, second)
    if isinstance(first, pl.List) and isinstance(second, pl.List):
        inner = _join(_instance(first.inner), _instance(second.inner))
        return None if inner is None else pl.List(inner)
    if isinstance(first, pl.Struct) and isinstance(second, pl.Struct):
        fields = {name: _instance(dtype) for name, dtype in first.to_schema().items()}
        for name, dtype in second.to_schema().items():
            joined = _join(fields.get(name, pl.Null()), _instance(dtype))
            if joined is None:
                return None
            fields[name] = joined
        return pl.Struct(fields)
    return None


def _instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else pl.Series(dtype=dtype).dtype


def _join_numbers(first: pl.DataType, second: pl.DataType) -> pl.DataType | None:
    if first.is_decimal() or second.is_decimal():
        return None
    if first.is_float() or second.is_float():
        return pl.Float64()
    small = {pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32()}
    return pl.Int64() if {first, second} <= small else None


def stored_type(dtype: pl.DataType) -> pl.DataType:
    """The type under which a column is kept: its own, or text where other readers of Parquet would stumble.

    Example:
        >>> stored_type(pl.Int64()), stored_type(pl.Null()), stored_type(pl.Categorical())
        (Int64, String, String)
    """
    return dtype if dtype != pl.Null and _is_portable(dtype) else pl.String()


def _is_portable(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _is_portable(_instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        fields = dtype.to_schema()
        return bool(fields) and all(_is_portable(_instance(kind)) for kind in fields.values())
    odd = (pl.Categorical, pl.Enum, pl.Object, pl.Array, pl.Int128, pl.UInt128, pl.Float16)
    return not isinstance(dtype, odd)


def conform(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The frame with the columns of the schema, each as its stored type; columns it lacks are null."""
    columns = []
    for name, joint in schema.items():
        dtype = stored_type(joint)
        if name not in frame.columns or frame[name].null_count() == frame.height:
            columns.append(pl.Series(name, [None], dtype=dtype).new_from_index(0, frame.height))
        elif frame.schema[name] == dtype:
            columns.append(frame[name])
        elif dtype == pl.String:
            columns.append(as_text(frame[name]))
        else:
            # Concatenation matches the fields of structs by name, a cast by position.
            one = pl.concat([pl.Series(name, [], dtype=dtype).to_frame(), frame.select(name)], how="vertical_relaxed")
            columns.append(one[name])
    return pl.DataFrame(columns)


def as_text(values: pl.Series) -> pl.Series:
    """Values as text: whole numbers without a fraction (pandas makes 1.0 of 1), lists and structs as JSON.

    NaN, and bytes that are no UTF-8, become null.

    Example:
        >>> as_text(pl.Series([1.0, 2.5, None])).to_list()
        ['1', '2.5', None]
    """
    dtype, name = values.dtype, values.name
    if dtype == pl.String:
        return values
    if dtype.is_float():
        values = values.fill_nan(None)
        whole = values.cast(pl.Int64, strict=False)
        is_whole = (whole.cast(pl.Float64) == values).fill_null(value=False)
        return whole.cast(pl.String).zip_with(is_whole, values.cast(pl.String)).alias(name)
    if dtype == pl.Binary:
        return pl.Series(name, [_decoded(value) for value in values], dtype=pl.String)
    if dtype.is_nested() or dtype == pl.Object:
        texts = [
            None if value is None else json.dumps(_plain(value), ensure_ascii=False, default=str) for value in values
        ]
        return pl.Series(name, texts, dtype=pl.String)
    return values.cast(pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _plain(value: object) -> object:
    return value.to_list() if isinstance(value, pl.Series) else value
