"""What each stage reports: the only thing, beside tables, that crosses a stage border.

Reports are written into done-markers and into the manifest, so they are plain data.
Rates are shares in [0, 1], costs US dollars, times seconds.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from candist_core.tables import TableRef


class Report(BaseModel):
    """Base of all reports: frozen, and forgiving of fields that a later version adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Usage(Report):
    """What the teacher's replies cost.

    Tokens and `cost_usd` are of the replies asked for now; `reused_usd` is what earlier runs paid for the `n_reused`
    others. `n_unpriced` replies have no known price.
    """

    n_requests: int = 0
    n_reused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    reused_usd: float = 0.0
    n_unpriced: int = 0

    def __add__(self, other: Self) -> "Usage":
        """Field-wise sum."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class SourceFile(Report):
    """One file of the corpus. `etag` is the store's own word for the file's state."""

    uri: str
    size_bytes: int
    etag: str


class IngestReport(Report):
    """`examples` hold every usable row; `texts` hold each distinct text once, without gold."""

    examples: tuple[TableRef, ...]
    texts: tuple[TableRef, ...]
    rejects: TableRef
    files: tuple[SourceFile, ...]
    n_rows: int
    n_examples: int
    n_texts: int
    n_rejects: int
    n_gold: int
    user_columns: tuple[str, ...]


class CheckResult(Report):
    """One check. `observed` and `wanted` are words for people; `n_unexpected` of `n` rows broke it.

    `value` is the number that was judged, None where there was nothing to judge.
    """

    name: str
    passed: bool
    observed: str
    wanted: str
    n_unexpected: int = 0
    n: int = 0
    on_fail: str = "fail"
    value: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        """One line: name, observed, wanted."""
        return f"{self.name}: observed {self.observed}, wanted {self.wanted}"


class AnnotateReport(Report):
    """One shard's annotations. `n_left` texts were not asked because the budget ended.

    `statuses` are of all texts, the other counts of those that no check set aside.
    """

    annotations: TableRef
    rejects: TableRef
    usage: Usage
    statuses: dict[str, int]
    set_sizes: dict[int, int]
    checks: tuple[CheckResult, ...] = ()
    n_left: int = 0
    first_labels: dict[str, int] = {}
    frequent_sets: dict[str, int] = Field({}, description="the 20 most frequent sets and their number")


class VerifyReport(Report):
    """Stored annotations against kept replies; `differing` names the first doc_ids that are not the same."""

    n_shards: int
    n_shards_left: int
    n_rows: int
    n_differing: int
    differing: tuple[str, ...]


class EpochReport(Report):
    """Label-free signals after one epoch. Rates are over the training texts."""

    epoch: int
    loss: float
    in_set_rate: float = Field(description="texts whose most probable label is a candidate")
    approximate_accuracy: float = Field(description="mean of 1[c in S] p_c / sum of p over S (PLENCH, AA)")
    kept_rate: float = Field(description="texts with a target")
    reliable_rate: float = Field(description="texts with a sharpened target")


class StoredFile(Report):
    """One object of a folder; `uri` is relative to its store."""

    uri: str
    size_bytes: int
    sha256: str


class LabelModel(Report):
    """How a teacher's answers and a student's belief become a posterior (see `candist_core.label_model`)."""

    places: tuple[tuple[float, ...], ...] = Field(
        description="row m, column r: chance that a set of m labels holds the true one at place r, the last column: "
        "outside"
    )
    temperature: float
    trusts_order: bool
    slope: float = Field(1.0, description="of the log-odds, calibrated on the audit")
    offset: float = 0.0
    n_audited: int = Field(0, description="texts of an audit behind slope and offset; 0: not calibrated")


class StudentReport(Report):
    """The student. `folder` is relative to the store; that of an encoder loads with `transformers`."""

    folder: str
    files: tuple[StoredFile, ...]
    key: str
    base_model: str
    device: str
    device_reason: str
    n_train: int
    epochs: tuple[EpochReport, ...]
    seconds: float
    # Versions of before there was one have none.
    label_model: LabelModel | None = None


class DistillReport(StudentReport):
    """The student, and what final labels are made of: beliefs by the sha256 of a shard of texts, labels of an audit."""

    label_model: LabelModel
    beliefs: dict[str, TableRef]
    reviewed: TableRef

    def of_shard(self, texts: TableRef) -> "DistillReport":
        """The same with the beliefs about one shard only: what travels to its worker."""
        return self.model_copy(update={"beliefs": {texts.sha256: self.beliefs[texts.sha256]}})


class PredictReport(Report):
    """One shard's final labels."""

    labels: TableRef
    n_review: int
    sources: dict[str, int]


class Interval(Report):
    """A share with its 95 % Wilson interval over n rows."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Per cent with its interval."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


class GoldReport(Report):
    """Quality on rows that carry gold."""

    teacher_accuracy: Interval
    final_accuracy: Interval
    macro_f1: float
    coverage: Interval
    kept_accuracy: Interval = Field(description="final accuracy on the rows that do not want review")
    lift: float | None = Field(
        description="coverage gained a further label, over a random label's; None for sets of one"
    )


class EvaluateReport(Report):
    """What is known of the labels, with gold and without."""

    n_rows: int
    n_labelled: int
    n_review: int
    mean_set_size: float
    set_sizes: dict[int, int]
    statuses: dict[str, int]
    class_counts: dict[str, int]
    teacher_counts: dict[str, int] = Field({}, description="rows by the teacher's first label")
    agreement: float = Field(description="labelled rows whose final label is a candidate")
    mean_confidence: float
    gold: GoldReport | None
    unknown_gold: dict[str, int] = Field({}, description="the most frequent gold values that are no label, with rows")


class RunReports(Report):
    """What every stage of one run reported, up to publication."""

    ingested: IngestReport
    annotated: tuple[AnnotateReport, ...]
    student: StudentReport
    predicted: tuple[PredictReport, ...]
    metrics: EvaluateReport
    checks: tuple[CheckResult, ...]

    @property
    def usage(self) -> Usage:
        """The teacher's whole usage."""
        return sum((report.usage for report in self.annotated), Usage())
