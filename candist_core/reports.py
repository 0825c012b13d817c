"""What each stage reports: the only thing, beside tables, that crosses a stage border.

Reports are written into done-markers and into the manifest, so they are plain data.
Rates are shares in [0, 1], costs US dollars, times seconds.
"""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field

from candist_core.intervals import Interval as Interval
from candist_core.intervals import Report as Report
from candist_core.sampling import SamplingReport as SamplingReport
from candist_core.tables import TableRef


class Usage(Report):
    """What the teacher's replies cost.

    Tokens and `cost_usd` are of the replies asked for now; `reused_usd` is what earlier runs paid for the `n_reused`
    others. `n_unpriced` replies, of now or before, have no known cost; where the model has a price, they may have cost
    `unpriced_bound_usd` at most.
    """

    n_requests: int = 0
    n_reused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    reused_usd: float = 0.0
    n_unpriced: int = 0
    unpriced_bound_usd: float = 0.0

    @property
    def total_usd(self) -> float:
        """What the replies cost, whenever they were paid."""
        return self.cost_usd + self.reused_usd

    @property
    def charged_usd(self) -> float:
        """What counts against a cap: a reply without a known cost as the most that it may have cost."""
        return self.total_usd + self.unpriced_bound_usd

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
    reject_reasons: dict[str, int] = Field({}, description="rejects by reason, the most frequent first")


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

    @property
    def stops(self) -> bool:
        """Whether it did not pass and is to end the run."""
        return not self.passed and self.on_fail == "fail"

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
    first_labels: dict[str, int] = Field({}, description="texts by the first label of their set")
    frequent_sets: dict[str, int] = Field({}, description="the 20 most frequent sets and their number")
    sample: tuple[TableRef, ...] = Field(
        (), description="texts/1 that were asked, where these are the answers to a sample of the whole corpus"
    )


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
    slope: float = Field(1.0, description="of the log-odds over the posterior, by the audit")
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
    settings_key: str = Field("", description="of all that it learned by but the texts; empty: not to be reused")
    kept: dict[str, TableRef] = Field({}, description="labels that stay, by the sha256 of a shard of texts")

    def of_shards(self, texts: Iterable[TableRef]) -> "DistillReport":
        """The same with the tables about some shards only: what travels to their worker."""
        mine = {shard.sha256 for shard in texts}
        if mine.isdisjoint(self.beliefs):
            # Of a sample every table may hold some of the shards' texts.
            return self
        own = {name: {key: table for key, table in getattr(self, name).items() if key in mine}
               for name in ("beliefs", "kept")}  # fmt: skip
        return self.model_copy(update=own)


class PredictReport(Report):
    """One shard's final labels."""

    labels: TableRef
    n_review: int
    sources: dict[str, int]


class NamedShare(Report):
    """A share of the rows of one label."""

    name: str
    share: Interval


class ConfusionCell(Report):
    """Rows of one gold label that have one final label."""

    gold: str
    label: str
    n: int


class RiskPoint(Report):
    """Keeping the share `kept` of the rows, those of confidence `confidence` and above, leaves `risk` of them wrong."""

    confidence: float
    kept: float
    risk: float


class ReliabilityBin(Report):
    """Rows with a confidence above `low` up to `high`: how sure they are on average, and how many are right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: Interval


class GoldDetails(Report):
    """What plots and tables of quality need (see `candist_core.gold`). By label: of the rows with that gold label."""

    coverage_by_size: dict[int, Interval] = Field(description="by the number of labels in the set, 0 for none")
    coverage_by_label: tuple[NamedShare, ...]
    teacher_by_label: tuple[NamedShare, ...] = Field(
        description="rows whose first label is right: the teacher's recall"
    )
    recall: tuple[NamedShare, ...] = Field(description="rows whose final label is right")
    precision: tuple[NamedShare, ...] = Field(description="of the rows with that final label, those that are right")
    confusion: tuple[ConfusionCell, ...] = Field(description="all pairs that occur, the most frequent first")
    risk_coverage: tuple[RiskPoint, ...] = Field(description="by falling confidence; the last keeps every row")
    reliability: tuple[ReliabilityBin, ...] = Field(description="ten bins of equal width, those without rows left out")
    calibration_error: float


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
    details: GoldDetails | None = None


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
    audit: GoldReport | None = Field(
        None, description="the same on the texts of an audit, their final labels as they were before a person's"
    )
    unread: Interval | None = Field(
        None, description="final labels that are right of texts that the teacher did not read"
    )
    unknown_gold: dict[str, int] = Field({}, description="the most frequent gold values that are no label, with rows")


class LabelPair(Report):
    """Two labels that stand in one set more often than their own frequencies say: `lift` times as often."""

    first: str
    second: str
    n: int
    lift: float
    overlap: float = Field(0.0, description="of the sets with either, the share with both (Jaccard)")
    entropy: float | None = Field(None, description="mean entropy of belief between the two, 0 to 1; None: no belief")
    similarity: float | None = Field(None, description="share of the words of both descriptions that stand in both")


class LabelQuality(Report):
    """One label without gold: how often it is first in a set, in a set, final, and the student's choice out of fold."""

    name: str
    n_first: int
    n_sets: int
    n_final: int
    n_believed: int
    in_set_rate: float | None = Field(
        description="of the sets that it leads, those with the student's choice; None: none"
    )


class Finding(Report):
    """A named sign of a failure. `name` is stable; the sentences are for people and hold no text of the corpus."""

    name: str
    severity: Literal["stop", "warn", "note"]
    evidence: str
    consequence: str
    remedy: str


class QualityReport(Report):
    """What candidate sets and beliefs tell of their quality without gold (see `candist_core.quality`)."""

    n_sets: int
    mean_set_size: float
    set_sizes: dict[int, int]
    single_share: float = Field(description="sets of one label")
    identical_share: float = Field(description="sets that equal the most frequent one of more than one label")
    entropy: float = Field(description="of the sets of more than one label, over that of as many random ones; 0 to 1")
    confusable: tuple[LabelPair, ...] = Field(description="the pairs that share most sets beyond chance")
    similar_descriptions: tuple[LabelPair, ...] = Field((), description="labels whose descriptions overlap")
    vote_agreement: float | None = Field(None, description="mean score of the first label, where sets have scores")
    coverage: Interval = Field(description="sets that hold the true label: by the audit, else estimated by the student")
    is_audited: bool = Field(description="whether `coverage` is that of an audit")
    in_set_entropy: float = Field(description="mean entropy of belief within sets, over log of their size; 0 to 1")
    labels: tuple[LabelQuality, ...] = ()
    companions: float | None = Field(None, description="how many different labels stand beside a first one, on average")
    lift: float | None = Field(
        None, description="belief that a further label of a set has, over that of a random one; None for sets of one"
    )
    in_set_rate: Interval | None = Field(None, description="sets that hold the student's choice, out of fold")
    estimated_coverage: Interval | None = Field(None, description="the student's estimate, beside an audit's too")
    training_fit: float | None = Field(None, description="training texts whose set holds the student's choice")
    findings: tuple[Finding, ...] = ()


class StudentOrigin(Report):
    """Where the student of an incremental run came from: of an earlier version, or distilled by this run, and why."""

    is_reused: bool
    reason: str
    number: int | None = Field(None, description="of the version whose run distilled it; None: this run")
    version: str | None = None
    n_new: int = Field(0, description="texts that are not in the version before")
    checks: tuple[CheckResult, ...] = Field((), description="drift of new texts, where there were enough of them")


class VersionChanges(Report):
    """Rows of a version beside those of the one before it, matched by doc_id. `n_changed` have another text.

    `n_relabelled` of the kept rows have another label.
    """

    number: int
    version: str
    n_added: int
    n_changed: int
    n_removed: int
    n_kept: int
    n_relabelled: int

    def __str__(self) -> str:
        """One line."""
        return (
            f"since version {self.number}: {self.n_added:,} added, {self.n_changed:,} changed, {self.n_removed:,} "
            f"removed, {self.n_kept:,} kept, {self.n_relabelled:,} of them with another label"
        )


class RunReports(Report):
    """What every stage of one run reported, up to publication."""

    ingested: IngestReport
    annotated: tuple[AnnotateReport, ...]
    student: StudentReport
    predicted: tuple[PredictReport, ...]
    metrics: EvaluateReport
    checks: tuple[CheckResult, ...]
    quality: QualityReport | None = None
    origin: StudentOrigin | None = None
    changes: VersionChanges | None = None
    sampling: SamplingReport | None = Field(None, description="of a run whose teacher read a sample")

    @property
    def usage(self) -> Usage:
        """The teacher's whole usage."""
        return sum((report.usage for report in self.annotated), Usage())
