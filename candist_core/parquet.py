"""Tables as bytes: Parquet with the contract's name in the file's metadata. Equal frames give equal bytes."""

from collections.abc import Sequence
from io import BytesIO

import polars as pl

from candist_core.errors import ContractError
from candist_core.tables import CONTRACTS, Contract, check


def encode_table(frame: pl.DataFrame, contract: Contract) -> bytes:
    """Check a frame and write it as Parquet, zstd, with statistics.

    Raises:
        ContractError: the frame is not what the contract says.
    """
    buffer = BytesIO()
    metadata = {"contract": contract.name}
    check(frame, contract).write_parquet(buffer, compression="zstd", statistics=True, metadata=metadata)
    return buffer.getvalue()


def decode_table(data: bytes, contract: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The frame in a Parquet file, or some of its columns.

    Raises:
        ContractError: the file is under another contract, or one this version does not know, or no Parquet.
    """
    try:
        found = pl.read_parquet_metadata(BytesIO(data)).get("contract", "no contract")
        for name in (found, contract):
            if name not in CONTRACTS:
                raise ContractError(
                    name, "a contract that this version does not know", f"one of {', '.join(CONTRACTS)}"
                )
        if found != contract:
            raise ContractError(contract, f"a file under {found}", contract)
        return pl.read_parquet(BytesIO(data), columns=None if columns is None else list(columns))
    except pl.exceptions.PolarsError as error:
        raise ContractError(contract, "a file that cannot be read as such", "its Parquet table") from error
