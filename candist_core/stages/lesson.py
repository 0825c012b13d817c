"""What a student is trained on, as one object in the store: so that another machine can be told of it by name."""

import json
from pathlib import Path

from pydantic import ValidationError

from candist_core.config import RunConfig
from candist_core.edges.store import open_store
from candist_core.errors import StoreError
from candist_core.reports import AnnotateReport, Report
from candist_core.stages.distill import student_key
from candist_core.tables import TableRef


class DistillInputs(Report):
    """The shards of texts that a student learns from, and their annotations."""

    texts: tuple[TableRef, ...]
    annotated: tuple[AnnotateReport, ...]


def keep_inputs(config: RunConfig, inputs: DistillInputs) -> str:
    """Write the inputs of a student's training; the path in the store."""
    path = f"distill/{student_key(config, inputs.texts, inputs.annotated)}-inputs.json"
    open_store(config.store).write_bytes(path, inputs.model_dump_json().encode())
    return path


def read_inputs(config: RunConfig, path: str) -> DistillInputs:
    """The inputs of a student's training.

    Raises:
        StoreError: no such object in the store, or one of another kind.
    """
    try:
        return DistillInputs.model_validate(json.loads(open_store(config.store).read_bytes(path)))
    except (ValueError, ValidationError) as error:
        thing = f"{path} in store {config.store.uri}"
        raise StoreError(thing, "no inputs of a training", "what `keep_inputs` wrote", "run the labelling again") from (
            error
        )


def with_full_paths(config: RunConfig) -> RunConfig:
    """The same run for a process that starts in another folder: store and audit by their full paths."""
    audit = config.audit.uri and _full(config.audit.uri)
    return config.model_copy(
        update={
            "store": config.store.model_copy(update={"uri": _full(config.store.uri)}),
            "audit": config.audit.model_copy(update={"uri": audit}),
        }
    )


def _full(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())
