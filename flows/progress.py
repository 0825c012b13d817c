"""What a person sees while a run goes on: bars on a terminal, progress artifacts in Prefect.

Events come from any thread and only update numbers; the flow's own thread calls `tick`, which speaks to Prefect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from candist_core.edges.report.words import duration
from candist_core.ports import Progress as StageProgress
from tasks.logs import logged_about

# Prefect takes tens of milliseconds for one artifact; a person looks every few seconds.
_ARTIFACT_EVERY_S = 3.0
_console: Console | None = None


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Draw the progress of flows in this process on a console."""
    global _console
    _console = console
    try:
        yield
    finally:
        _console = None


@dataclass(frozen=True)
class StageNumbers:
    """How far a stage has come, for those who watch from outside."""

    stage: str
    done: int
    total: int
    unit: str
    cost_usd: float
    seconds: float


class Observer(Protocol):
    """Whoever is told of stages and groups of shards as they come and go; in the flow's own thread."""

    def stage_began(self, stage: StageNumbers) -> None:
        """A stage begins."""

    def stage_ended(self, stage: StageNumbers) -> None:
        """It has ended well."""

    def group_ended(self, name: str, n_shards: int, n_failed: int, seconds: float) -> None:
        """A group of shards has come back."""


@dataclass
class _Stage:
    """One stage's numbers. `parts` maps a shard to how far it is, so that a retry does not count twice."""

    name: str
    total: int
    unit: str
    bar: TaskID | None
    artifact: UUID | None
    parts: dict[str, StageProgress] = field(default_factory=dict)
    base: int = 0
    shown_at: float = 0.0
    heard: int = 0
    cost_usd: float = 0.0
    began_at: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    @property
    def done(self) -> int:
        return self.base + self.heard

    def take(self, progress: StageProgress) -> None:
        """Count a shard anew; of a hundred thousand shards the others need not be looked at."""
        before = self.parts.get(progress.part)
        self.parts[progress.part] = progress
        self.heard += progress.done - (before.done if before else 0)
        self.cost_usd += progress.cost_usd - (before.cost_usd if before else 0.0)

    def numbers(self) -> StageNumbers:
        """The stage as it stands."""
        seconds = time.monotonic() - self.began_at if self.seconds is None else self.seconds
        return StageNumbers(self.name, self.done, self.total, self.unit, self.cost_usd, seconds)


class Watch:
    """Follows one run, one stage at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage: _Stage | None = None
        self._console = _console
        self._bars: Progress | None = None
        self._stages: list[_Stage] = []
        self.observers: list[Observer] = []

    def __enter__(self) -> Watch:
        if self._console is not None and self._console.is_terminal:
            columns = (
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description:<9}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}[/]"),
            )
            self._bars = Progress(*columns, console=self._console, refresh_per_second=8)
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "texts", already: int = 0) -> Iterator[_Stage]:
        """Follow one stage until the block ends; `already` units were done by an earlier run."""
        bar = None
        if self._bars is not None:
            bar = self._bars.add_task(name, total=total or None, completed=already, unit=unit, note="")
        artifact = create_progress_artifact(
            progress=_percent(already, total), key=f"progress-{name}", description=f"{name}: {total:,} {unit}"
        )
        stage = _Stage(name, total, unit, bar, artifact if isinstance(artifact, UUID) else None, base=already)
        with self._lock:
            self._stage = stage
            self._stages.append(stage)
        for observer in self.observers:
            observer.stage_began(stage.numbers())
        with logged_about(stage=name):
            yield stage
            stage.seconds = time.monotonic() - stage.began_at
            self._finish(stage, stage.seconds)
        for observer in self.observers:
            observer.stage_ended(stage.numbers())

    def numbers(self) -> list[StageNumbers]:
        """All stages so far; from any thread."""
        with self._lock:
            return [stage.numbers() for stage in self._stages]

    def group_ended(self, name: str, n_shards: int, n_failed: int, seconds: float) -> None:
        """Note that a group of shards has come back."""
        for observer in self.observers:
            observer.group_ended(name, n_shards, n_failed, seconds)

    def hear(self, progress: StageProgress) -> None:
        """Take in one event; from any thread."""
        with self._lock:
            stage = self._stage
            if stage is None or stage.name != progress.stage:
                return
            stage.take(progress)
            stage.total = stage.total or progress.total
            done, cost = stage.done, stage.cost_usd
        if self._bars is not None and stage.bar is not None:
            note = " ".join(word for word in (f"${cost:.4f}" if cost else "", progress.note) if word)
            self._bars.update(stage.bar, completed=done, total=stage.total or None, note=escape(note))

    def tick(self) -> None:
        """Tell Prefect how far the stage is; from the flow's thread, as often as it likes."""
        stage = self._stage
        if stage is None or stage.artifact is None or time.monotonic() - stage.shown_at < _ARTIFACT_EVERY_S:
            return
        stage.shown_at = time.monotonic()
        with self._lock:
            done, total, cost = stage.done, stage.total, stage.cost_usd
        said = pace(stage.name, stage.unit, done, total, done - stage.base, stage.shown_at - stage.began_at, cost)
        update_progress_artifact(stage.artifact, progress=_percent(done, total), description=said)

    def say(self, sentence: str) -> None:
        """One line for people: above the bars, and in the run's log."""
        get_run_logger().info(sentence)
        if self._console is not None:
            self._console.print(escape(sentence), highlight=False, soft_wrap=True)

    def _finish(self, stage: _Stage, seconds: float) -> None:
        total = stage.total or stage.done
        note = f"reused {stage.base:,}" if stage.base else ""
        if self._bars is not None and stage.bar is not None:
            self._bars.update(stage.bar, total=total, completed=total, note=note)
        cost = f", ${stage.cost_usd:.4f}" if stage.cost_usd else ""
        sentence = f"{stage.name}: {total:,} {stage.unit}, {seconds:.1f} s{cost}" + (f", {note}" if note else "")
        if stage.artifact is not None:
            update_progress_artifact(stage.artifact, progress=100.0, description=sentence)
        if self._bars is None:
            self.say(sentence)
        else:
            # The finished bar says it on the terminal.
            get_run_logger().info(sentence)


def pace(name: str, unit: str, done: int, total: int, fresh: int, seconds: float, cost_usd: float) -> str:
    """How far a stage is, how fast, what it has cost, and how long it will take.

    Args:
        name: of the stage.
        unit: what is counted.
        done: units.
        total: units; 0 where unknown.
        fresh: units done in these seconds; the others are from earlier.
        seconds: since the stage began.
        cost_usd: spent in this stage, US dollars.

    Example:
        >>> pace("annotate", "texts", 300, 1200, 200, 10.0, 0.05)
        'annotate: 300 of 1,200 texts, 20 texts/s, $0.0500, about 45 s left'
    """
    rate = fresh / seconds if seconds > 0 else 0.0
    parts = [f"{name}: {done:,} of {total:,} {unit}" if total else f"{name}: {done:,} {unit}"]
    if rate:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")
    if cost_usd:
        parts.append(f"${cost_usd:.4f}")
    if rate and total > done:
        parts.append(f"about {duration((total - done) / rate)} left")
    return ", ".join(parts)


def _percent(done: int, total: int) -> float:
    return min(100.0, 100.0 * done / total) if total else 0.0
