"""The documentation builds without a warning, quotes sentences that are there, and needs no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from candist_core.config import parse_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with every warning an error: dead links, anchors, pages that no menu names, names that do not exist."""
    out = tmp_path_factory.mktemp("site")
    # Material tells every build of its successor.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    return out


@pytest.mark.slow
def test_every_setting_command_and_function_has_its_entry(site):
    import candist_core
    from candist_core.config import RunConfig

    def settings(model, path=""):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                yield from settings(inner, f"{path}{name}.")
            elif not hasattr(field.annotation, "__args__"):
                yield path + name

    page = (site / "reference/configuration/index.html").read_text()
    assert [name for name in settings(RunConfig) if f"<code>{name}</code>" not in page] == []
    page = (site / "reference/cli/index.html").read_text()
    assert [name for name in ("run", "estimate", "review", "gc") if f"candist {name}" not in page] == []
    page = (site / "reference/python/index.html").read_text()
    homes = candist_core._HOMES
    assert [name for name in homes if f'id="candist_core.{homes[name]}.{name}"' not in page] == []


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    fetched = re.compile(r"""<(?:script|img|link|iframe)[^>]+(?:src|href)=["']?(https?:)?//""")
    canonical = re.compile(r'<link rel="?canonical"?[^>]*>')
    assert [page.name for page in pages if fetched.search(canonical.sub("", page.read_text()))] == []


def test_troubleshooting_quotes_sentences_of_the_code():
    code = "".join(
        path.read_text(encoding="utf-8")
        for room in ("candist_core", "flows", "tasks")
        for path in (ROOT / room).rglob("*.py")
    )
    quotes = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quotes) > 20
    # ", wanted " stands between two arguments of an error.
    pieces = [piece.strip() for quote in quotes for piece in re.split(r"…|, wanted ", quote)]
    assert [piece for piece in pieces if piece and piece not in code] == []


def test_every_page_that_the_readme_names_is_there():
    named = set(re.findall(r"docs/[\w/]+\.(?:md|png|py)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_file_on_the_page_about_your_own_corpus_is_a_configuration():
    page = (ROOT / "docs/corpus.md").read_text(encoding="utf-8")
    (whole,) = [block for block in re.findall(r"```yaml\n(.+?)```", page, re.DOTALL) if block.startswith("name:")]
    assert parse_config(yaml.safe_load(whole)).task.label_names == ("praise", "complaint")
    other = whole.replace("kind: zeroshot", "#").replace("# kind", "kind").replace("# model", "model")
    assert parse_config(yaml.safe_load(other)).teacher.kind == "openai"
