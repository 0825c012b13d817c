"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flows.launch import Rows

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A run's YAML file; `candist init` writes one.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one setting, for example `--set teacher.kind=zeroshot`."),
]
VersionArg = Annotated[
    str, typer.Argument(metavar="VERSION", help="`FOLDER/DATASET`, with `@latest`, `@3` or `@ID` after it.")
]
Endpoint = Annotated[str | None, typer.Option(help="Endpoint of an S3-compatible store.")]
Profile = Annotated[str | None, typer.Option(help="Profile of the AWS credentials file.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about the estimated cost.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the summary.")]
Reask = Annotated[
    Rows | None,
    typer.Option(help="Ask again about texts that the latest version doubts, shown reviewed texts as examples."),
]
