"""The commands `candist forget` and `candist remove`: rows out of everything, old versions out of the place."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from candist_core.config import RunConfig, load_config
from flows.options import ConfigPath, Endpoint, Profile, Region, Sets, VersionArg, located
from flows.screen import printable

if TYPE_CHECKING:
    from candist_core.stages.forget import Holder

app = typer.Typer()
_out = Console()


@app.command()
def forget(
    config: ConfigPath,
    ids: Annotated[Path | None, typer.Option(help="File of ids of rows, one a line.")] = None,
    id_: Annotated[list[str] | None, typer.Option("--id", help="One id; may be given again.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="File of rows, written as the corpus is; their texts are forgotten everywhere.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; else they are only looked for.")] = False,
    keep_students: Annotated[
        bool, typer.Option("--keep-students", help="Let students stay that learned from these rows.")
    ] = False,
    set_: Sets = None,
) -> None:
    """Leave rows out of every later version, and remove them from replies and every table of the run's store.

    Without --delete nothing is changed. Rows of earlier calls count as well, so a call that was killed is finished by
    the next one. Nothing may run over the same store meanwhile. Old versions that hold the rows are named.

    Example: `candist forget candist.yaml --ids requests.txt` and then the same with `--delete`
    """
    from candist_core.stages.forget import forget_rows, read_ids, read_texts

    settings = load_config(config, tuple(set_ or ()))
    wanted = [*(read_ids(ids) if ids else ()), *(id_ or ())]
    found = forget_rows(
        settings, wanted, read_texts(settings, texts) if texts else (), delete=delete, keep_students=keep_students
    )
    for held in found.held:
        _say(f"{held.what}: {held.n_rows:,} rows in {held.n_places:,} {_places(held.what)}: {held.remedy}")
    if not found.held:
        _say("the store holds nothing about them")
    if found.n_unknown:
        barred = "left out from now on all the same" if delete else "would be left out from now on all the same"
        _say(f"{found.n_unknown:,} of {found.n_asked:,} stand nowhere; {barred}")
    if found.n_shared:
        step = "--texts forgets a text everywhere"
        _say(f"{found.n_shared:,} of their texts stand in other rows too and stay there; {step}")
    _say_versions(settings, config, found.holders)
    if not delete:
        _say("nothing was changed; add --delete to remove what may go")
    else:
        _say(f"next: candist run {config}")


@app.command()
def remove(
    version: VersionArg,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else it is only told what would go.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Remove an old version for good, under every number that it has. Not the latest one, and none with a tag.

    Example: `candist remove published/support-intents@1 --delete`
    """
    from candist_core.stages.remove import remove_version

    done = remove_version(located(version, endpoint_url, region, profile), delete=delete)
    numbers = " and ".join(map(str, done.numbers))
    what = f"{done.manifest.dataset}@{numbers} ({done.manifest.version}), {done.size_bytes:,} bytes"
    if not delete:
        _say(f"would remove {what}; nothing was changed, add --delete")
    elif done.kept:
        _say(f"removed the manifest of {what}; its files stay: {done.kept}; see candist gc")
    else:
        _say(f"removed {what}")


def _say_versions(settings: RunConfig, config: Path, holders: "Sequence[Holder]") -> None:
    place = f"{settings.publish.uri.rstrip('/')}/{settings.dataset}"
    for one in holders:
        held = "cannot be read, look yourself" if one.n_rows is None else f"holds {one.n_rows:,} of their rows"
        step = f"the latest: first candist run {config}, then " if one.is_latest else ""
        _say(f"version {one.number} ({one.version}) {held}; {step}candist remove {place}@{one.number} --delete")


def _places(what: str) -> str:
    return "prompts" if what == "replies" else "students" if what.startswith("students") else "tables"


def _say(line: str) -> None:
    _out.print(printable(line), highlight=False, markup=False, soft_wrap=True)
