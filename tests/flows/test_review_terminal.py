"""`candist review VERSION` through a pseudo-terminal: keys in, screen out, killed and gone on with."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from candist_core.edges.answer_file import open_answers
from tests.versions import label_row, publish_rows

pytestmark = pytest.mark.slow

WAIT_S = 60
NAMES = ["amber", "birch", "cedar", "delta"]


def _take_terminal() -> None:
    """In the child: make the terminal its own, and Ctrl-C what it is where nobody ignores it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminal:
    """A command on a terminal of its own; `screen` is what was written since the screen was last cleared."""

    def __init__(self, folder: Path, *arguments: object, lines: int = 24) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
            preexec_fn=_take_terminal,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"},
        )  # fmt: skip
        # Kept open: its settings are looked at when the command has ended.
        self._theirs, self.output = theirs, b""

    @property
    def screen(self) -> str:
        return self.output.rpartition(b"\x1b[2J\x1b[H")[2].decode(errors="replace")

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while words not in self.screen:
            assert time.monotonic() < deadline, f"no {words!r} on the screen:\n{self.screen}"
            self._read(0.1)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Wait for the command to end, reading on: it waits until what it wrote is read."""
        deadline = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        code = self.process.wait(timeout=1)
        while self._read(0):
            pass
        self.after = termios.tcgetattr(self._theirs)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        os.close(self._fd)
        os.close(self._theirs)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._fd], [], [], wait_s)[0]:
            return False
        self.output += os.read(self._fd, 65536)
        return True


@pytest.fixture
def review(tmp_path):
    """Start a review of a version in a terminal; ended at the end of the test, whatever comes."""
    terminals = []

    def start(version, **options):
        arguments = ("review", version, "--random-share", "0", "--out", "mine.jsonl")
        terminals.append(Terminal(tmp_path, *arguments, **options))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def version(tmp_path):
    rows = [label_row(f"d{i}", f"{name} text", "a", 0.1 * (i + 1), "b") for i, name in enumerate(NAMES)]
    rows[1]["text"] = "birch \x1b[31mred\x1b]0;owned\x07 [bold]"
    publish_rows(tmp_path / "published", rows, ["a", "b", "third one"])
    return "published/mails"


def answers_in(path):
    with open_answers(path) as answers:
        return answers.given


def test_a_person_answers_skips_takes_back_types_and_quits(tmp_path, version, review):
    terminal = review(version)
    terminal.wait_for("amber text")
    assert "0 of 4 answered" in terminal.screen
    terminal.press("2")
    terminal.wait_for("1 of 4 answered")
    terminal.wait_for("birch \\x1b[31mred\\x1b]0;owned\\x07 [bold]")
    assert b"owned\x07" not in terminal.output
    terminal.press("\x1b[A1")
    terminal.wait_for("2 of 4 answered")
    terminal.press("u")
    terminal.wait_for("taken back")
    assert "birch" in terminal.screen
    terminal.press("s/third")
    terminal.wait_for("label: third")
    terminal.press("\r")
    terminal.wait_for("third one: kept")
    terminal.press("q")
    assert terminal.end() == 0
    assert "2 of 4 texts answered, in mine.jsonl" in terminal.screen
    assert answers_in(tmp_path / "mine.jsonl") == {"d0": "b", "d2": "third one"}
    assert terminal.after == terminal.before


def test_a_review_that_is_killed_goes_on_where_it_was(tmp_path, version, review):
    terminal = review(version)
    terminal.wait_for("amber text")
    terminal.press("12")
    terminal.wait_for("2 of 4 answered")
    terminal.process.send_signal(signal.SIGKILL)
    assert terminal.end() == -signal.SIGKILL
    path = tmp_path / "mine.jsonl"
    # As if the kill had come in the middle of a line.
    path.write_bytes(path.read_bytes() + b'{"doc_id": "d2", "te')
    terminal = review(version)
    terminal.wait_for("cedar text")
    assert "2 of 4 answered" in terminal.screen
    terminal.press("u")
    terminal.wait_for("taken back")
    assert "birch" in terminal.screen
    terminal.press("111")
    terminal.wait_for("all texts are answered")
    terminal.press("\x04")
    assert terminal.end() == 0
    assert answers_in(path) == {"d0": "a", "d1": "a", "d2": "a", "d3": "a"}
    assert [json.loads(line)["label"] for line in path.read_text().splitlines()] == ["a", "b", None, "a", "a", "a"]


def test_ctrl_c_keeps_the_answers_and_gives_the_terminal_back_as_it_was(tmp_path, version, review):
    terminal = review(version)
    terminal.wait_for("amber text")
    terminal.press("1")
    terminal.wait_for("1 of 4 answered")
    terminal.press("\x03")
    assert terminal.end() == 130
    assert "interrupted" in terminal.screen
    assert terminal.after == terminal.before
    assert answers_in(tmp_path / "mine.jsonl") == {"d0": "a"}


def test_a_long_text_is_read_page_by_page(tmp_path, review):
    text = "\n".join(f"line {i}" for i in range(40))
    publish_rows(tmp_path / "published", [label_row("d", text, "a")], ["a", "b"])
    terminal = review("published/mails", lines=20)
    terminal.wait_for("page 1 of")
    assert "line 0" in terminal.screen
    assert "line 39" not in terminal.screen
    assert len(terminal.screen.splitlines()) <= 20
    for page in range(2, 6):
        terminal.press("m")
        terminal.wait_for(f"page {page} of")
        if "line 39" in terminal.screen:
            break
    assert "line 39" in terminal.screen
    terminal.press("q")
    assert terminal.end() == 0
