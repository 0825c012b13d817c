"""Fixtures that several rooms share: an S3 server on loopback with a fresh bucket for each test."""

import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from candist_core.config import Location

# Read by torch's thread library when it loads; see flows/server.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Set for each of several test processes, these would be the size of every terminal that a test makes.
for _name in ("LINES", "COLUMNS"):
    os.environ.pop(_name, None)

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket."""

    name: str
    endpoint_url: str

    def at(self, path: str = "") -> Location:
        """A place in the bucket."""
        return Location(uri=f"s3://{self.name}/{path}".rstrip("/"), endpoint_url=self.endpoint_url)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A moto server for the whole session, on a free port of 127.0.0.1."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Test credentials, nothing of the user's own, and no file system of s3fs left from another test."""
    from s3fs import S3FileSystem

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    S3FileSystem.clear_instance_cache()
    return monkeypatch


@pytest.fixture
def bucket(s3_endpoint: str, aws_environment: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket, with credentials for it in the environment."""
    name = f"bucket-{next(_numbers)}"
    request = urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    return Bucket(name, s3_endpoint)
