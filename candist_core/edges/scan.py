"""Parquet files in a store as a polars LazyFrame: read by polars itself, by range, and only what a query needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any
from urllib.parse import urlsplit

import polars as pl

from candist_core.edges.filesystem import explain, told
from candist_core.edges.store import Store
from candist_core.errors import StoreError, TransientError


def scan_tables(store: Store, paths: Sequence[str]) -> pl.LazyFrame:
    """Scan Parquet files of one schema, in this order. On `s3://` and on disk nothing is read before `collect`.

    Credentials and endpoint are those of the store's own client. Elsewhere the files are brought into memory first.

    Raises:
        StoreError: no usable credentials; a file that is gone, where it has to be read first.
    """
    place = store.place
    if place.protocol == "file":
        return pl.scan_parquet([place.path_of(path) for path in paths], glob=False)
    if place.protocol != "s3":
        files: list[IO[bytes]] = [BytesIO(store.read_bytes(path)) for path in paths]
        return pl.scan_parquet(files)
    with told(f"store {store.uri}", StoreError):
        options = _s3_options(place.fs)
    return pl.scan_parquet(
        [f"s3://{place.path_of(path)}" for path in paths],
        glob=False,
        storage_options=options,
        credential_provider=pl.CredentialProviderAWS(profile_name=place.location.profile),
    )


@contextmanager
def told_rows(thing: str) -> Iterator[None]:
    """Turn what polars raises while it reads a version's rows into one sentence, or into a `TransientError`.

    By then their sizes or hashes have been compared. Where it was hashes, a file that cannot be read is a store that
    failed meanwhile; where it was sizes, it may be one with other bytes than were published.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        # Of bytes that are no longer what was written polars raises any of these, a panic of its Rust code included.
        if isinstance(error, (FileNotFoundError, PermissionError)) or getattr(error, "errno", None) is not None:
            raise explain(error, thing, StoreError) from error
        # polars gives no number, status or code for what went wrong with a request.
        raise TransientError(
            thing, "found a reading that broke off, wanted its rows; run again later, or see candist verify"
        ) from error


def read_metadata(store: Store, path: str) -> dict[str, str]:
    """The key-value metadata in a Parquet file's footer, read without the rest of the file.

    Raises:
        StoreError: no such file, or no Parquet.
    """
    thing = f"store {store.uri}, object {path}"
    try:
        with told(thing, StoreError), store.place.fs.open(store.place.path_of(path), "rb") as file:
            return pl.read_parquet_metadata(file)
    except pl.exceptions.PolarsError as error:
        raise StoreError(thing, "a file that cannot be read as such", "Parquet", "see candist verify") from error


def _s3_options(fs: Any) -> dict[str, str]:
    """The endpoint and the region that s3fs found, in the words of polars."""
    meta = fs.s3.meta
    options = {"region": meta.region_name} if meta.region_name else {}
    # Amazon's own address is left to polars, which knows a bucket's region by asking.
    if not (urlsplit(meta.endpoint_url).hostname or "").endswith(".amazonaws.com"):
        options["endpoint_url"] = meta.endpoint_url
        if meta.endpoint_url.startswith("http://"):
            options["allow_http"] = "true"
    return options
