"""Settings of a run whose teacher reads a sample and whose student labels the rest."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from candist_core.spec import Settings


class Draw(StrEnum):
    """How the first texts that the teacher reads are drawn (see `candist_core.active`)."""

    RANDOM = "random"
    STRATIFIED = "stratified"
    DIVERSE = "diverse"


class SamplingConfig(Settings):
    """Which texts the teacher reads; the student labels the rest."""

    teacher_rows: int | None = Field(
        None, ge=10, le=100_000_000, description="Distinct texts that the teacher reads at most; empty: all of them."
    )
    how: Draw = Field(
        Draw.RANDOM,
        description="Of the first round. random: each text alike. stratified: at random from clusters of like texts. "
        "diverse: far from each other, but for a fifth at random that students are measured on.",
    )
    rounds: int = Field(
        1, ge=1, le=20, description="The first as drawn; each later one, the texts that a student doubts most."
    )
    round_rows: int | None = Field(
        None, ge=1, le=10_000_000, description="Texts of each later round; empty: teacher_rows in equal rounds."
    )
    min_gain: float = Field(
        0.002,
        ge=0,
        le=1,
        description="No further round once one is forecast to add less than this share of right labels; 0: all rounds.",
    )
    pool_rows: int = Field(
        50_000,
        ge=100,
        le=1_000_000,
        description="Texts at random among which all but random draws choose; each is embedded once.",
    )

    @property
    def later_rows(self) -> int:
        """Texts of each round after the first."""
        return self.round_rows or (self.teacher_rows or 0) // self.rounds

    @property
    def first_rows(self) -> int:
        """Texts of the first round."""
        return (self.teacher_rows or 0) - (self.rounds - 1) * self.later_rows

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        if self.teacher_rows is None:
            if self.rounds > 1 or self.round_rows:
                raise ValueError("found rounds without sampling.teacher_rows, wanted both; set sampling.teacher_rows")
        elif self.first_rows < self.rounds:
            found = f"{self.rounds} rounds of {self.later_rows} out of {self.teacher_rows} texts"
            raise ValueError(f"found {found}, wanted some for the first; lower sampling.round_rows")
        return self
