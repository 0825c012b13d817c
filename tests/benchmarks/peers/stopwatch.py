"""What both peer clients share: `python CLIENT URL ROWS IN_FLIGHT PROMPT` in, one line of JSON on stdout out.

Needs the standard library alone, since it runs in the virtual environments of the peers.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One labelling of `texts`: where requests go, how many at a time, what they say, where files may lie."""

    url: str
    in_flight: int
    model: str
    system: str
    sampling: Mapping[str, Any]
    response_format: Mapping[str, Any]
    texts: list[str]
    folder: Path


def time_client(label: Callable[[Job], int], environment: Mapping[str, str]) -> None:
    """Label one text to warm up, one by the clock, then `ROWS` texts by the clock.

    PROMPT is a file of JSON with `model`, `system`, `sampling`, `response_format` and `texts`. What is printed holds
    `wall_s` and `cpu_s` (seconds; the CPU of this process and of the children it has waited for), `rows_ok`, and the
    same two for the one text, `start_wall_s` and `start_cpu_s`: what a run costs however few its rows.

    Args:
        label: labels a job's texts and says how many got a readable reply. It imports its peer itself, so that the
            peer finds the environment and the imports are no part of the rate.
        environment: variables that the peer reads.
    """
    url, rows, in_flight, prompt = sys.argv[1:]
    shared = json.loads(Path(prompt).read_text())
    texts = shared.pop("texts")[: int(rows)]
    with tempfile.TemporaryDirectory() as home:
        # Caches, and the marks that peers leave in a home, go with the folder.
        os.environ.update(environment, HOME=home, HF_HOME=home, HF_HUB_OFFLINE="1", NO_PROXY="127.0.0.1")

        def timed(name: str, texts: list[str]) -> tuple[float, float, int]:
            started_at, used_s = time.perf_counter(), _cpu_s()
            rows_ok = label(Job(url, int(in_flight), **shared, texts=texts, folder=Path(home) / name))
            return time.perf_counter() - started_at, _cpu_s() - used_s, rows_ok

        timed("warm-up", ["warm up"])
        start_wall_s, start_cpu_s, _ = timed("start", ["warm up"])
        wall_s, cpu_s, rows_ok = timed("measured", texts)
    seconds = {"wall_s": wall_s, "cpu_s": cpu_s, "start_wall_s": start_wall_s, "start_cpu_s": start_cpu_s}
    print(json.dumps({**seconds, "rows_ok": rows_ok}))


def is_readable(reply: str | None) -> bool:
    """Whether a reply is JSON that holds candidates.

    Example:
        >>> is_readable('{"candidates": []}'), is_readable(None), is_readable("[1]"), is_readable("no")
        (True, False, False, False)
    """
    try:
        return isinstance(json.loads(reply or "")["candidates"], list)
    except (ValueError, KeyError, TypeError):
        return False


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in usages)
