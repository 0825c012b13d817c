"""What a person reads about published versions: listings, one version, and leftovers, as tables for a terminal."""

from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from candist_core.stages.gc import Kind, Leftover
from candist_core.stages.versions import Entry, Version
from flows.screen import printable
from flows.summary import Rows, manifest_rows, print_rows


def print_entries(console: Console, entries: Sequence[Entry]) -> None:
    """Print a listing: of each data set its latest version, or of one data set every version."""
    table = Table(box=ROUNDED)
    for name in ("data set", "version"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "review"):
        table.add_column(name, justify="right")
    for name in ("made", "id", "remarks"):
        table.add_column(name, overflow="fold")
    for one in entries:
        table.add_row(*(Text(printable(cell)) for cell in _entry_cells(one)))
    console.print(table)


def _entry_cells(one: Entry) -> tuple[str, ...]:
    tags = [f"@{name}" for name in one.tags]
    if one.manifest is None:
        return one.dataset, str(one.number), "", "", "", "", ", ".join([one.refusal, *tags])
    manifest = one.manifest
    restored = [f"content of {manifest.restores}"] if manifest.restores else []
    return (
        one.dataset,
        str(one.number),
        f"{manifest.counts.rows:,}",
        f"{manifest.counts.needs_review:,}",
        f"{manifest.created_at:%Y-%m-%d %H:%M}",
        manifest.version,
        ", ".join([*tags, *restored]),
    )


def print_version(console: Console, version: Version) -> None:
    """Print what a version holds, where it came from, and how to read it."""
    manifest = version.manifest
    splits: dict[str, int] = {}
    for file in manifest.files:
        if file.path.startswith("data/"):
            splits[file.split or ""] = splits.get(file.split or "", 0) + (file.rows or 0)
    size = sum(file.size_bytes for file in manifest.files)
    restored = f", the content of {manifest.restores} again" if manifest.restores else ""
    rows: Rows = [
        *manifest_rows(manifest),
        ("labels", _counts(manifest.metrics.class_counts)),
        ("splits", _counts(splits)),
        ("files", f"{len(manifest.files)} files, {size:,} bytes"),
        ("version", f"{manifest.number}, {manifest.version}, made {manifest.created_at:%Y-%m-%d %H:%M} UTC{restored}"),
        ("tags", ", ".join(version.tags) or "none"),
        ("parent", manifest.parent or "none"),
        ("run", f"{manifest.run_id or 'without an orchestrator'}, candist {manifest.code_version}, "
                f"seed {manifest.seed}"),
        ("where", version.uri),
        ("read", f'candist_core.load("{version.reference}")'),
    ]  # fmt: skip
    print_rows(console, manifest.dataset, rows)


def print_leftovers(console: Console, leftovers: Sequence[Leftover], was_deleted: bool) -> None:
    """Print what garbage collection found, what of it went or may go, and what to type next."""
    leftovers = [one for one in leftovers if one.kind is not Kind.DATASET]
    if not leftovers:
        console.print("nothing is left over")
        return
    table = Table(box=ROUNDED)
    for name, justify in (("what", "left"), ("path", "left"), ("objects", "right"), ("age", "right"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    done = "removed" if was_deleted else "may go"
    for one in leftovers:
        cells = (one.kind, one.path, str(one.n_objects), _age(one.age_s), f"stays: {one.kept}" if one.kept else done)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    if not was_deleted and any(not one.kept for one in leftovers):
        console.print("nothing was removed; add --delete to remove what may go", highlight=False)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def _age(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
