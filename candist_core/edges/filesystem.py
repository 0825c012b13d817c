"""Where a location lies: fsspec file systems, and their errors turned into one sentence.

A `Place` is a root inside a file system. Invariant: no listing is ever cached, so that one
process sees at once what another has written.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.exceptions import FSTimeoutError

from candist_core.config import Location
from candist_core.errors import BadInputError, CandistError, StoreError, TransientError
from candist_core.paths import check_relative

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_BLOCKED = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENETUNREACH}
# S3 answers some of these with a status below 500 (Amazon S3 API reference, "Error responses").
_PASSING_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestTimeTooSkewed"}
# How a bucket of another region answers: with a redirect, or that the signature is for a wrong region (the same page).
_ELSEWHERE = {
    "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException", "301", "307",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_CONNECT_S, _READ_S = 5, 30
_HAS_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Place:
    """A root inside a file system, and the location that the user wrote for it."""

    fs: Any
    root: str
    location: Location
    protocol: str

    @property
    def uri(self) -> str:
        """The root as the user wrote it."""
        return self.location.uri

    def path_of(self, path: str) -> str:
        """The file system's own name for a path below the root."""
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def uri_of(self, path: str) -> str:
        """What the user would write for one of the file system's own names below the root."""
        below = path[len(self.root.rstrip("/")) :].lstrip("/")
        between = "" if not below or self.uri.endswith("/") else "/"
        return f"{self.uri}{between}{below}"

    def find(self, path: str) -> dict[str, dict[str, Any]]:
        """What the file system knows of each file below one of its own names.

        Raises:
            OSError: the folder may not be listed; fsspec alone would give an empty listing on disk.
        """
        refuse = {"on_error": _refuse_gaps} if self.protocol == "file" else {}
        found: dict[str, dict[str, Any]] = self.fs.find(path, detail=True, **refuse)
        return found

    @property
    def local_root(self) -> Path | None:
        """The root as a path of this machine, if it is one."""
        return Path(self.root) if self.protocol in ("file", "package") else None


def open_place(location: Location, error: type[BadInputError] = StoreError) -> Place:
    """Find the file system of a location; nothing is made, read or written.

    Args:
        location: a path, `file://`, `s3://` (credentials by AWS's usual chain), `memory://`,
            `package://name/path` (files that ship with an installed package, read only), or any other
            URL for which fsspec has a file system.
        error: which kind of error tells of a mistake in the location.
    """
    uri = location.uri
    if _HAS_PASSWORD.search(uri) or _HAS_PASSWORD.search(location.endpoint_url or ""):
        raise error(
            "a location", "a password in its URL", "a URL without one", "use the environment or a profile for secrets"
        )
    protocol, mark, rest = uri.partition("://")
    if not mark or protocol == "file":
        plain = uri if not mark else rest
        return Place(fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(plain)), location, "file")
    if protocol == "package":
        return Place(fsspec.filesystem("file"), _package_path(rest, uri, error), location, protocol)
    if protocol in ("s3", "s3a"):
        if not rest.strip("/"):
            raise error(f"location {uri}", "no bucket", "s3://bucket/folder", "name the bucket")
        with told(f"location {uri}", error):
            return Place(fsspec.filesystem("s3", **_s3_options(location)), rest.strip("/"), location, "s3")
    try:
        fs = fsspec.filesystem(protocol)
    except (ImportError, ValueError) as cause:
        raise error(
            f"location {uri}", f"the protocol {protocol!r}, which is not to be had here",
            "a path, file://, s3://, memory:// or package://", "correct the URL or install the fsspec package for it",
        ) from cause  # fmt: skip
    return Place(fs, str(fs._strip_protocol(uri)), location, protocol)


def _s3_options(location: Location) -> dict[str, Any]:
    options: dict[str, Any] = {
        "use_listings_cache": False,
        # s3fs tries each call up to five times by itself, and tasks try again above that; with botocore's own
        # defaults a store that does not answer would hold a worker for half an hour.
        "config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 1}},
    }
    if location.endpoint_url:
        options["endpoint_url"] = location.endpoint_url
    if location.region:
        options["client_kwargs"] = {"region_name": location.region}
    if location.profile:
        options["profile"] = location.profile
    return options


def _refuse_gaps(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _package_path(rest: str, uri: str, error: type[BadInputError]) -> str:
    from importlib.util import find_spec

    package, _, inner = rest.partition("/")
    # A name without dots is found without importing anything: a URL must not run code.
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise error(f"location {uri}", f"no package {package!r}", "an installed package", "correct the URL")
    folder = next(iter(spec.submodule_search_locations))
    return os.path.join(folder, check_relative(inner, error)) if inner else folder


@contextmanager
def told(thing: str, kind: type[BadInputError]) -> Iterator[None]:
    """Turn what a file system raises inside the block into one sentence, or into a `TransientError`."""
    try:
        yield
    except CandistError:
        raise
    except (OSError, ValueError, _botocore_error()) as error:
        raise explain(error, thing, kind) from error


def explain(error: Exception, thing: str, kind: type[BadInputError]) -> CandistError:
    """Say what a file system's error means for the user; by type, errno, status and code alone."""
    status, code = http_answer(error)
    if _is_passing(error, status, code):
        found = f"the answer {code or status}" if status is not None else f"no answer ({_word(error)})"
        return TransientError(
            thing, f"found {found}, wanted it done; check that it can be reached, and run again later"
        )
    if code == "NoSuchBucket":
        return kind(thing, "no bucket of that name", "an existing bucket", "create it or correct the URL")
    if (region := _bucket_region(error)) or code in _ELSEWHERE:
        where = f" {region!r}" if region else ""
        return kind(thing, f"a bucket of another region ({code})", f"its own region{where}", "set the region")
    if code in _EXPIRED:
        return kind(thing, f"credentials that have expired ({code})", "valid ones", "renew them")
    if isinstance(error, FileNotFoundError):
        return kind(thing, "nothing there", "something to read", "correct the path or URL")
    if _is_credential_error(error):
        return kind(
            thing, f"no usable credentials ({type(error).__name__})", "credentials for the bucket",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role",
        )  # fmt: skip
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError) or number in _FORBIDDEN:
        found = f"access denied ({code})" if code else f"{_word(error)}"
        return kind(thing, found, "the right to read and write there", "grant it or choose another place")
    if number in _FULL:
        return kind(thing, _word(error), "room to write", "free some space or choose another place")
    if number in _BLOCKED and code is None:
        return kind(thing, f"a file in the way ({_word(error)})", "a folder", "move the file or choose another place")
    return kind(thing, code or _word(error), "a place that can be read and written", "correct the path or URL")


def _bucket_region(error: BaseException | None) -> str | None:
    """The region that the store named because the request went to another one."""
    while error is not None:
        if isinstance(response := getattr(error, "response", None), dict):
            meta = response.get("ResponseMetadata", {})
            if meta.get("HTTPStatusCode") in (301, 307, 400):
                named = meta.get("HTTPHeaders", {}).get("x-amz-bucket-region") or response.get("Error", {}).get(
                    "Region"
                )
                return str(named) if named else None
        error = error.__cause__
    return None


def http_answer(error: BaseException | None) -> tuple[int | None, str | None]:
    """HTTP status and code of the answer that lies behind an error, if one does.

    s3fs raises Python's own errors from botocore's; which Python error differs between stores for one
    and the same status, so the answer is what counts.
    """
    while error is not None:
        if isinstance(response := getattr(error, "response", None), dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, response.get("Error", {}).get("Code")
        error = error.__cause__
    return None, None


def _is_passing(error: Exception, status: int | None, code: str | None) -> bool:
    if status is not None:
        return status >= 500 or status == 429 or code in _PASSING_CODES
    if isinstance(error, (ConnectionError, TimeoutError, FSTimeoutError)) or getattr(error, "errno", None) in _PASSING:
        return True
    if "botocore" not in sys.modules:
        return False
    from botocore import exceptions

    return isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError))


def _is_credential_error(error: Exception) -> bool:
    if "botocore" not in sys.modules:
        return False
    from botocore import exceptions as boto

    return isinstance(
        error,
        (
            boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError,
            boto.ProfileNotFound, boto.SSOError, boto.NoAuthTokenError, boto.ConfigParseError,
        ),
    )  # fmt: skip


def _botocore_error() -> type[Exception]:
    # botocore is loaded by s3fs alone; where it is not loaded it cannot raise.
    if "botocore" not in sys.modules:
        return OSError
    from botocore.exceptions import BotoCoreError

    return BotoCoreError  # type: ignore[no-any-return]


def _word(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) else type(error).__name__
