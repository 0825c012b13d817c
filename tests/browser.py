"""A headless Chromium for tests of pages: the system's, or the one that Playwright installed."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_playwright() as playwright:
        found = next((path for name in names if (path := shutil.which(name))), playwright.chromium.executable_path)
        if not Path(found).exists():
            how = "no Chromium here: `apt-get install chromium` or `.venv/bin/playwright install chromium`"
            # Where the tests stand guard for everyone, a missing browser is a fault and no excuse.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(how)
        # Without a sandbox because root, as in a container, has none; the page is the test's own.
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
