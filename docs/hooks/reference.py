"""Pages of the reference, written from the code when the site is built: settings, commands, Python functions."""

from collections.abc import Iterator
from enum import EnumType
from typing import Any, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

import candist_core
from candist_core.config import RunConfig

_BOUNDS = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
_WORDS = {str: "text", int: "whole number", float: "number", bool: "yes or no"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs asks for more pages."""
    pages = {"configuration": configuration(), "cli": commands(), "python": functions()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def configuration() -> str:
    """Every setting of a run, by group."""
    lines = [
        "# Configuration",
        "",
        "A run is one YAML file: `candist init` writes a first one, `candist run FILE --set group.name=value` changes",
        "a setting for one run, and the form in the Prefect UI shows the same settings. An unknown key is refused, and",
        "the nearest known one named.",
        *_group(RunConfig, "", "The run itself", 2),
    ]
    return "\n".join(lines) + "\n"


def _group(model: type[BaseModel], path: str, title: str, level: int) -> Iterator[str]:
    fields = model.model_fields
    plain = {name: field for name, field in fields.items() if _inner(field) is None}
    yield from ("", f"{'#' * level} {title}", "", (model.__doc__ or "").strip().splitlines()[0], "")
    if plain:
        yield from ("| setting | what | default |", "|---|---|---|")
        for name, field in plain.items():
            yield f"| `{path}{name}` | {_cell(field)} | {_default(field)} |"
    for name, field in fields.items():
        if (inner := _inner(field)) is not None:
            is_list = get_origin(field.annotation) is tuple
            heading = f"`{path}{name}`" + (", a list of" if is_list else "")
            if name == "more_teachers":
                yield from (
                    "",
                    f"{'#' * level} {heading}",
                    "",
                    f"{field.description} The settings are those of `teacher`.",
                )
                continue
            yield from _group(inner, f"{path}{name}{'[].' if is_list else '.'}", heading, min(level + 1, 4))


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, alone or in a list."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _cell(field: FieldInfo) -> str:
    parts = [(field.description or "").strip(), _kind(field.annotation)]
    bounds = [
        text.format(f"{getattr(limit, name):,}") for limit in field.metadata for name, text in _BOUNDS.items()
        if hasattr(limit, name)
    ]  # fmt: skip
    return " ".join(filter(None, [*parts, ", ".join(bounds)])).replace("|", "\\|")


def _kind(annotation: Any) -> str:
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and kind is not type(None)]
    for kind in kinds:
        if isinstance(kind, EnumType):
            return "One of " + ", ".join(f"`{choice.value}`" for choice in kind) + "."  # type: ignore[attr-defined]
    return next((f"({_WORDS[kind]})" for kind in kinds if kind in _WORDS), "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value in (None, (), ""):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else getattr(value, 'value', value)}`"


def commands() -> str:
    """The command line, as its own help tells it."""
    from flows.cli import app

    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="candist")


def functions() -> str:
    """The public functions of `candist_core`."""
    homes = candist_core._HOMES
    intro = (
        "# Python\n\n`import candist_core as candist` loads neither torch, nor Great Expectations, nor Prefect: each"
        " name is imported when it is first used. The README shows a whole run of them.\n"
    )
    return intro + "".join(f"\n::: candist_core.{homes[name]}.{name}\n" for name in sorted(homes))
