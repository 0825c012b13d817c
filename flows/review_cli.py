"""`candist review` and `candist compare`: texts out to people, their answers back, and what they changed."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from candist_core.config import AuditConfig, load_config
from flows.launch import INTERRUPTED, launch, say_interrupted, settled
from flows.options import ConfigPath, Endpoint, Profile, Quiet, Reask, Region, Sets, VersionArg, Yes, located

_HERE = "here"
_out, _err = Console(), Console(stderr=True)

Budget = Annotated[int, typer.Option(min=1, max=100_000, help="Texts to review, at most.")]
RandomShare = Annotated[
    float, typer.Option(min=0, max=1, help="Part of them drawn at random: these alone measure and calibrate.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed draws other random texts.")]


class _VersionOrCommand(TyperGroup):
    """`candist review VERSION` is short for `candist review here VERSION`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [_HERE, *args]
        return super().parse_args(ctx, args)


review_app = typer.Typer(
    cls=_VersionOrCommand,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Have people look at the texts that need it. `candist review VERSION` asks in this terminal.",
)


@review_app.command(_HERE)
def here(
    version: VersionArg,
    budget: Budget = 50,
    random_share: RandomShare = 0.3,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="File of answers, .jsonl; an earlier one is gone on with. Else named so.")
    ] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Review in this terminal, one text at a time; every answer is kept at once.

    Example: `candist review published/support-intents --budget 50`
    """
    from candist_core.stages.review import choose_for_review
    from flows.review_terminal import review_in_terminal

    chosen = choose_for_review(located(version, endpoint_url, region, profile), budget, random_share, seed)
    path = out or Path(f"review-{chosen.manifest.dataset}-{chosen.manifest.version}.jsonl")
    try:
        n_answered, n_texts = review_in_terminal(chosen, path)
    except KeyboardInterrupt as stop:
        # Caught here because typer would end the command without a word.
        say_interrupted(_err)
        raise typer.Exit(INTERRUPTED) from stop
    _say(f"{n_answered:,} of {n_texts:,} texts answered, in {path}", f"candist review import {path} CONFIG")


@review_app.command("export")
def export(
    version: VersionArg,
    out: Annotated[Path, typer.Option(help="File to write, a new one; for Argilla a folder.")],
    budget: Budget = 100,
    form: Annotated[str, typer.Option("--format", help="csv, label-studio or argilla.")] = "csv",
    random_share: RandomShare = 0.3,
    seed: Seed = 0,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Write the texts whose review helps most, their candidates as choices in order.

    Example: `candist review export published/support-intents --budget 100 --out review.csv`
    """
    from candist_core.stages.review import choose_for_review, export_review, format_of

    kind = format_of(form)
    chosen = choose_for_review(located(version, endpoint_url, region, profile), budget, random_share, seed)
    files = export_review(chosen, out, kind)
    n_random = int((chosen.texts["why"] == "random").sum())
    what = f"wrote {chosen.texts.height:,} texts, {n_random:,} of them at random, to {out}"
    others = ", ".join(str(path) for path in files if path.parent == out.parent and path != out)
    _say(what + (f" (paste {others} into the project)" if others else ""), "candist review import ANSWERS CONFIG")


@review_app.command("import")
def import_(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="CSV, JSON, JSON lines, or a folder of Argilla.")],
    config: ConfigPath,
    into: Annotated[Path | None, typer.Option(help="File of all reviewed texts, .jsonl; else beside CONFIG.")] = None,
    version: Annotated[str, typer.Option(help="The version that was reviewed: latest, a number or an id.")] = "latest",
    run: Annotated[bool, typer.Option(help="Make a new version with the answers and show what changed.")] = True,
    set_: Sets = None,
    reask: Reask = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Take answers back: labels that stay, estimates from random texts, a new version, and what it changed.

    Example: `candist review import review.csv candist.yaml --reask doubtful`
    """
    from candist_core.stages.review import compare_published, import_answers, reviewed_version
    from flows.review_view import print_comparison, print_review

    settings = load_config(config, tuple(set_ or ()))
    path = into or config.with_name(f"{settings.name}-reviewed.jsonl")
    before = reviewed_version(settings, version)
    print_review(_out, import_answers(settings, answers, path, before), path)
    audit = AuditConfig.model_validate(settings.audit.model_dump() | {"uri": str(path)})
    if not run:
        _say("", f"candist run {config} --set audit.uri={path}" + (f" --reask {reask}" if reask else ""))
        return
    settings = settled(settings.model_copy(update={"audit": audit}), reask)
    published = launch(settings, _err, yes=yes, quiet=quiet)
    print_comparison(_out, compare_published(settings, before, published.version))
    kept = f"write into {config}, to keep it: audit: {{uri: {path}}}"
    if settings.reask.versions:
        kept += f", reask: {{versions: [{', '.join(settings.reask.versions)}]}}"
    _say(kept, f"candist show {published.uri}@{published.number}")


# A number, an id, or anything behind an @: versions of the data set that was named first.
_OF_THE_SAME = re.compile(r"@[^/]+|[0-9]+|[0-9a-f]{16}|latest")


def compare(
    before: Annotated[str, typer.Argument(metavar="V1", help="`FOLDER/DATASET@VERSION`.")],
    after: Annotated[
        str, typer.Argument(metavar="V2", help="Another version, or of the same data set `2`, `@2`, `@TAG`.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Show what differs between two versions: changed labels, moved metrics, cost.

    Example: `candist compare published/support-intents@1 @2`
    """
    from candist_core.stages.review import compare as compare_stage
    from flows.review_view import print_comparison

    other = f"{_place_of(before)}@{after.removeprefix('@')}" if _OF_THE_SAME.fullmatch(after) else after
    found = compare_stage(*(located(name, endpoint_url, region, profile) for name in (before, other)))
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        print_comparison(_out, found)


def _place_of(version: str) -> str:
    """A version's data set: all before its last `@`, if that is behind the last slash."""
    place, mark, name = version.rpartition("@")
    return place if mark and "/" not in name else version


def _say(done: str, next_step: str) -> None:
    for line in filter(None, (done, f"next: {next_step}")):
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
