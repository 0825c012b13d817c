"""Settings of incremental labelling: whether the student goes on being used, and what drift is. Part of `RunConfig`.

Flat fields with enums and bounds, because the model is also the form in the Prefect UI.
"""

from enum import StrEnum

from pydantic import Field

from candist_core.spec import Settings


class OnDrift(StrEnum):
    """What a run does when new texts have drifted from those that the student learned from."""

    WARN = "warn"
    REDISTILL = "redistill"
    FAIL = "fail"


class IncrementalConfig(Settings):
    """Runs over a growing corpus: the student of the latest version labels the new texts while it is fit.

    Thresholds are about new texts beside those that the student learned from; below what chance makes of so few
    texts none of them counts.
    """

    reuse_student: bool = Field(
        False,
        description="Label new texts with the student of the latest version and keep the labels of the others; off: "
        "every changed corpus is distilled anew.",
    )
    on_drift: OnDrift = Field(
        OnDrift.REDISTILL,
        description="Beyond a threshold. redistill: train a student on all texts. warn: go on with the old one. fail: "
        "stop and publish nothing.",
    )
    min_texts: int = Field(
        100, ge=20, le=1_000_000, description="New texts that are judged, at least; fewer wait for the next runs'."
    )
    max_out_of_set_rise: float = Field(
        0.1, ge=0, le=1, description="Rise of the share of labels that are not among the teacher's candidates."
    )
    max_low_confidence_rise: float = Field(
        0.15, ge=0, le=1, description="Rise of the share of labels too unsure to go without review."
    )
    max_disagreement_rise: float = Field(
        0.15, ge=0, le=1, description="Rise of the share of texts whose first label teacher and student disagree about."
    )
    max_psi: float = Field(0.25, gt=0, le=100, description="Population stability index of the labels, at most.")
    max_embedding_auc: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="How well a classifier may tell new texts from old ones by their embeddings (area under the ROC "
        "curve; 0.5: not at all).",
    )
    sample_texts: int = Field(
        1_000, ge=100, le=100_000, description="Texts of each side that are embedded for that, at most."
    )
