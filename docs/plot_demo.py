"""Draw the README's picture from the version that `make demo` publishes: `python docs/plot_demo.py`."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import polars as pl

from candist_core import load
from candist_core.metrics import risk_coverage

TEACHER, FINAL, MUTED = "#b4632d", "#1f6f8b", "#8a8f98"


def main(reference: str = "published/support-intents", out: str = "docs/demo.png") -> None:
    """Plot set sizes with the teacher's accuracy, and accuracy against the share of labels kept."""
    frame = load(reference).with_columns(size=pl.col("candidates").list.len()).collect()
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")

    right_first = (pl.col("teacher_label") == pl.col("gold")).mean()
    sizes = frame.group_by("size").agg(n=pl.len(), accuracy=right_first).sort("size")
    bars = left.bar([str(size) for size in sizes["size"]], sizes["n"], color=TEACHER, width=0.6)
    words = [f"{n:,}\n{100 * accuracy:.1f} % right" for n, accuracy in sizes.select("n", "accuracy").iter_rows()]
    left.bar_label(bars, words, padding=2, fontsize=9)
    left.margins(y=0.2)
    left.set(xlabel="labels in the candidate set", ylabel="texts", title="What the teacher said")

    is_right = (frame["label"] == frame["gold"]).to_numpy()
    curve = risk_coverage(frame["confidence"].to_numpy(), is_right)
    right.plot(100 * curve["kept"], 100 * (1 - curve["risk"]), color=FINAL, lw=2, label="by confidence")
    right.axhline(100 * is_right.mean(), color=MUTED, lw=1, ls="--", label="all texts")
    right.set(xlim=(60, 100), ylim=(97, 100.1), xlabel="share of texts kept (%)", ylabel="accuracy (%)")
    right.set_title("What setting the least confident aside is worth")
    right.legend(frameon=False, loc="lower left")
    figure.savefig(Path(out), dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
