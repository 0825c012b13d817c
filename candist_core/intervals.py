"""The base of all reports, and a share with its interval."""

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Base of all reports: frozen, and forgiving of fields that a later version adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(Report):
    """A share with its 95 % Wilson interval over n rows."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Per cent with its interval."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
