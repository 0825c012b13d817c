"""Asking again: which texts of earlier versions are still in doubt.

Versions are named by their ids and never change, so the same settings ask about the same texts, on any machine.
"""

from functools import lru_cache

import polars as pl

from candist_core.config import PublishConfig, ReaskConfig, RunConfig
from candist_core.errors import ConfigError, StoreError
from candist_core.stages.publish import open_publish_store
from candist_core.stages.versions import Version, scan_version
from candist_core.versions import read_manifest


def with_reask(config: RunConfig) -> RunConfig:
    """The same run, asking again about what wants review in the latest version.

    Texts that an earlier version asked about again are asked so again, which is free: their replies are kept. Else
    what its second answers settled would be in doubt once more.

    Raises:
        StoreError: nothing is published yet.
        ConfigError: no reviewed texts that could be examples.
    """
    if config.audit.uri is None:
        step = "review some texts and set audit.uri to the file, see `candist review`"
        raise ConfigError("--reask", "no reviewed texts", "some as examples for the teacher", step)
    latest = read_manifest(open_publish_store(config), config.dataset)
    earlier = ReaskConfig.model_validate(latest.config.get("reask") or {}).versions
    versions = tuple(dict.fromkeys([*config.reask.versions, *earlier, latest.version]))
    return config.model_copy(update={"reask": ReaskConfig(versions=versions)})


def doubtful_ids(config: RunConfig) -> pl.Series:
    """doc_ids of all rows that want review in one of the versions of `config.reask`.

    Raises:
        ConfigError: the data set has no such version.
    """
    return _doubtful_ids(config.publish, config.dataset, config.reask.versions)


# One reading for all shards that a worker annotates.
@lru_cache(maxsize=1)
def _doubtful_ids(publish: PublishConfig, dataset: str, versions: tuple[str, ...]) -> pl.Series:
    store = open_publish_store(publish)
    found = []
    for version in versions:
        try:
            manifest = read_manifest(store, dataset, version)
        except StoreError as error:
            raise ConfigError(f"reask.versions {version}", error.found, error.wanted, "correct the id") from error
        rows = scan_version(Version(manifest, store), verify=True)
        found.append(rows.filter("needs_review").select("doc_id").collect()["doc_id"])
    return pl.concat(found).unique()
