"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from candist_core.config import Location
from candist_core.errors import ConfigError
from flows.launch import Rows

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A run's YAML file; `candist init` writes one.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one setting, for example `--set teacher.kind=zeroshot`."),
]
VersionArg = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="`FOLDER/DATASET`, with `@latest`, `@3`, `@ID` or `@TAG` after it."),
]
Endpoint = Annotated[str | None, typer.Option(help="Endpoint of an S3-compatible store.")]
Region = Annotated[str | None, typer.Option(help="Region of the bucket.")]
Profile = Annotated[str | None, typer.Option(help="Profile of the AWS credentials file.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about the estimated cost.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the summary.")]
Reask = Annotated[
    Rows | None,
    typer.Option(help="Ask again about texts that the latest version doubts, shown reviewed texts as examples."),
]


def located(uri: str, endpoint_url: str | None, region: str | None, profile: str | None) -> Location:
    """A place or a version as the commands take it.

    Raises:
        ConfigError: it is empty.
    """
    if not uri:
        raise ConfigError("a place", "nothing", "a folder or URL", "name one")
    return Location(uri=uri, endpoint_url=endpoint_url, region=region, profile=profile)
