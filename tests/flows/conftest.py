"""One Prefect server for all flow tests of a session."""

from collections.abc import Iterator

import pytest

from flows.server import private_server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with private_server(tmp_path_factory.mktemp("prefect")) as url:
            yield url
