"""The commands about published versions: list, show, pull, tag, roll back, verify, collect garbage."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from candist_core.config import load_config
from candist_core.errors import ConfigError, StoreError
from flows.options import Endpoint, Profile, Region, Sets, VersionArg, located
from flows.screen import printable

app = typer.Typer()
_out = Console()

PlaceArg = Annotated[str, typer.Argument(metavar="PLACE", help="Folder of data sets, or one data set.")]
_HOUR_S = 3600


@app.command("ls")
def list_(place: PlaceArg, endpoint_url: Endpoint = None, region: Region = None, profile: Profile = None) -> None:
    """List the data sets in a place, or the versions of one.

    Example: `candist ls published` and then `candist ls published/support-intents`
    """
    from candist_core.stages.versions import list_entries
    from flows.version_tables import print_entries

    print_entries(_out, list_entries(located(place, endpoint_url, region, profile)))


@app.command()
def show(version: VersionArg, endpoint_url: Endpoint = None, region: Region = None, profile: Profile = None) -> None:
    """Print what a published version holds, where it came from, and how to read it.

    Example: `candist show published/support-intents@latest`
    """
    from candist_core.stages.versions import find_version
    from flows.version_tables import print_version

    print_version(_out, find_version(located(version, endpoint_url, region, profile)))


@app.command()
def pull(
    version: VersionArg,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder, or an unfinished pull.")],
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Copy a version to this machine, every hash checked; begun again it goes on where it stopped.

    Example: `candist pull s3://bucket/sets/reviews@3 reviews`
    """
    from candist_core.stages.pull import pull_version
    from candist_core.stages.versions import find_version

    found = find_version(located(version, endpoint_url, region, profile))
    done = pull_version(found, folder)
    kept = f", {done.n_kept} were there" if done.n_kept else ""
    _say(f"pulled version {found.manifest.number} into {folder}: {done.n_fetched} files{kept}, all as published")


@app.command()
def push(
    version: VersionArg,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Data set on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; else it is private.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Copy a version to the Hugging Face Hub, as one commit with a tag; the token is that of $HF_TOKEN.

    Example: `candist push published/support-intents@3 acme/support-intents`
    """
    from candist_core.stages.push import push_version
    from candist_core.stages.versions import find_version

    found = find_version(located(version, endpoint_url, region, profile))
    url = push_version(found, repository, is_private=not public)
    _say(f"pushed version {found.manifest.number} to {url}")


@app.command()
def tag(
    version: VersionArg,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name to read it by, as in `DATASET@NAME`.")],
    move: Annotated[bool, typer.Option("--move", help="Take the name from the version that has it.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Take the name away; VERSION is the data set.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Give a version a name, or take the name away.

    Example: `candist tag published/support-intents@3 production --move`
    """
    from candist_core.stages.versions import tag_version, untag_version

    location = located(version, endpoint_url, region, profile)
    if delete:
        if move:
            raise ConfigError("--move", "--delete beside it", "one of them", "leave one out")
        had_it = untag_version(location, name).manifest
        _say(f"{had_it.dataset}@{name} is gone; version {had_it.number} stays")
        return
    found, is_new = tag_version(location, name, may_move=move)
    manifest = found.manifest
    had = "" if is_new else " already"
    _say(f"{manifest.dataset}@{name} is version {manifest.number}{had}")


@app.command()
def rollback(
    version: VersionArg, endpoint_url: Endpoint = None, region: Region = None, profile: Profile = None
) -> None:
    """Make an older version the latest again, under a new number; no version is changed or removed.

    Example: `candist rollback published/support-intents@2`
    """
    from candist_core.stages.versions import rollback_version

    found, is_new = rollback_version(located(version, endpoint_url, region, profile))
    manifest = found.manifest
    if is_new:
        _say(f"{manifest.dataset}@latest is version {manifest.number}, with the content of {manifest.restores}")
    else:
        _say(f"{manifest.dataset}@latest is version {manifest.number}, which holds that content already")


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="CONFIG|VERSION", help="A run's YAML file, or a version.")],
    set_: Sets = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Hash a version's files again; or, of a run, derive its annotations from its kept replies again. Offline.

    What ends in .yaml or .yml is a run, anything else a version. Nothing is sent to a teacher, nothing is changed.

    Example: `candist verify published/support-intents@3` or `candist verify candist.yaml`
    """
    if target.endswith((".yaml", ".yml")):
        _verify_run(Path(target), set_)
        return
    if set_:
        raise ConfigError("--set", "a version beside it", "a run's YAML file", "leave it out")
    from candist_core.stages.versions import damage, find_version, verify_version

    found = find_version(located(target, endpoint_url, region, profile))
    faults = verify_version(found)
    for one in faults:
        _say(f"{one.path}: found {one.found}, wanted {one.wanted}")
    if faults:
        raise damage(found, faults, are_listed=True)
    files = found.manifest.files
    size = sum(file.size_bytes for file in files)
    _say(f"version {found.manifest.number}: {len(files)} files, {size:,} bytes, all as published")


@app.command()
def gc(
    place: PlaceArg,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; else they are only listed.")] = False,
    older_than: Annotated[
        float, typer.Option(min=0.0, help="Leave alone what was written to within so many hours.")
    ] = 24.0,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """List what killed publishers left behind, and remove it with --delete. Published versions are never touched.

    Example: `candist gc published` and then `candist gc published --delete`
    """
    from candist_core.stages.gc import Kind, collect_garbage
    from flows.version_tables import print_leftovers

    location = located(place, endpoint_url, region, profile)
    leftovers = collect_garbage(location, older_than_s=older_than * _HOUR_S, delete=delete)
    print_leftovers(_out, leftovers, delete)
    passed = [one for one in leftovers if one.kind is Kind.DATASET]
    for one in passed:
        _say(f"{one.dataset} was left alone: {one.kept}")
    if passed:
        names, found = ", ".join(one.dataset for one in passed), "a manifest or lease that this candist cannot read"
        step = "upgrade candist, or restore it from a copy; other data sets were not held up"
        raise StoreError(f"data set {names}", found, "all of them readable", step)


def _verify_run(config: Path, sets: list[str] | None) -> None:
    from candist_core.stages.verify import verify_annotations

    found = verify_annotations(load_config(config, tuple(sets or ())))
    left = f"; {found.n_shards_left} shards are not annotated yet" if found.n_shards_left else ""
    if found.n_differing:
        named = ", ".join(repr(doc_id) for doc_id in found.differing)
        step = "run again to annotate them anew"
        what = f"{found.n_differing:,} of {found.n_rows:,} rows that differ, the first are {named}{left}"
        raise StoreError("stored annotations", what, "what the kept replies say", step)
    _say(f"{found.n_rows:,} rows of {found.n_shards} shards are what the kept replies say{left}")


def _say(line: str) -> None:
    # It may name what a stranger's manifest names.
    _out.print(printable(line), highlight=False, markup=False, soft_wrap=True)
