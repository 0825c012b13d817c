"""The plots of a report, each with the one line that says what it shows and with its numbers.

n texts. Colours never carry a meaning alone: what wants review is hatched as well, and every plot has a table.
"""

from dataclasses import dataclass
from functools import partial

import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from candist_core.edges.report.svg import INKS, draw
from candist_core.edges.report.words import count, percent, shortened
from candist_core.labels import MIN_CONFIDENCE
from candist_core.reports import GoldDetails, GoldReport
from candist_core.tally import FINE_BINS, Tally

_BARS = 20
_RELIABILITY_BINS = 10
_MAX_SIZE = 10
_ROOMY = 4
MAX_HEATMAP = 30
"""Labels from which on a heat map's names can no longer be read; the list of confusions serves alone."""

_ERRORS = ("true label", "labelled", "texts")
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing with its title, its reading in one line, and its numbers."""

    name: str
    title: str
    reading: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_wide: bool = False


def all_plots(
    tally: Tally, names: tuple[str, ...], audit: GoldReport | None = None, is_sample: bool = False
) -> list[Plot]:
    """Every plot for which there are numbers: those of gold where rows have it, else those of an audit.

    Args:
        tally: of all rows.
        names: of the labels, in order.
        audit: what people said of some texts; rows do not show it.
        is_sample: the teacher read a sample; rows without a set are mostly others.
    """
    plots = [confidence_plot(tally), size_plot(tally, is_sample)]
    judged, confusion = tally.confidences, tally.confusion
    if not tally.n_gold:
        if audit is None or audit.details is None:
            return plots
        judged, confusion = audited_confidences(audit.details, audit.final_accuracy.n), _cells(audit.details)
    plots += [reliability_plot(judged), risk_plot(judged)]
    errors = confusion.filter(pl.col("gold") != pl.col("label"))
    if errors.height:
        plots.append(confusion_plot(confusion, names) if len(names) <= MAX_HEATMAP else errors_plot(errors))
    return plots


def audited_confidences(details: GoldDetails, n: int) -> pl.DataFrame:
    """Texts of an audit by confidence, as `Tally.confidences` counts rows, from the points of their risk curve.

    Args:
        details: of the audit.
        n: texts of it that have a final label.
    """
    points = pl.DataFrame(
        [
            (point.confidence, round(point.kept * n), round(point.risk * point.kept * n))
            for point in details.risk_coverage
        ],
        schema={"said": pl.Float64, "n_gold": pl.Int64, "n_wrong": pl.Int64},
        orient="row",
    )
    each = points.with_columns(pl.col("n_gold", "n_wrong").diff().fill_null(pl.col("n_gold", "n_wrong")))
    fine = ((pl.col("said") * FINE_BINS).round(4).ceil() - 1).clip(0, FINE_BINS - 1).cast(pl.Int64)
    counted = each.select(bin=fine, n_gold="n_gold", n_right=pl.col("n_gold") - pl.col("n_wrong"), mass=pl.col("said"))
    return counted.with_columns(n=pl.col("n_gold"), confidence=pl.col("mass") * pl.col("n_gold")).drop("mass")


def _cells(details: GoldDetails) -> pl.DataFrame:
    cells = [(cell.gold, cell.label, cell.n) for cell in details.confusion]
    return pl.DataFrame(cells, schema={"gold": pl.String, "label": pl.String, "n": pl.Int64}, orient="row")


def confidence_plot(tally: Tally) -> Plot:
    """How many texts there are at each confidence, and how many of them want review."""
    wide = FINE_BINS // _BARS
    bars = tally.confidences.group_by(pl.col("bin") // wide).agg(pl.col("n", "n_review").sum()).sort("bin")
    n_sure = tally.n_rows - tally.n_review
    reading = f"{count(n_sure)} of {count(tally.n_rows)} texts have a label sure enough to use as it is"
    reading += f"; the hatched {count(tally.n_review)} want review." if tally.n_review else "."

    def paint(axes: Axes) -> None:
        left = [(b + 0.08) / _BARS for b in bars["bin"]]
        kept = (bars["n"] - bars["n_review"]).to_list()
        # A bar of no height would still draw its outline on top of the other.
        review = [n or float("nan") for n in bars["n_review"]]
        width = 0.84 / _BARS
        axes.bar(left, kept, width, color=INKS["accent"], label="use as it is", align="edge")
        axes.bar(left, review, width, kept, color="none", edgecolor=INKS["doubt"], hatch="/////", lw=0.8,
                 label="wants review", align="edge")  # fmt: skip
        axes.axvline(MIN_CONFIDENCE, color=INKS["ink"], lw=0.8, ls=(0, (3, 2)))
        lowest = min(bars["bin"].to_list(), default=0) / _BARS
        # An empty bar on top of another would hold the axis at that one's height.
        highest = max(bars["n"].to_list(), default=1)
        axes.set_ylim(0, 1.12 * highest)
        axes.set(xlim=(min(lowest, 0.5), 1.0), xlabel=f"confidence (dashed: review below {MIN_CONFIDENCE})")
        axes.set_ylabel("texts")
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        _legend_above(axes)

    rows = tuple(
        (f"{b / _BARS:.2f} to {(b + 1) / _BARS:.2f}", count(n), count(n_review))
        for b, n, n_review in bars.select("bin", "n", "n_review").iter_rows()
    )
    columns = ("confidence", "texts", "of them to review")
    return Plot("confidence", "How sure the labels are", reading, draw("confidence", paint), columns, rows)


def size_plot(tally: Tally, is_sample: bool = False) -> Plot:
    """How many labels the teacher held possible, and with gold how often the true one is among them."""
    last = pl.min_horizontal("size", pl.lit(_MAX_SIZE))
    sizes = (
        tally.sizes.filter((pl.col("size") > 0) | (not is_sample))
        .group_by(last)
        .agg(pl.exclude("size").sum())
        .sort("size")
    )
    answered = int(sizes.filter(pl.col("size") > 0)["n"].sum())
    n_one = int(sizes.filter(pl.col("size") == 1)["n"].sum())
    several = sizes.filter(pl.col("size") > 1)
    reading = f"The teacher named one label for {percent(n_one / max(answered, 1))} of the texts that it answered"
    if n_gold := int(several["n_gold"].sum()):
        covered = int(several["n_covered"].sum()) / n_gold
        first = int(several["n_first_right"].sum()) / n_gold
        reading += (
            f"; where it named several, the true one is among them {percent(covered)} of the time, "
            f"and first {percent(first)}."
        )
    else:
        reading += f"; for the other {count(answered - n_one)} it held several possible."
    words = [_size_word(s) for s in sizes["size"]]

    def paint(axes: Axes) -> None:
        bars = axes.bar(words, sizes["n"].to_list(), color=INKS["accent"], width=0.6)
        # Over more bars the words would run into each other; the numbers below have them all.
        is_roomy = len(words) <= _ROOMY
        notes = [
            count(row["n"])
            + (f"\n{percent(row['n_covered'] / row['n_gold'])} cover" if row["n_gold"] and is_roomy else "")
            for row in sizes.iter_rows(named=True)
        ]
        axes.bar_label(bars, notes, padding=2, fontsize=7.5)
        axes.set(xlabel="labels in the candidate set", ylabel="texts")
        axes.margins(x=0.08 if len(words) > 2 else 0.5, y=0.2)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")

    rows = tuple(
        (
            _size_word(row["size"]),
            count(row["n"]),
            percent(row["n_covered"] / row["n_gold"] if row["n_gold"] else None),
            percent(row["n_first_right"] / row["n_gold"] if row["n_gold"] else None),
        )
        for row in sizes.iter_rows(named=True)
    )
    columns = ("labels in the set", "texts", "true label among them", "true label first")
    return Plot("sizes", "What the teacher held possible", reading, draw("sizes", paint), columns, rows)


def reliability_plot(confidences: pl.DataFrame) -> Plot:
    """Confidence against accuracy, with the gap on average (expected calibration error, Guo et al., ICML 2017)."""
    width = FINE_BINS // _RELIABILITY_BINS
    judged = confidences.filter(pl.col("n_gold") > 0).with_columns(
        # The mean of a fine bin stands for its rows with gold: they are within a thousandth of each other.
        mass=pl.col("confidence") / pl.col("n") * pl.col("n_gold")
    )
    bins = judged.group_by(pl.col("bin") // width).agg(pl.col("n_gold", "n_right", "mass").sum()).sort("bin")
    bins = bins.with_columns(said=pl.col("mass") / pl.col("n_gold"), right=pl.col("n_right") / pl.col("n_gold"))
    gap = float(((bins["said"] - bins["right"]).abs() * bins["n_gold"]).sum()) / int(bins["n_gold"].sum())
    signed = float(bins["mass"].sum()) - int(bins["n_right"].sum())
    if gap < 0.02:
        word = "confidences can be read as probabilities"
    else:
        word = (
            "labels are more often right than they say" if signed < 0 else "labels are less often right than they say"
        )
    reading = f"On average confidence is {100 * gap:.1f} points off: {word}."

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INKS["muted"], lw=0.8, ls=(0, (3, 2)), label="as said")
        most = max(bins["n_gold"].to_list())
        marks = [12 + 130 * n / most for n in bins["n_gold"]]
        axes.plot(bins["said"].to_list(), bins["right"].to_list(), color=INKS["accent"], lw=1.2)
        axes.scatter(bins["said"].to_list(), bins["right"].to_list(), s=marks, color=INKS["accent"], lw=0,
                     label="measured (size: texts)")  # fmt: skip
        lowest = min([*bins["said"], *bins["right"], 0.6])
        axes.set(xlim=(lowest - 0.05, 1.03), ylim=(lowest - 0.05, 1.03))
        axes.set(xlabel="confidence", ylabel="share that is right")
        axes.grid()
        _legend_above(axes, markerscale=0.6)

    rows = tuple(
        (f"{b / 10:.1f} to {(b + 1) / 10:.1f}", count(n), f"{said:.3f}", f"{right:.3f}")
        for b, n, said, right in bins.select("bin", "n_gold", "said", "right").iter_rows()
    )
    columns = ("confidence", "texts with gold", "mean confidence", "share right")
    return Plot("reliability", "Whether confidence keeps its word", reading, draw("reliability", paint), columns, rows)


def risk_plot(confidences: pl.DataFrame) -> Plot:
    """Accuracy of what is kept as the least sure texts are set aside (Geifman and El-Yaniv, NeurIPS 2017)."""
    judged = confidences.filter(pl.col("n_gold") > 0).sort("bin", descending=True)
    n_gold = int(judged["n_gold"].sum())
    curve = judged.select(
        confidence=pl.col("bin") / FINE_BINS,
        kept=pl.col("n_gold").cum_sum() / n_gold,
        accuracy=pl.col("n_right").cum_sum() / pl.col("n_gold").cum_sum(),
    )
    everything = float(curve["accuracy"][-1])
    steps = [(share, _accuracy_at(curve, share)) for share in (1.0, 0.95, 0.9, 0.8, 0.5)]
    reading = (
        f"Of all texts {percent(everything)} are right; set the least sure tenth aside and "
        f"{percent(steps[2][1])} of the rest are."
    )

    def paint(axes: Axes) -> None:
        axes.plot((100 * curve["kept"]).to_list(), (100 * curve["accuracy"]).to_list(), color=INKS["accent"], lw=1.6,
                  label="by confidence")  # fmt: skip
        axes.axhline(100 * everything, color=INKS["muted"], lw=0.8, ls=(0, (3, 2)), label="all texts")
        # The first few texts swing the share; the axis follows the curve from a twentieth on.
        settled = curve.filter(pl.col("kept") >= 0.05)["accuracy"]
        lowest, highest = 100 * float(settled.min() or 0), 100 * float(settled.max() or 1)  # type: ignore[arg-type]
        room = max(highest - lowest, 1.0) * 0.15
        axes.set(xlim=(0, 100), ylim=(lowest - room, min(highest + room, 100 + room / 2)))
        axes.set(xlabel="share of texts kept, the surest first (%)", ylabel="right (%)")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid()
        _legend_above(axes)

    rows = tuple((percent(share), percent(accuracy)) for share, accuracy in steps)
    name = "risk"
    title = "What setting doubtful texts aside is worth"
    return Plot(name, title, reading, draw(name, paint), ("texts kept", "of them right"), rows)


def confusion_plot(confusion: pl.DataFrame, names: tuple[str, ...]) -> Plot:
    """Which labels stand where another is true; the deeper the colour, the greater the share of the true label."""
    errors = confusion.filter(pl.col("gold") != pl.col("label"))
    height = 1.3 + 0.26 * len(names)
    width = max(4.6, height + 1)
    svg = draw("confusion", partial(_paint_confusion, confusion, names), height, width)
    title = "Which labels are taken for which"
    return Plot("confusion", title, _worst(errors), svg, _ERRORS, _error_rows(errors), is_wide=True)


def errors_plot(errors: pl.DataFrame) -> Plot:
    """The most frequent errors, of labels too many for a heat map."""
    rows = _error_rows(errors)

    def paint(axes: Axes) -> None:
        names = [f"{shortened(label, 20)}, truly {shortened(gold, 20)}" for gold, label, _ in rows]
        places = range(len(rows))
        bars = axes.barh(places, [int(n.replace(",", "")) for *_, n in rows], color=INKS["doubt"], height=0.6)
        axes.bar_label(bars, [n for *_, n in rows], padding=3, fontsize=7.5)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("texts")
        axes.xaxis.set_major_formatter(_THOUSANDS)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(axis="y", length=0)

    svg = draw("confusion", paint, height=0.9 + 0.22 * len(rows), width=6.4)
    return Plot("confusion", "The most frequent errors", _worst(errors), svg, _ERRORS, rows, is_wide=True)


def _worst(errors: pl.DataFrame) -> str:
    gold, label, n = errors.sort("n", "gold", "label", descending=[True, False, False]).row(0)
    return (
        f"The most frequent error of {count(int(errors['n'].sum()))}: "
        f"{shortened(gold, 40)} labelled {shortened(label, 40)}, {count(n)} times."
    )


def _error_rows(errors: pl.DataFrame) -> tuple[tuple[str, ...], ...]:
    top = errors.sort("n", "gold", "label", descending=[True, False, False]).head(12)
    return tuple((shortened(gold, 60), shortened(label, 60), count(n)) for gold, label, n in top.iter_rows())


def _paint_confusion(confusion: pl.DataFrame, names: tuple[str, ...], axes: Axes) -> None:
    place = {name: j for j, name in enumerate(names)}
    total = dict(confusion.group_by("gold").agg(pl.col("n").sum()).iter_rows())
    for gold, label, n in confusion.iter_rows():
        row, column, share = place[gold], place[label], n / total[gold]
        is_error = row != column
        colour = INKS["doubt"] if is_error else INKS["accent"]
        depth = 0.2 + 0.6 * share if is_error else 0.08 + 0.2 * share
        axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, color=colour, alpha=depth, lw=0))
        axes.text(column, row, count(n), ha="center", va="center", fontsize=7, fontweight="bold" if is_error else None)
    short = [shortened(name, 18) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), short)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="labelled", ylabel="true label")
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _legend_above(axes: Axes, markerscale: float = 1.0) -> None:
    """A legend over the axes, where it hides no bar and no curve, however these turn out."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
        markerscale=markerscale,
    )  # fmt: skip


def _accuracy_at(curve: pl.DataFrame, share: float) -> float:
    """Accuracy of the surest texts, at least so large a share of them."""
    return float(curve.filter(pl.col("kept") >= share - 1e-9)["accuracy"][0])


def _size_word(size: int) -> str:
    if size == 0:
        return "none"
    return f"{size} or more" if size == _MAX_SIZE else str(size)
