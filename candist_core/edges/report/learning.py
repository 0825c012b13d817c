"""The learning curve of a run whose teacher read a sample: what its answers taught, and what more would bring."""

from matplotlib.axes import Axes

from candist_core.edges.report.plots import Plot
from candist_core.edges.report.svg import INKS, draw
from candist_core.edges.report.words import count, percent
from candist_core.sampling import SamplingReport


def learning_plots(sampling: SamplingReport | None) -> list[Plot]:
    """The curve, where a sample was read and its answers were measured."""
    return [learning_plot(sampling)] if sampling is not None and sampling.curve else []


def learning_plot(sampling: SamplingReport) -> Plot:
    """How often students agree, out of fold, with answers that they never saw, by the texts that they learned from."""
    points, more = sampling.curve, sampling.forecast
    right = "labels of the audit" if sampling.is_audited else "first labels of the teacher"
    sentence = str(sampling)
    reading = sentence[0].upper() + sentence[1:] + "."
    if more is not None:
        reading += f" By the curve, {more}; it ends at {percent(more.ceiling)}."

    def paint(axes: Axes) -> None:
        n = [point.n_rows for point in points]
        value = [100 * point.agreement.value for point in points]
        low = [100 * (point.agreement.value - point.agreement.low) for point in points]
        high = [100 * (point.agreement.high - point.agreement.value) for point in points]
        axes.errorbar(
            n, value, (low, high), color=INKS["accent"], lw=1.4, marker="o", ms=4, capsize=2, label="measured"
        )
        if more is not None:
            end = value[-1] + 100 * more.gain
            axes.plot([n[-1], n[-1] + more.n_rows], [value[-1], end], color=INKS["doubt"], lw=1.2, ls=(0, (3, 2)),
                      marker="o", ms=4, label="forecast")  # fmt: skip
        axes.set(xlabel="texts that the teacher read", ylabel="agreement (%)")
        axes.grid()
        axes.legend(loc="lower right")

    rows = [(count(point.n_rows), str(point.agreement)) for point in points]
    if more is not None:
        rows.append(
            (f"{count(points[-1].n_rows + more.n_rows)}, forecast", percent(points[-1].agreement.value + more.gain))
        )
    columns = ("texts read", f"agreement with the {right}")
    title = "What reading more would bring"
    return Plot("learning", title, reading, draw("learning", paint), columns, tuple(rows))
