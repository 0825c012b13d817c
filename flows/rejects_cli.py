"""The command `candist rejects`: rows that left the pipeline, and why."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from candist_core.config import load_config
from candist_core.errors import ConfigError
from flows.options import Endpoint, Force, Profile, Region, Sets, located
from flows.screen import printable

_out = Console()


def rejects(
    target: Annotated[str, typer.Argument(metavar="CONFIG|VERSION", help="A run's YAML file, or a version.")],
    reason: Annotated[list[str] | None, typer.Option(help="Only rows with this reason, such as duplicate_id.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv, .jsonl or .parquet.")] = None,
    force: Force = False,
    set_: Sets = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Print the rows that have no label, each with its stage, its reason and where it stands.

    Example: `candist rejects candist.yaml` or `candist rejects published/support-intents@3`
    """
    from candist_core.rejects import count_reasons, reasons_in_words
    from candist_core.stages.publish import export_labels
    from candist_core.stages.rejects import of_reasons, rejects_of_run, rejects_of_version

    if target.endswith((".yaml", ".yml")):
        found = rejects_of_run(load_config(Path(target), tuple(set_ or ())))
    elif set_:
        raise ConfigError("--set", "a version beside it", "a run's YAML file", "leave it out")
    else:
        found = rejects_of_version(located(target, endpoint_url, region, profile))
    frame = of_reasons(found, tuple(reason or ()))
    if out is not None:
        export_labels(frame, out, may_replace=force)
        _say(f"wrote {frame.height:,} rows to {out}")
    elif frame.height:
        _say(f"{frame.height:,} rejects: {reasons_in_words(count_reasons(frame), 20)}")
        table = Table(box=ROUNDED, caption=f"{min(rows, frame.height):,} of {frame.height:,} rows")
        for name in frame.columns:
            table.add_column(name, overflow="fold")
        for row in frame.head(rows).iter_rows():
            # Text objects take no markup, and control characters of a corpus must not reach the terminal.
            table.add_row(*(Text(printable(cell)) for cell in row))
        _out.print(table)
    else:
        _say("no row was rejected")


def _say(sentence: str) -> None:
    _out.print(printable(sentence), highlight=False, markup=False, soft_wrap=True)
