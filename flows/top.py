"""`candist top`: a run as it goes on, from any machine that reaches its store; read from done-markers alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.box import ROUNDED
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from candist_core.config import RunConfig
from candist_core.stages.status import RunStatus, status_of_run

# Looking costs the store a question for every shard: it takes a tenth of the time at most.
_LOOK_SHARE = 0.1
_MINUTE_S = 60.0


@dataclass
class Pace:
    """How fast each stage goes, from what was seen since the watching began.

    Example:
        >>> pace = Pace()
        >>> pace.see("annotate", done=10, at_s=0.0), pace.see("annotate", done=16, at_s=30.0)
        (None, None)
        >>> pace.per_min("annotate"), pace.left_s("annotate", total=40)
        (12.0, 120.0)
    """

    first: dict[str, tuple[int, float]] = field(default_factory=dict)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)

    def see(self, stage: str, done: int, at_s: float) -> None:
        """Note how far a stage is at a moment."""
        self.first.setdefault(stage, (done, at_s))
        self.last[stage] = (done, at_s)

    def per_min(self, stage: str) -> float | None:
        """Units a minute; None before anything has changed."""
        (done, since_s), (now, now_s) = self.first[stage], self.last[stage]
        return (now - done) * _MINUTE_S / (now_s - since_s) if now > done and now_s > since_s else None

    def left_s(self, stage: str, total: int) -> float | None:
        """Seconds until a stage is done at this rate; None where there is none."""
        rate = self.per_min(stage)
        return (total - self.last[stage][0]) * _MINUTE_S / rate if rate else None


def table_of(config: RunConfig, state: RunStatus, pace: Pace) -> Table:
    """The run at one moment."""
    usage = state.usage
    spent = f"{usage.n_requests:,} replies, ${usage.total_usd:.4f}"
    versions = ", ".join(map(str, state.versions)) or "none yet"
    table = Table(box=ROUNDED, title=Text(config.name), title_justify="left", caption=f"{spent} · versions: {versions}")
    for column in ("stage", "", "done", "a minute", "left"):
        table.add_column(column, justify="right" if column in ("a minute", "left") else "left")
    for stage in state.stages:
        rate, left_s = pace.per_min(stage.stage), pace.left_s(stage.stage, stage.total)
        is_open = stage.done < stage.total
        table.add_row(
            stage.stage,
            ProgressBar(total=max(stage.total, 1), completed=stage.done, width=24),
            f"{stage.done:,} of {stage.total:,} {stage.unit}" if stage.total else "waits for what is above",
            f"{rate:,.1f}" if rate and is_open else "",
            _clock(left_s) if left_s is not None and is_open else "",
        )
    for name in state.failed_checks:
        table.add_row("", "", Text(f"check failed: {name}", style="red"), "", "")
    return table


def watch_run(
    console: Console,
    config: RunConfig,
    every_s: float,
    look: Callable[[RunConfig], RunStatus] = status_of_run,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Draw a run again and again until its last stage is done; where nobody can see it move, once.

    Args:
        console: where.
        config: of the run.
        every_s: seconds between two looks, more where looking takes long.
        look: how the state is found.
        clock: seconds.
        wait: for seconds.
    """
    pace = Pace()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began_s = clock()
            state = look(config)
            for stage in state.stages:
                pace.see(stage.stage, stage.done, clock())
            live.update(table_of(config, state, pace), refresh=True)
            last = state.stages[-1]
            if not console.is_terminal or (last.total and last.done >= last.total):
                return
            wait(max(every_s, (clock() - began_s) / _LOOK_SHARE))


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> _clock(3725.0)
        '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
