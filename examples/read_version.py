"""Read a published version with polars, and with DuckDB as a tool that knows nothing of candist.

    python examples/read_version.py published/support-intents

prints how many texts each label has that may be used without a look, and how many want one.
"""

import sys

import polars as pl

import candist_core as candist


def counts(version: str) -> pl.DataFrame:
    """label, n texts that need no review, and the rest; only the columns named are read."""
    labels = candist.load(version).select("label", "needs_review")
    sure = (~pl.col("needs_review")).sum().alias("sure")
    return labels.group_by("label").agg(sure, pl.col("needs_review").sum().alias("to_review")).sort("label").collect()


def counts_by_sql(version: str) -> list[tuple[str, int, int]]:
    """The same from the Parquet files alone."""
    import duckdb

    folder = candist.find_version(candist.Location(uri=version)).uri
    query = (
        f"SELECT label, count(*) FILTER (NOT needs_review), count(*) FILTER (needs_review) "
        f"FROM '{folder}/data/*.parquet' GROUP BY label ORDER BY label"
    )
    return duckdb.sql(query).fetchall()


if __name__ == "__main__":
    found = counts(sys.argv[1])
    assert found.rows() == counts_by_sql(sys.argv[1])
    print(found)
