"""What other labelling tools cost, measured as `bench_annotate` measures candist, in the same columns.

`python -m tests.benchmarks.bench_peers` makes a virtual environment for each peer (once, from a package index), starts
the same loopback server in a process of its own, and runs the peers in turn, each with the same model, system message,
sampling and schema, and the bare text as the user message.

- rows/s and CPU: of a whole run after a warm-up, counting rows with a readable reply alone; the notes below the table
  tell what of it a run of one text takes already, and at what rate the other rows come;
- requests: all that the server saw, two one-text runs before and each peer's own questions included.

How each peer is set stands in `peers/*_client.py`; what it is installed from, in `peers/*.txt`.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from candist_core.prompt import compile_prompt
from candist_core.teacher_config import TeacherConfig
from tests.benchmarks.bench_annotate import SPEC, serve, texts_of

PEERS = {"curator": "curator 0.1.31", "distilabel": "distilabel 1.5.3"}
CASES = ["slow_tail", "random_429", "rpm_cap", "poison"]
_HERE = Path(__file__).parent / "peers"

Command = Sequence[str | Path]


class PeerError(Exception):
    """A peer could not be installed or did not bring a run to its end."""


@dataclass(frozen=True)
class Run:
    """One run of a peer, times in seconds; `start_*` are those of a run of one text."""

    wall_s: float
    cpu_s: float
    start_wall_s: float
    start_cpu_s: float
    rows_ok: int
    requests: int = 0


def python_of(peer: str, venvs: Path) -> Path:
    """The interpreter of a peer's virtual environment, which is made if it is missing."""
    folder = (venvs / peer).absolute()
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"installing {PEERS[peer]} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, symlinks=True, with_pip=True)
        log = folder / "pip.log"
        install: Command = [python, "-m", "pip", "install", "--quiet", "--log", log, "-r", _HERE / f"{peer}.txt"]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            raise PeerError(f"{PEERS[peer]} could not be installed; {log} says why")
        ready.touch()
    return python


@contextmanager
def serving(latency_s: float, case: str | None) -> Iterator[tuple[str, Connection]]:
    """The server of `bench_annotate` in a process of its own: its URL, and the pipe that tells its requests."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (latency_s, theirs) if case is None else (latency_s, theirs, case)
    server = multiprocessing.Process(target=serve, args=arguments, daemon=True)
    server.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send(False)
        server.join(timeout=10)


def write_prompt(path: Path, rows: int) -> None:
    """What a peer is to send, as JSON; the texts are those of `bench_annotate`."""
    head = compile_prompt(SPEC, TeacherConfig()).head
    shared = {"model": head.model, "system": head.system, "sampling": head.sampling}
    path.write_text(json.dumps({**shared, "response_format": head.response_format, "texts": texts_of(rows)}))


def measure(command: Command, timeout_s: float) -> Run:
    """Run a peer's client to its end, in a process group of its own so that nothing it starts is left.

    Raises:
        PeerError: it ended in an error, without one readable row, or not within `timeout_s`.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as client:
        try:
            printed, complaints = client.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise PeerError(f"no end after {timeout_s:.0f} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(client.pid, signal.SIGKILL)
    if client.returncode:
        raise PeerError(f"exit code {client.returncode}: {(complaints.strip() or 'no word').splitlines()[-1][:200]}")
    run = Run(**json.loads(printed.splitlines()[-1]))
    if not run.rows_ok:
        raise PeerError("no row came out readable")
    return run


def measure_in_turn(
    commands: Mapping[str, Command], counter: Connection, runs: int, timeout_s: float
) -> dict[str, list[Run | PeerError]]:
    """Run each peer's command `runs` times, one peer after the other, and ask the server for its requests each time."""
    results: dict[str, list[Run | PeerError]] = {peer: [] for peer in commands}
    for _ in range(runs):
        for peer, command in commands.items():
            try:
                run: Run | PeerError = measure(command, timeout_s)
            except PeerError as error:
                run = error
            counter.send(True)
            requests = counter.recv()
            results[peer].append(replace(run, requests=requests) if isinstance(run, Run) else run)
    return results


def row_of(in_flight: int, name: str, runs: Sequence[Run]) -> str:
    """A line of the table: medians, and dashes where no run came to its end.

    Example:
        >>> row_of(64, "peer 1.0", [Run(4.0, 1.0, 0.5, 0.25, 1000, 1002)])
        '| 64 | peer 1.0 | 250 | 1.00 | 1002 |'
    """
    if not runs:
        return f"| {in_flight} | {name} | - | - | - |"
    rate = statistics.median(run.rows_ok / run.wall_s for run in runs)
    cost = statistics.median(1000 * run.cpu_s / run.rows_ok for run in runs)
    requests = statistics.median(run.requests for run in runs)
    return f"| {in_flight} | {name} | {rate:.0f} | {cost:.2f} | {requests:.0f} |"


def start_of(runs: Sequence[Run]) -> str:
    """What of the runs is their start, and what they do beyond it: medians.

    Example:
        >>> start_of([Run(4.0, 1.25, 1.5, 0.25, 1001)])
        '1 text takes 1.50 s and 0.25 CPU s; the others then come at 400 rows/s and 1.00 CPU s / 1,000 rows'
    """
    start_wall_s = statistics.median(run.start_wall_s for run in runs)
    start_cpu_s = statistics.median(run.start_cpu_s for run in runs)
    rate = statistics.median((run.rows_ok - 1) / (run.wall_s - run.start_wall_s) for run in runs)
    cost = statistics.median(1000 * (run.cpu_s - run.start_cpu_s) / (run.rows_ok - 1) for run in runs)
    return (
        f"1 text takes {start_wall_s:.2f} s and {start_cpu_s:.2f} CPU s; "
        f"the others then come at {rate:.0f} rows/s and {cost:.2f} CPU s / 1,000 rows"
    )


def notes_of(rows: int, case: str | None, results: Sequence[Run | PeerError]) -> list[str]:
    """What the columns cannot tell: the start of a run, rows lost, runs that came to no end.

    Example:
        >>> notes_of(1000, "poison", [Run(4.0, 1.25, 1.5, 0.25, 936), PeerError("no end after 600 s")])
        ['run 1: 64 of 1000 rows lost', 'run 2: no end after 600 s']
    """
    notes = []
    for number, result in enumerate(results, 1):
        if isinstance(result, PeerError):
            notes.append(f"run {number}: {result}")
        elif result.rows_ok < rows:
            notes.append(f"run {number}: {rows - result.rows_ok} of {rows} rows lost")
    runs = [result for result in results if isinstance(result, Run)]
    # A fault may meet the one text of the start, and short runs differ from it by noise alone.
    if case is None and runs and rows >= 100:
        notes.append(start_of(runs))
    return notes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=Path(".peers"), help="where the virtual environments are kept")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--case", choices=CASES, help="what the server does to its clients; nothing if left out")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="longest run of one peer (s)")
    return parser.parse_args()


def main() -> None:
    """Parse the arguments, measure in turn, print the table and then its notes."""
    options = _options()
    pythons = {peer: python_of(peer, options.venvs) for peer in options.peers}
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder, serving(options.latency_s, options.case) as (url, counter):
        prompt = Path(folder) / "prompt.json"
        write_prompt(prompt, options.rows)
        print("| in flight | client | rows/s | CPU s / 1,000 rows | requests |\n|---|---|---|---|---|")
        for in_flight in options.in_flight:
            commands: dict[str, Command] = {
                peer: [python, _HERE / f"{peer}_client.py", url, str(options.rows), str(in_flight), prompt]
                for peer, python in pythons.items()
            }
            for peer, results in measure_in_turn(commands, counter, options.runs, options.timeout_s).items():
                print(row_of(in_flight, PEERS[peer], [run for run in results if isinstance(run, Run)]), flush=True)
                noted = notes_of(options.rows, options.case, results)
                notes += [f"- {in_flight} in flight, {PEERS[peer]}: {text}" for text in noted]
    print("", *notes, sep="\n")
    kept = {name: getattr(options, name) for name in ("rows", "latency_s", "runs", "case")}
    print(json.dumps(kept))


if __name__ == "__main__":
    main()
