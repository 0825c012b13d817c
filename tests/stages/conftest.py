"""The tiny network of the student's tests, and places to publish to."""

import pytest

from candist_core.config import Location
from tests.student.conftest import tiny_bert as tiny_bert


@pytest.fixture
def disk(tmp_path):
    return Location(uri=str(tmp_path / "sets"))


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def place(request):
    """A folder, and a bucket."""
    return request.getfixturevalue("disk") if request.param == "disk" else request.getfixturevalue("bucket").at("sets")
