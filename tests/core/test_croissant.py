"""Croissant descriptions are valid by MLCommons' own validator, and lead to the rows."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from candist_core.config import Location
from candist_core.edges.store import open_store
from tests.core.test_publish import ROWS, Run

# The validator's own libraries.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlcroissant"),
]


@pytest.fixture
def published(tmp_path):
    """Publish rows; the version's manifest and its folder."""

    def publish(rows=ROWS, **changes):
        target = open_store(Location(uri=str(tmp_path / "sets")))
        made = Run(open_store(Location(uri=str(tmp_path / "work"))), rows, **changes).publish(target)
        return made.manifest, Path(tmp_path, "sets", made.manifest.folder)

    return publish


def validated(folder):
    import mlcroissant

    return mlcroissant.Dataset(jsonld=folder / "croissant.json")


@pytest.mark.slow
def test_a_version_is_a_valid_croissant_whose_records_are_its_rows(published):
    manifest, folder = published(publish={"license": "cc-by-4.0", "language": ["en", "pt-BR"]})
    dataset = validated(folder)
    assert dataset.metadata.ctx.issues.errors == set()
    # Nobody has written a paper about these data that could be cited.
    assert [line for line in dataset.metadata.ctx.issues.warnings if "citeAs" not in line] == []
    records = list(dataset.records("test"))
    assert [(one["test/doc_id"], one["test/label"], one["test/candidates"]) for one in records] == [
        (b"r1", b"ham", [b"spam", b"ham"]), (b"r2", b"spam", [b"spam", b"ham"]),
    ]  # fmt: skip
    named = json.loads((folder / "croissant.json").read_text())
    assert named["version"] == f"0.0.0+{manifest.version}"
    assert (named["license"], named["inLanguage"]) == ("cc-by-4.0", ["en", "pt-BR"])


@pytest.mark.slow
def test_columns_and_splits_with_odd_names_stay_valid(published):
    rows = [row | {"split": "| a/b", "größe {x}": 1.5, "day": i} for i, row in enumerate(ROWS)]
    _, folder = published(rows)
    dataset = validated(folder)
    assert dataset.metadata.ctx.issues.errors == set()
    first = next(iter(dataset.records("a_b")))
    assert [value for name, value in first.items() if "column-" in name] == [1.5]


def test_the_description_tells_every_file_with_its_hash(published):
    manifest, folder = published()
    described = json.loads((folder / "croissant.json").read_text())
    objects = {one["@id"]: one["sha256"] for one in described["distribution"] if one["@type"] == "cr:FileObject"}
    for name, told in objects.items():
        assert sha256((folder / name).read_bytes()).hexdigest() == told
    people = {"README.md", "croissant.json"}
    assert set(objects) == {file.path for file in manifest.files} - people
