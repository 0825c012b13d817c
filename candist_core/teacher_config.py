"""Settings of asking: the teacher, the examples it is shown, what it may cost. Part of `RunConfig`.

They name secrets (an environment variable, a Secret block) and never hold them.
"""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from candist_core.spec import Settings


class TeacherKind(StrEnum):
    """Who answers."""

    OPENAI = "openai"
    REPLAY = "replay"
    ZEROSHOT = "zeroshot"


class TeacherMode(StrEnum):
    """How requests travel."""

    LIVE = "live"
    BATCH = "batch"


class Truncate(StrEnum):
    """Which part of a text that is too long the teacher reads."""

    HEAD = "head"
    HEAD_TAIL = "head_tail"


class Combine(StrEnum):
    """How the answers of several teachers become one candidate set."""

    UNION = "union"
    VOTE = "vote"
    CASCADE = "cascade"


class ShotChoice(StrEnum):
    """Which labelled texts stand in the prompt."""

    FIXED = "fixed"
    BALANCED = "balanced"
    NEAREST = "nearest"


class ResponseFormat(StrEnum):
    """How the endpoint is told the form of its answer; servers differ in what they support."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"


class TeacherConfig(Settings):
    """Who is asked for candidate sets, and how."""

    kind: TeacherKind = Field(
        TeacherKind.OPENAI,
        description="openai: any compatible endpoint. replay: recorded replies. zeroshot: offline, by text similarity.",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="openai: the model's name at the endpoint (gpt-4o-mini if empty). zeroshot: the encoder (minilm).",
    )
    base_url: str | None = Field(None, description="Endpoint such as http://localhost:8000/v1; empty for OpenAI's own.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        # A key pasted here by mistake would reach logs and manifests.
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$",
        description="Name of the environment variable that holds the API key; never the key itself.",
    )
    api_key_block: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,99}$",
        description="Name of a Prefect Secret block that holds the API key; used instead of the variable.",
    )
    replies_uri: str | None = Field(None, description="replay: the recorded replies, JSON lines of id and reply.")
    mode: TeacherMode = Field(
        TeacherMode.LIVE,
        description="live: one request a text. batch: the provider's batch endpoint, cheaper, answers within a day.",
    )
    response_format: ResponseFormat = Field(ResponseFormat.JSON_SCHEMA, description="What the endpoint supports.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(256, ge=1, le=100_000, description="Longest answer (tokens).")
    reasoning: bool = Field(False, description="Let the model think in words before it names labels; costs tokens.")
    samples: int = Field(
        1, ge=1, le=50, description="Answers drawn for each text; their votes become scores. Needs a temperature."
    )
    logprobs: bool = Field(False, description="Ask for token probabilities and turn them into candidate scores.")
    max_text_tokens: int | None = Field(
        None,
        ge=16,
        le=10_000_000,
        description="Longer texts are cut before they are asked (tokens, about 4 bytes each).",
    )
    truncate: Truncate = Field(Truncate.HEAD_TAIL, description="Which part of a long text is kept.")
    timeout_s: float = Field(60.0, gt=0, le=3600, description="Longest wait for one answer (seconds).")
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Requests under way at once, over all workers; empty: found out while it runs, from 64 on.",
    )
    max_requests_per_min: int | None = Field(
        None, ge=1, description="Requests a minute over all workers; empty: as many as the endpoint takes."
    )
    max_tokens_per_min: int | None = Field(
        None, ge=1, description="Tokens a minute over all workers, prompt and answer; empty: as the endpoint takes."
    )
    limits_redis_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$",
        description="Name of the environment variable with the URL of a Redis server that holds both limits for "
        "several runs at once; empty: they are split over this run's workers.",
    )
    max_attempts: int = Field(6, ge=1, le=100, description="Tries for one request before its row is rejected.")

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Self:
        if self.kind is TeacherKind.REPLAY and not self.replies_uri:
            raise ValueError("found kind replay without replies_uri, wanted recorded replies; set teacher.replies_uri")
        if self.samples > 1 and not self.temperature:
            raise ValueError("found several samples at temperature 0, wanted ones that differ; set teacher.temperature")
        # Prefect stores a run's parameters before anything of it runs.
        if self.base_url and "@" in self.base_url.partition("?")[0]:
            raise ValueError(
                "found a user or password in base_url, wanted a URL without secrets; put the key where api_key_env says"
            )
        return self

    @property
    def model_name(self) -> str:
        """The model that answers, by its own name or by the kind's default."""
        defaults = {TeacherKind.OPENAI: "gpt-4o-mini", TeacherKind.ZEROSHOT: "minilm", TeacherKind.REPLAY: "replay"}
        return self.model or defaults[self.kind]


class ShotsConfig(Settings):
    """Labelled texts that the teacher sees as examples (few-shot). Never rows of the corpus with their gold."""

    uri: str | None = Field(None, description="File of labelled texts, CSV, JSONL or Parquet; empty: none are shown.")
    text: str = Field("text", min_length=1, description="Column of the text.")
    label: str = Field("label", min_length=1, description="Column of the label.")
    n: int = Field(8, ge=1, le=200, description="Examples in one prompt.")
    choice: ShotChoice = Field(
        ShotChoice.BALANCED,
        description="fixed: the file's first. balanced: equally many of each label. nearest: those most like the text.",
    )
    encoder: str = Field("minilm", min_length=1, description="nearest: the encoder that tells what is alike.")


class PriceConfig(Settings):
    """Price of one model, overriding the price table that ships with candist."""

    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    input_usd: float = Field(ge=0, description="US dollars a million prompt tokens.")
    cached_usd: float | None = Field(None, ge=0, description="US dollars a million cached prompt tokens.")
    output_usd: float = Field(ge=0, description="US dollars a million completion tokens.")


class BudgetConfig(Settings):
    """Bounds on spending."""

    max_usd: float | None = Field(None, gt=0, description="Hard cap of one run (US dollars); none when empty.")
    confirm_above_usd: float = Field(5.0, ge=0, description="The command asks before a run estimated above this.")
    approve_above_usd: float | None = Field(
        None,
        ge=0,
        description="A run of a Prefect deployment that is estimated above this (US dollars) pauses before it pays, "
        "until a person approves or refuses; empty: it asks nobody.",
    )
    batch_discount: float = Field(0.5, ge=0, lt=1, description="What the provider takes off in batch mode (share).")
    prices: tuple[PriceConfig, ...] = Field((), description="Prices for models that the shipped table lacks.")
