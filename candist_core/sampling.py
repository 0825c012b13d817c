"""What is told of a run whose teacher reads a sample: its rounds, the learning curve, what more would bring."""

from pydantic import Field

from candist_core.intervals import Interval, Report
from candist_core.tables import TableRef


class CurvePoint(Report):
    """How often a student that learned from `n_rows` texts agrees, out of fold, with what it is measured on."""

    n_rows: int
    agreement: Interval


class Forecast(Report):
    """What the teacher's reading `n_rows` more texts would bring: `gain` is a share, `ceiling` where the curve ends."""

    n_rows: int
    gain: float
    ceiling: float
    cost_usd: float | None = None

    def __str__(self) -> str:
        """In one line.

        Example:
            >>> print(Forecast(n_rows=5000, gain=0.004, ceiling=0.9, cost_usd=3.0))
            another 5,000 texts: +0.4 points, $3.00
        """
        return f"another {self.n_rows:,} texts: +{100 * self.gain:.1f} points" + (
            "" if self.cost_usd is None else f", ${self.cost_usd:,.2f}"
        )


class SampleRound(Report):
    """One round of a sampled run: the texts to read next, and what was measured before they were chosen.

    No texts: nothing more is read, and `stopped` tells why. The first `n_measured` of the first round were drawn so
    that they stand for the corpus; students are measured on them.
    """

    texts: tuple[TableRef, ...]
    how: str
    n_measured: int = 0
    curve: tuple[CurvePoint, ...] = ()
    is_audited: bool = False
    stopped: str = ""

    @property
    def n_rows(self) -> int:
        """Texts of the round."""
        return sum(table.rows for table in self.texts)


class SamplingReport(Report):
    """Which part of the corpus the teacher read, and what more would bring. `is_audited`: measured on an audit."""

    n_texts: int = Field(description="distinct texts of the corpus")
    n_read: int
    rounds: tuple[int, ...] = Field(description="texts of each round")
    how: tuple[str, ...] = Field(description="how each round was drawn")
    stopped: str
    is_audited: bool
    curve: tuple[CurvePoint, ...]
    forecast: Forecast | None = None

    def __str__(self) -> str:
        """Who labelled what, in one line.

        Example:
            >>> print(SamplingReport(n_texts=400, n_read=200, rounds=(100, 100), how=("random", "doubtful"),
            ...     stopped="", is_audited=False, curve=()))
            the teacher read 200 of 400 texts in 2 rounds, the student alone labelled the others
        """
        n = len(self.rounds)
        rounds = f" in {n} rounds" if n > 1 else ""
        return (
            f"the teacher read {self.n_read:,} of {self.n_texts:,} texts{rounds}, the student alone labelled the others"
        )
