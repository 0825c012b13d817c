"""The commands `candist quarantine`: what checks found at fault, and what becomes of it."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from candist_core.config import RunConfig, load_config
from flows.consent import confirm_sum
from flows.options import Force
from flows.screen import printable

app = typer.Typer(no_args_is_help=True, help="Rows that checks found at fault: list them, ask anew, or leave them out.")
_out = Console()

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A run's YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting, as for the run.")]
Checks = Annotated[list[str] | None, typer.Option("--check", help="Only rows behind this check.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this row.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_rows(
    config: ConfigPath,
    check: Checks = None,
    id_: Ids = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv, .jsonl or .parquet.")] = None,
    force: Force = False,
    set_: Sets = None,
) -> None:
    """Print the rows at fault with their check and value: set aside, or the reason why the run was stopped.

    Example: `candist quarantine list candist.yaml --check annotations.unparsed_rate`
    """
    from candist_core.stages.publish import export_labels

    frame = _chosen(_settings(config, set_), check, id_)
    if out is not None:
        export_labels(frame, out, may_replace=force)
        _say(f"wrote {frame.height:,} rows to {out}")
        return
    if frame.height:
        _out.print(_table(frame, rows))
    else:
        _say("no row is in quarantine")


@app.command()
def retry(config: ConfigPath, check: Checks = None, id_: Ids = None, yes: Yes = False, set_: Sets = None) -> None:
    """Have the next run ask the teacher anew about these rows. Nothing may run over the same store meanwhile.

    Example: `candist quarantine retry candist.yaml --check annotations.known_labels`
    """
    from candist_core.stages.quarantine import foresee_retry, retry_rows

    settings = _settings(config, set_)
    frame = _chosen(settings, check, id_)
    expected = foresee_retry(settings, frame)
    cost = "an unknown sum" if expected.cost_usd is None else f"about ${expected.cost_usd:.4f}"
    _say(f"{expected.n_rows:,} rows; {expected.n_replies:,} replies to them are kept, asking anew costs {cost}")
    confirm_sum(settings, expected.cost_usd, yes)
    n = retry_rows(settings, frame)
    _say(f"set {n:,} replies aside; next: candist run {config}")


@app.command()
def drop(config: ConfigPath, check: Checks = None, id_: Ids = None, yes: Yes = False, set_: Sets = None) -> None:
    """Leave these rows out of every later run of this name, as rejects.

    Example: `candist quarantine drop candist.yaml --id row-17`
    """
    from candist_core.stages.quarantine import drop_rows

    settings = _settings(config, set_)
    frame = _chosen(settings, check, id_)
    n = frame["doc_id"].n_unique()
    if n and not yes and not typer.confirm(f"leave {n:,} rows out of every later run named {settings.name}?", err=True):
        raise typer.Exit(4)
    _say(f"dropped {drop_rows(settings, frame):,} rows; next: candist run {config}")


def _settings(config: Path, set_: list[str] | None) -> RunConfig:
    return load_config(config, tuple(set_ or ()))


def _chosen(settings: RunConfig, check: list[str] | None, id_: list[str] | None) -> pl.DataFrame:
    from candist_core.stages.quarantine import list_quarantine

    return list_quarantine(settings, tuple(check or ()), tuple(id_ or ()))


def _table(frame: pl.DataFrame, n: int) -> Table:
    table = Table(box=ROUNDED, caption=f"{min(n, frame.height):,} of {frame.height:,} rows")
    for name in ("doc_id", "check", "value", "on_fail"):
        table.add_column(name, overflow="fold")
    for row in frame.head(n).iter_rows():
        # Text objects take no markup, and control characters of a reply must not reach the terminal.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _say(sentence: str) -> None:
    _out.print(sentence, highlight=False, markup=False, soft_wrap=True)
