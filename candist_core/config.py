"""`RunConfig`: everything one run needs, and the one parameter of the main flow.

Flat groups with enums and no unions, because the model is also the form in the Prefect UI.
It names secrets (an environment variable) and never holds them.
"""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from candist_core.checks_config import ChecksConfig
from candist_core.compute_config import ComputeConfig
from candist_core.errors import ConfigError
from candist_core.incremental_config import IncrementalConfig
from candist_core.observe_config import ObserveConfig
from candist_core.sampling_config import SamplingConfig
from candist_core.spec import Settings, TaskSpec
from candist_core.teacher_config import BudgetConfig, Combine, ShotsConfig, TeacherConfig

# Shares are often written as whole per cents of many labels.
_MAX_ROUNDING = 0.02


class SourceFormat(StrEnum):
    """How the corpus is written; `auto` goes by the file's ending."""

    AUTO = "auto"
    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"


class Method(StrEnum):
    """How candidate sets become training targets (see `candist_core.refine`)."""

    POSTERIOR = "posterior"
    UNIFORM = "uniform"
    PRODEN = "proden"
    DR = "dr"


class StudentKind(StrEnum):
    """What learns: a whole encoder, or a small head on an encoder that is left as it is, or on means of word pieces."""

    ENCODER = "encoder"
    FROZEN = "frozen"
    STATIC = "static"


class Order(StrEnum):
    """Whether the order of a teacher's labels is evidence (see `candist_core.label_model`)."""

    AUTO = "auto"
    TRUSTED = "trusted"
    IGNORED = "ignored"


class Location(Settings):
    """A place that fsspec can reach: a path, `file://`, `s3://`, `package://`."""

    uri: str = Field(min_length=1, description="Path or URL.")
    endpoint_url: str | None = Field(None, description="Endpoint of an S3-compatible store, if not Amazon's.")
    region: str | None = Field(None, description="Region of the bucket.")
    profile: str | None = Field(None, description="Profile of the AWS credentials file; else the usual chain.")


ACCESS = {"endpoint_url", "region", "profile"}
"""The fields of a `Location` that tell how it is reached, not what lies there."""


class SourceConfig(Location):
    """The corpus: where it lies and which columns matter."""

    uri: str = Field(
        min_length=1,
        description="File, folder, glob or URL of the corpus; a relative path counts from the working folder.",
    )
    format: SourceFormat = Field(SourceFormat.AUTO, description="How the files are written.")
    text: str = Field(
        "text",
        min_length=1,
        description='Column that holds the text, or a template of several: "{title}. {body}".',
    )
    id: str | None = Field(None, description="Column with a unique id; without one, ids are hashes of the content.")
    gold: str | None = Field(None, description="Column with human labels, read by evaluation alone.")
    split: str | None = Field(None, description="Column that tells train from test rows, if any.")
    max_chars: int = Field(20_000, ge=1, le=10_000_000, description="Longer texts are rejected (characters).")
    shard_rows: int = Field(
        5_000, ge=1, le=1_000_000, description="Rows in one shard, the unit of work and of restart."
    )


class StoreConfig(Location):
    """Where a run keeps its work: shards, replies, tables, done-markers."""

    uri: str = Field(".candist", min_length=1, description="Folder or URL for everything between source and version.")
    spool_dir: str | None = Field(
        None, description="Folder on each worker's disk for what is not in the store yet; empty: store or cache."
    )


FROZEN_PASSES = 20


class StudentConfig(Settings):
    """The small model that learns from the candidate sets."""

    model: str = Field(
        "minilm",
        min_length=1,
        description="minilm (needs the extra of that name), a Hugging Face hub id, a local folder, or an s3:// folder.",
    )
    kind: StudentKind = Field(
        StudentKind.ENCODER,
        description="encoder: the whole model learns. frozen: only a small head does, for a first look in seconds. "
        "static: a head on means of word pieces, thirty times as fast and less accurate, for many millions.",
    )
    method: Method = Field(
        Method.POSTERIOR,
        description="How candidate sets become training targets. posterior: the teacher's answers weighed with small "
        "students that never saw them. dr, proden, uniform: the answers alone.",
    )
    order: Order = Field(
        Order.AUTO,
        description="Whether the order of the teacher's labels counts; auto goes by the audit, or by how often the "
        "teacher is sure.",
    )
    folds: int = Field(
        5, ge=2, le=20, description="Parts of the texts for beliefs about texts that were not trained on."
    )
    epochs: int = Field(5, ge=1, le=200, description="Passes of an encoder over the training texts; a head takes 20.")
    warmup_epochs: int = Field(3, ge=1, le=100, description="Epochs before rows may be dropped or trusted (dr).")
    batch_rows: int = Field(32, ge=1, le=4096, description="Texts in one training step.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    lora_rank: int = Field(
        0,
        ge=0,
        le=256,
        description="Rank of low-rank adapters, which then learn in the encoder's place (needs the extra lora); 0: the "
        "encoder itself learns.",
    )
    max_tokens: int = Field(128, ge=8, le=8192, description="Longer texts are cut (tokens).")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:1 or mps.")
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes of one machine that train an encoder together, each on a GPU of its own; they share "
        "out each batch.",
    )
    sharpen: float = Field(0.85, gt=0, le=1, description="Temperature for targets of reliable rows (dr, gamma).")
    reliable_share: float = Field(
        0.5, ge=0, le=1, description="Smallest-loss share of each class taken as reliable (dr, delta)."
    )
    rescue_above: float = Field(
        0.95, ge=0, le=1, description="Belief above which a dropped row returns one-hot (dr, tau)."
    )
    max_dropped: float = Field(0.4, ge=0, le=1, description="Largest share of a class that may be dropped (dr, zeta).")

    @property
    def passes(self) -> int:
        """Passes over the training texts. A head starts from nothing and needs more, a tenth of a second each."""
        return self.epochs if self.kind is StudentKind.ENCODER else FROZEN_PASSES


class AuditConfig(Settings):
    """Texts of the corpus that a person has labelled: they keep these labels, and calibrate if drawn at random."""

    uri: str | None = Field(None, description="File of labelled texts, CSV, JSONL or Parquet; empty: no audit.")
    text: str = Field("text", min_length=1, description="Column of the text, as it stands in the corpus.")
    label: str = Field("label", min_length=1, description="Column of the label.")
    why: str | None = Field(
        "why",
        min_length=1,
        description="Column that tells texts drawn at random from those chosen for doubt (random, doubtful); only the "
        "first calibrate. Where there is none, all are random.",
    )


class ReaskConfig(Settings):
    """Texts that the teacher is asked about again, shown the reviewed texts most like them as examples."""

    versions: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...] = Field(
        (), description="Ids of versions of this data set: texts that want review in one of them are asked again."
    )


class PublishConfig(Location):
    """Where versions of the labelled data set appear."""

    uri: str = Field("published", min_length=1, description="Folder or URL under which data sets are published.")
    dataset: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the data set; else the run's name.",
    )
    include_student: bool = Field(False, description="Publish the student's weights with the version.")
    license: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,99}$",
        description="Licence of the data set, for its card: SPDX or a name of the Hugging Face Hub, such as cc-by-4.0.",
    )
    language: tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")], ...] = Field(
        (), description="Languages of the texts for the card, such as en or pt-BR (BCP 47)."
    )
    lineage_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s@?#]+$",
        description="Receiver of OpenLineage events, told of each new version; its key stands in OPENLINEAGE_API_KEY.",
    )


class RunConfig(Settings):
    """One run: from a corpus to a published version."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the run and, by default, of the data set.",
    )
    task: TaskSpec = Field(description="Labels and how the teacher is asked for them.")
    source: SourceConfig = Field(description="The corpus.")
    store: StoreConfig = Field(default_factory=lambda: StoreConfig(), description="Where a run keeps its work.")
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig(), description="Who is asked, and how.")
    more_teachers: tuple[TeacherConfig, ...] = Field((), description="Teachers asked beside or after the first.")
    combine: Combine = Field(
        Combine.UNION,
        description="union: every teacher's labels. vote: ordered by votes, which become scores. cascade: the next "
        "teacher reads only the texts of which the one before was unsure.",
    )
    shots: ShotsConfig = Field(
        default_factory=lambda: ShotsConfig(), description="Labelled texts shown to the teacher."
    )
    student: StudentConfig = Field(default_factory=StudentConfig, description="The small model.")
    audit: AuditConfig = Field(default_factory=lambda: AuditConfig(), description="Texts labelled by a person.")
    reask: ReaskConfig = Field(default_factory=lambda: ReaskConfig(), description="Texts to ask about again.")
    checks: ChecksConfig = Field(default_factory=ChecksConfig, description="Gates.")
    incremental: IncrementalConfig = Field(
        default_factory=lambda: IncrementalConfig(), description="Runs over a corpus that grows."
    )
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="What the run may spend.")
    sampling: SamplingConfig = Field(
        default_factory=lambda: SamplingConfig(), description="Which texts the teacher reads."
    )
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig(), description="Where the work runs.")
    observe: ObserveConfig = Field(default_factory=lambda: ObserveConfig(), description="What monitoring is told.")
    publish: PublishConfig = Field(default_factory=lambda: PublishConfig(), description="Where versions appear.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything drawn by chance.")

    @model_validator(mode="after")
    def _prior_fits_the_task(self) -> Self:
        known, total = self.task.label_names, sum(entry.share for entry in self.checks.prior)
        if strange := next((entry.label for entry in self.checks.prior if entry.label not in known), None):
            near = get_close_matches(strange, known, n=1)
            step = f"did you mean {near[0]!r}?" if near else "name labels of the task"
            raise ValueError(f"found {strange!r} under checks.prior, wanted a label of the task; {step}")
        is_whole = len(self.checks.prior) == len(known)
        if self.checks.prior and (total > 1 + _MAX_ROUNDING or (is_whole and total < 1 - _MAX_ROUNDING)):
            raise ValueError(f"found shares under checks.prior that add up to {total:.4g}, wanted 1; correct them")
        return self

    @model_validator(mode="after")
    def _no_sample_is_gone_on_from(self) -> Self:
        if self.incremental.reuse_student and self.sampling.teacher_rows is not None:
            raise ValueError(
                "found incremental.reuse_student with sampling.teacher_rows, wanted one of them, since drift is told "
                "by answers to every new text; leave sampling.teacher_rows empty"
            )
        return self

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """The first teacher and those beside or after it."""
        return (self.teacher, *self.more_teachers)

    @property
    def dataset(self) -> str:
        """Name under which versions are published."""
        return self.publish.dataset or self.name


def load_config(path: str | Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a run's YAML file; `overrides` are `a.b=value`, the value written as YAML.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest valid one is named), a value out of bounds.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ConfigError(
            f"configuration {path}", reason.lower(), "a YAML file", "write one with `candist init`"
        ) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"configuration {path}", f"no YAML ({first})", "valid YAML", "mend that line") from error
    if not isinstance(data, dict):
        raise ConfigError(f"configuration {path}", type(data).__name__, "a mapping of settings", "see `candist init`")
    for override in overrides:
        _apply(data, override)
    return parse_config(data, f"configuration {path}")


def parse_config(data: dict[str, Any], thing: str = "configuration") -> RunConfig:
    """Turn plain data into a `RunConfig`, or say in one sentence what is wrong with it.

    Example:
        >>> parse_config({"name": "x", "tsk": {}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        candist_core.errors.ConfigError: configuration: found the unknown key 'tsk', wanted a known one; ...
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        refusal = _explain(error, thing)
    # Raised out here, it carries no trace of an error that quotes what was given, a key perhaps.
    raise refusal


def _explain(error: ValidationError, thing: str) -> ConfigError:
    # An unknown key is often the cause of a missing one, so it is told first.
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    first, where = details[0], ".".join(str(part) for part in details[0]["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(first["loc"][:-1])
        near = get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "valid keys here: " + ", ".join(known)
        return ConfigError(thing, f"the unknown key {where!r}", "a known one", hint)
    if first["type"] == "missing":
        return ConfigError(thing, f"no {where!r}", "a value", f"add {where} to it{more}")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        found, _, rest = message.removeprefix("found ").partition(", wanted ")
        wanted, _, step = rest.partition("; ")
        return ConfigError(f"{thing}: {where}" if where else thing, found, wanted, step + more)
    # A key pasted in place of its name is not to be shown.
    is_secret = where.endswith(("_env", "_block"))
    found = f"{where} that is no name" if is_secret else f"{where} = {first['input']!r:.80}"
    return ConfigError(thing, found, message[:1].lower() + message[1:], f"change {where}{more}")


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    model: Any = RunConfig
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        # Tuples of models hold their model first.
        model = getattr(annotation, "__args__", (annotation,))[0]
    return list(model.model_fields)


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}", "no a.b=value", "a setting and its value", "try --set budget.max_usd=5")
    place: Any = data
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}", f"{key!r} that holds no settings", "a group", "check the path")
    try:
        place[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}", f"{value!r}", "a value in YAML", "quote it") from error
