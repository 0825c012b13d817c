"""Plots of experiments, from the same tables that are printed."""

from collections.abc import Sequence
from pathlib import Path

from candist_core.bench.tables import Figures

_LINES = ("Noise", "Number of candidates")


def draw(figures: Sequence[Figures], path: Path) -> bool:
    """One picture of the tables that make one: lines over a grid, bars else.

    Args:
        figures: tables of one experiment; those without numbers are passed over.
        path: a .png file.

    Returns:
        False where nothing can be drawn: no such table, or no matplotlib.
    """
    drawable = [table for table in figures if _numbers(table)]
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    if not drawable:
        return False
    picture = Figure(figsize=(5.2 * len(drawable), 4.6), layout="constrained", dpi=110)
    for place, table in enumerate(drawable, start=1):
        axes = picture.add_subplot(1, len(drawable), place)
        axes.set_title(table.title, fontsize=9)
        columns, is_line = _numbers(table), table.title.startswith(_LINES)
        names = [" ".join(str(cell) for cell in row if isinstance(cell, str)) for row in table.rows]
        for column in columns:
            values = [float(str(row[column])) for row in table.rows]
            if is_line:
                axes.plot(names, values, marker="o", label=table.columns[column])
            else:
                axes.plot(values, names, marker="o", linestyle="", label=table.columns[column])
        axes.tick_params(labelsize=7, axis="both")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
        if not is_line:
            axes.invert_yaxis()
    picture.savefig(path)
    return True


def _numbers(table: Figures) -> list[int]:
    """Columns that hold numbers throughout."""
    return [j for j in range(len(table.columns)) if all(isinstance(row[j], float) for row in table.rows)]
