"""The examples run as a reader would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments, cwd):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_run_from_python_publishes_a_version_that_every_tool_reads(tmp_path):
    said = run("label_in_python.py", tmp_path / "made", cwd=tmp_path)
    assert said.startswith(f"version 1 at {tmp_path}/made/published/messages")
    assert all(label in said for label in ("delivery", "refund", "login"))
    table = run("read_version.py", tmp_path / "made/published/messages", cwd=tmp_path)
    assert "shape: (3, 3)" in table


def test_every_example_is_tried_here():
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []
