"""A version in the words of MLCommons Croissant, which Google Dataset Search, Kaggle and loaders read.

Paths are relative to the version's folder, so that a copy of it is as good. Source: Croissant format specification
1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from candist_core.card import COLUMN_MEANINGS
from candist_core.config import RunConfig
from candist_core.manifest import Manifest, VersionFile

CROISSANT = "croissant.json"
"""Where it stands in a version's folder."""

_PARQUET = "application/x-parquet"
# The context that the specification gives, word for word (its section "Namespaces and context").
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def encode_croissant(config: RunConfig, manifest: Manifest, schema: Mapping[str, pl.DataType]) -> bytes:
    """The Croissant description of a version, as JSON-LD.

    Args:
        config: the run's.
        manifest: the version's, its number apart; its files are those of the data.
        schema: the columns of the data and their types.
    """
    tables = [file for file in manifest.files if file.path.startswith("data/")]
    by_split: dict[str, list[VersionFile]] = {}
    for file in tables:
        by_split.setdefault(file.path.removeprefix("data/").rpartition("-")[0], []).append(file)
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": config.dataset,
        "description": _description(config, manifest),
        "version": f"0.0.0+{manifest.version}",
        "datePublished": f"{manifest.created_at:%Y-%m-%d}",
        "keywords": ["candist", "candidate labels", "weak supervision", "text classification"],
        "distribution": [_file_object(file) for file in manifest.files] + [_file_set(name) for name in by_split],
        "recordSet": [_record_set(name, schema) for name in by_split],
    }
    if config.publish.license:
        described["license"] = config.publish.license
    if config.publish.language:
        described["inLanguage"] = list(config.publish.language)
    return json.dumps(described, ensure_ascii=False, indent=1).encode()


def _description(config: RunConfig, manifest: Manifest) -> str:
    return (
        f"{manifest.counts.rows:,} texts, each with one of {len(config.task.labels)} labels, the set of labels that "
        "the teacher held possible, and a confidence; labels distilled from candidate sets (CanDist, arXiv 2506.03857)."
    )


def _file_object(file: VersionFile) -> dict[str, Any]:
    is_table = file.path.endswith(".parquet")
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.size_bytes} B",
        "encodingFormat": _PARQUET if is_table else "application/octet-stream",
        "sha256": file.sha256,
    }


def _file_set(name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "encodingFormat": _PARQUET,
        "includes": f"data/{name}-*.parquet",
    }


def _record_set(name: str, schema: Mapping[str, pl.DataType]) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{_id_of(column, i)}",
            "name": f"{name}/{column}",
            "description": COLUMN_MEANINGS.get(column, "from the corpus"),
            "dataType": _data_type(dtype),
            "source": {"fileSet": {"@id": f"{name}-files"}, "extract": {"column": column}},
        }
        | ({"repeated": True} if isinstance(dtype, (pl.List, pl.Array)) else {})
        for i, (column, dtype) in enumerate(schema.items())
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/doc_id"}, "field": fields}


def _id_of(column: str, i: int) -> str:
    """A user's column may have any name; one that is no word has a number in its id."""
    return column if re.fullmatch(r"[\w.-]+", column, re.ASCII) else f"column-{i}"


def _data_type(dtype: pl.DataType) -> str:
    """The type of a column's values, in lists that of their members; what Croissant has no word for counts as text."""
    if isinstance(dtype, (pl.List, pl.Array)):
        return _data_type(dtype.inner)  # type: ignore[arg-type]
    if dtype.is_integer():
        return "sc:Integer"
    if dtype.is_float() or dtype.is_decimal():
        return "sc:Float"
    return {pl.Boolean: "sc:Boolean", pl.Date: "sc:Date", pl.Datetime: "sc:DateTime"}.get(type(dtype), "sc:Text")
