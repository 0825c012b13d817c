"""A person's consent to what is to be paid."""

import sys

import typer

from candist_core.config import RunConfig
from candist_core.errors import ConfigError


def confirm_sum(settings: RunConfig, cost_usd: float | None, yes: bool) -> None:
    """Ask before more is paid than `budget.confirm_above_usd`; nothing is asked where no price is known.

    Raises:
        ConfigError: there is nobody to ask.
        Exit: the person says no.
    """
    if yes or cost_usd is None or cost_usd <= settings.budget.confirm_above_usd:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            "estimated cost",
            f"${cost_usd:.2f}",
            f"at most budget.confirm_above_usd = ${settings.budget.confirm_above_usd:.2f} without a person to ask",
            "pass --yes to accept it",
        )
    if not typer.confirm("go on?", err=True):
        raise typer.Exit(4)
