"""One run out of the command line: what would stop it anyway, its cost, the flow on a server of its own."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from candist_core.config import RunConfig
from candist_core.errors import TransientError
from candist_core.teacher_config import TeacherKind
from flows.consent import confirm_sum

if TYPE_CHECKING:
    from candist_core.publish import Published

INTERRUPTED = 130


class Rows(StrEnum):
    """Texts that the teacher is asked about again."""

    DOUBTFUL = "doubtful"


def settled(config: RunConfig, reask: Rows | None) -> RunConfig:
    """The configuration with what `--reask` adds to it."""
    if reask is None:
        return config
    from candist_core.stages.reask import with_reask

    return with_reask(config)


def launch(config: RunConfig, console: Console, *, yes: bool = False, quiet: bool = False) -> "Published":
    """Run the flow to its end, once the estimated cost is accepted.

    Raises:
        typer.Exit: the cost is refused (4), or the run was interrupted (130).
        TransientError: Prefect's server is gone for longer than its client waits, about two minutes.
    """
    from candist_core.stages.preflight import preflight

    preflight(config)
    _confirm_cost(config, console, yes)
    from flows.server import private_server, quiet_environment

    for key, value in quiet_environment().items():
        os.environ.setdefault(key, value)
    import httpx

    from flows.label_corpus import label_corpus
    from flows.progress import shown_on
    from tasks.logs import logs_json

    try:
        with private_server(), shown_on(Console(stderr=True, quiet=quiet or logs_json())):
            published: Published = label_corpus(config)
    except KeyboardInterrupt as stop:
        # Caught here because typer would end the command without a word.
        say_interrupted(console)
        raise typer.Exit(INTERRUPTED) from stop
    except httpx.TransportError as error:
        kind = type(error).__name__
        raise TransientError("Prefect server", f"does not answer ({kind}); run again, what is done is kept") from error
    return published


def say_interrupted(console: Console) -> None:
    """Tell whoever pressed Ctrl-C that nothing is lost."""
    console.print("candist: interrupted; what is done is kept, run again to go on", highlight=False, soft_wrap=True)


def _confirm_cost(config: RunConfig, console: Console, yes: bool) -> None:
    """Ask before a run that is estimated above the set sum."""
    if yes or not any(teacher.kind is TeacherKind.OPENAI for teacher in config.teachers):
        return
    from candist_core.stages.estimate import estimate_run
    from flows.summary import print_estimate

    expected = estimate_run(config)
    if expected.cost_usd is None or expected.cost_usd <= config.budget.confirm_above_usd:
        return
    print_estimate(console, config, expected)
    confirm_sum(config, expected.cost_usd, yes)
