"""The command `candist`.

Exit codes: 0 done; 1 a fault in candist; 2 something the user gave; 3 a check failed, nothing published;
4 the budget is reached; 5 something outside failed or does not answer, run again; 130 interrupted.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from candist_core.config import load_config
from candist_core.errors import (
    BudgetError,
    CandistError,
    ConfigError,
    GateError,
    RefusedError,
    SilentError,
    TeacherError,
    TransientError,
)
from candist_core.teacher_config import TeacherKind
from candist_core.version import __version__
from flows.forget_cli import app as forget_app
from flows.gate import stop_if_failed
from flows.launch import launch, say_interrupted, settled
from flows.options import ConfigPath, Endpoint, Force, Profile, Quiet, Reask, Region, Sets, VersionArg, Yes, located
from flows.quarantine_cli import app as quarantine_app
from flows.rejects_cli import rejects
from flows.review_cli import compare, review_app
from flows.screen import printable
from flows.versions_cli import app as versions_app

app = typer.Typer(
    name="candist",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Label texts with candidate sets from a language model, distil them into a small student, and publish.",
)
replies_app = typer.Typer(no_args_is_help=True, help="What the teacher answered.")
app.add_typer(replies_app, name="replies")
app.add_typer(versions_app)
app.add_typer(forget_app)
app.add_typer(review_app, name="review")
app.command("diff", help="The same as `candist compare`.")(compare)
app.command()(compare)
app.command()(rejects)
app.add_typer(quarantine_app, name="quarantine")
_out, _err = Console(), Console(stderr=True)
_MAX_NAMED = 30


def _tell_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"candist {__version__}")
        raise typer.Exit


@app.callback()
def candist(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Label texts with candidate sets from a language model, distil them into a small student, and publish."""


@app.command()
def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Corpus: a Parquet, JSONL or CSV file, folder or URL.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="File with one label a line, a tab and its description after it if you like."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="One label, `name` or `name: what it means`.")] = None,
    text: Annotated[str | None, typer.Option(help='Text column or template, such as "{title}. {body}".')] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column with a unique id.")] = None,
    gold: Annotated[str | None, typer.Option(help="Column with human labels, for evaluation.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run and of the data set.")] = None,
    teacher: Annotated[TeacherKind, typer.Option(help="zeroshot needs no key and no network.")] = TeacherKind.ZEROSHOT,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("candist.yaml"),
) -> None:
    """Write a starter config from a data file and a list of labels.

    Example: `candist init reviews.csv --label "praise: is content" --label "complaint: is not"`
    """
    from candist_core.stages.starter import read_label_file, split_label, starter_yaml

    specs = [*(read_label_file(labels) if labels else ()), *(split_label(entry) for entry in label or ())]
    if out.exists():
        raise ConfigError(f"file {out}", "one that exists", "a new one", "name another with --out")
    written = starter_yaml(data, specs, text=text, id_column=id_column, gold=gold, name=name, teacher=teacher)
    out.write_text(written.text, encoding="utf-8")
    _out.print(f"wrote {escape(str(out))}: {escape(written.remark)}", highlight=False, soft_wrap=True)
    _out.print(f"next: candist estimate {out}   then: candist run {out}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def run(
    config: ConfigPath,
    set_: Sets = None,
    reask: Reask = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole job: ingest, annotate, check, distil, predict, evaluate, publish.

    Example: `candist run candist.yaml --set budget.max_usd=5`
    """
    try:
        published = launch(settled(load_config(config, tuple(set_ or ())), reask), _err, yes=yes, quiet=quiet)
    except GateError:
        told = shlex.join(["candist", "report", str(config), *(word for one in set_ or () for word in ("--set", one))])
        _err.print(f"what the checks found: {told}", highlight=False, markup=False, soft_wrap=True)
        raise
    from flows.summary import print_findings, print_summary

    print_summary(_out, published)
    if published.manifest.quality is not None:
        print_findings(_err, published.manifest.quality.findings)


@app.command()
def estimate(config: ConfigPath, set_: Sets = None, reask: Reask = None) -> None:
    """Say what a run would cost: calls, tokens, dollars, time. Sends nothing, and needs no key.

    What a run would refuse before it asks anything is refused here too.

    Example: `candist estimate candist.yaml --set teacher.kind=openai`
    """
    from flows.summary import print_estimate

    settings = settled(load_config(config, tuple(set_ or ())), reask)
    from candist_core.stages.estimate import estimate_run
    from candist_core.stages.preflight import check_keys, preflight

    preflight(settings, will_ask=False)
    expected = estimate_run(settings)
    print_estimate(_out, settings, expected)
    if expected.ingested.n_rejects:
        # Only then: importing Great Expectations takes seconds.
        from candist_core.stages.check import check_corpus

        stop_if_failed("corpus", check_corpus(settings, expected.ingested))
    try:
        check_keys(settings)
    except TeacherError as error:
        _err.print(f"a run would stop: {printable(str(error))}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def status(config: ConfigPath, set_: Sets = None) -> None:
    """Say which stages of a run are done, what was spent, and which versions it published.

    Example: `candist status candist.yaml`
    """
    from candist_core.stages.status import status_of_run
    from flows.summary import print_status

    settings = load_config(config, tuple(set_ or ()))
    print_status(_out, settings, status_of_run(settings))


@app.command()
def serve(
    config: ConfigPath,
    set_: Sets = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")] = 4200,
    home: Annotated[Path, typer.Option(help="Folder of the server's database and logs.")] = Path(".candist/prefect"),
) -> None:
    """Serve the Prefect UI with everything deployed, on this machine alone; CONFIG is what its forms show at first.

    Example: `candist serve deployments/configs/demo.yaml`
    """
    from flows.serve import serve as serve_until_stopped

    serve_until_stopped(load_config(config, tuple(set_ or ())), home, port, _out)


@app.command()
def top(
    config: ConfigPath,
    set_: Sets = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Watch a run go on, from any machine that reaches its store: stages, rate, time left, spend.

    Example: `candist top candist.yaml`
    """
    from flows.top import watch_run

    watch_run(_out, load_config(config, tuple(set_ or ())), every)


@replies_app.command("export")
def export_replies(
    config: ConfigPath,
    out: Annotated[Path, typer.Option(help="File to write, JSON lines.")],
    set_: Sets = None,
) -> None:
    """Write every kept reply as a recording that `teacher.kind=replay` reads.

    Example: `candist replies export candist.yaml --out replies.jsonl`
    """
    from candist_core.stages.replies import export_replies as export

    n = export(load_config(config, tuple(set_ or ())), out)
    _out.print(f"wrote {n:,} replies to {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def bench(
    suites: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE...",
            help="labels students encoders steps noise sizes diversity strength failures quality active kinds",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder of corpora: NAME/labels.txt, train.jsonl, test.jsonl, replies.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("bench"),
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Runs of everything drawn by chance.")] = 3,
) -> None:
    """Measure the method itself on recorded replies: final labels, students, trainers, noise.

    Example: candist bench labels students --data DATA --out docs/method
    """
    from candist_core.bench.run import run_suites
    from candist_core.bench.suites import SUITES

    if strange := [name for name in suites if name not in SUITES]:
        raise ConfigError("bench", repr(strange[0]), f"one of {', '.join(SUITES)}", "name one of these")
    for table in run_suites(suites, data, out, range(seeds), lambda line: typer.echo(line, err=True)):
        typer.echo(f"{table.title}\n\n{table.markdown()}\n")


@app.command()
def labels(
    version: VersionArg,
    out: Annotated[
        Path | None, typer.Option(help="File to write, .csv, .jsonl or .parquet; prints the first rows without it.")
    ] = None,
    review: Annotated[bool, typer.Option(help="Only the rows that want review.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    force: Force = False,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Print a version's labels, or export them.

    Example: `candist labels published/support-intents --review --out review.csv`
    """
    from candist_core.edges.scan import told_rows
    from candist_core.stages.publish import export_labels
    from candist_core.stages.versions import load
    from flows.summary import print_labels

    rows_wanted = load(version, verify=True, endpoint_url=endpoint_url, region=region, profile=profile)
    with told_rows(f"version {version}"):
        frame = (rows_wanted.filter("needs_review") if review else rows_wanted).collect()
    if out is None:
        print_labels(_out, frame, rows)
        return
    export_labels(frame, out, may_replace=force)
    _out.print(f"wrote {frame.height:,} rows to {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def audit(
    version: VersionArg,
    out: Annotated[Path, typer.Option(help="File to write, .csv, .jsonl or .parquet; a new one.")],
    rows: Annotated[int, typer.Option(min=1, help="Texts to draw.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other texts.")] = 0,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Draw texts of a version at random for a person to label; name the file as `audit.uri` of the next run.

    The file shows nothing of what was found: an answer given blind is the only one that measures.

    Example: `candist audit published/support-intents --out audit.csv`
    """
    from candist_core.edges.scan import told_rows
    from candist_core.stages.publish import draw_audit, export_labels
    from candist_core.stages.versions import find_version, scan_version

    if out.exists():
        raise ConfigError(f"file {out}", "one that exists", "a new one", "name another with --out")
    found = find_version(located(version, endpoint_url, region, profile))
    rows_wanted = scan_version(found, verify=True)
    with told_rows(f"version {version}"):
        frame = rows_wanted.collect()
    drawn = draw_audit(frame, rows, seed)
    export_labels(drawn, out)
    names = found.manifest.spec.label_names
    listed = ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
    said = (
        f"wrote {drawn.height:,} texts to {out}, without showing what was found; fill in the column label with one of: "
    )
    _out.print(printable(said + listed), highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    what: Annotated[
        str,
        typer.Argument(metavar="VERSION|RUN", help="`FOLDER/DATASET[@VERSION]`, or a run's YAML file."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it one named after the version, in this folder.")
    ] = None,
    set_: Sets = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
) -> None:
    """Write the report of a version or of a run as one HTML file that needs no network.

    Every version holds the report that was made with it, `report.html`; this makes one anew.

    Example: `candist report published/support-intents@latest --out report.html`
    """
    from candist_core.stages.report import report_of_run, report_of_version, write_report

    if what.endswith((".yaml", ".yml")):
        made = report_of_run(load_config(Path(what), tuple(set_ or ())))
    elif set_:
        raise ConfigError("--set", "a version", "a run's YAML file", "leave --set out")
    else:
        made = report_of_version(located(what, endpoint_url, region, profile))
    path = write_report(made, out)
    said = f"wrote {path} ({len(made.html) / 1000:,.0f} kB); open it in a browser"
    _out.print(said, highlight=False, markup=False, soft_wrap=True)


def exit_code(error: BaseException) -> int:
    """The exit code that tells a script what kind of trouble there was."""
    kinds: tuple[tuple[type[BaseException], int], ...] = (
        (GateError, 3),
        (BudgetError, 4),
        (RefusedError, 4),
        (TransientError, 5),
        (SilentError, 5),
        (CandistError, 2),
        (KeyboardInterrupt, 130),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), 1)


def main() -> None:
    """Run the command; every error that candist raises on purpose becomes one sentence and an exit code."""
    try:
        app()
    except CandistError as error:
        # It may name a column of the corpus, and control characters of a corpus must not reach the terminal.
        _err.print(f"candist: {printable(str(error))}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt as error:
        say_interrupted(_err)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
