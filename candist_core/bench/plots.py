"""Plots of experiments, from the same tables that are printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from candist_core.bench.tables import Figures, Plot, Shape, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX*"
_PANELS_A_ROW = 4


def draw(figures: Sequence[Figures], path: Path) -> bool:
    """One picture of the tables that say how they are drawn.

    Args:
        figures: tables of one experiment; those without a plot or without numbers are passed over.
        path: a .png file.

    Returns:
        False where nothing can be drawn: no such table, or no matplotlib.
    """
    drawable = [(table, table.plot) for table in figures if table.plot is not None and _drawn(table, table.plot)]
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    if not drawable:
        return False
    panels = [table for table, plot in drawable if plot.shape is Shape.PANELS]
    if panels:
        picture = Figure(layout="constrained", dpi=110)
        _panels(picture, panels)
    else:
        picture = Figure(figsize=(5.2 * len(drawable), 4.6), layout="constrained", dpi=110)
        for place, (table, plot) in enumerate(drawable, start=1):
            _one(picture.add_subplot(1, len(drawable), place), table, plot)
    picture.savefig(path)
    return True


def _one(axes: "Axes", table: Figures, plot: Plot) -> None:
    axes.set_title(table.title, fontsize=9)
    columns = _drawn(table, plot)
    if plot.shape is Shape.SCATTER:
        _scatter(axes, table, columns)
    for column, marker in zip([] if plot.shape is Shape.SCATTER else columns, _MARKERS * 9, strict=False):
        found = [_number(row[column]) for row in table.rows]
        values, bars = [mean for mean, _, _ in found], [[mean - low for mean, low, _ in found]]
        bars.append([high - mean for mean, _, high in found])
        if plot.shape is Shape.LINES:
            axes.errorbar(_across(table), values, yerr=bars, marker=marker, capsize=2, label=table.columns[column])
        else:
            names = [" ".join(str(cell) for cell in row if isinstance(cell, str)) for row in table.rows]
            axes.errorbar(values, names, xerr=bars, marker=marker, linestyle="", label=table.columns[column])
    axes.set_xlabel(plot.across, fontsize=8)
    axes.set_ylabel(plot.up, fontsize=8)
    axes.tick_params(labelsize=7, axis="both")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    if plot.shape is Shape.DOTS:
        axes.invert_yaxis()


def _scatter(axes: "Axes", table: Figures, columns: Sequence[int]) -> None:
    """The first two numbers of each row, in a colour by its first cell."""
    for name, marker in zip(dict.fromkeys(row[0] for row in table.rows), _MARKERS * 9, strict=False):
        rows = [row for row in table.rows if row[0] == name]
        xs, ys = ([_number(row[column])[0] for row in rows] for column in columns[:2])
        axes.scatter(xs, ys, s=16, alpha=0.7, marker=marker, label=str(name))
    axes.axhline(0.0, color="grey", linewidth=0.8)


def _panels(picture: "Figure", tables: Sequence[Figures]) -> None:
    """A small picture for each column; the band spans the rows that are called clean."""
    names = list(dict.fromkeys(column for table in tables for column in _names(table)))
    n_rows = -(-len(names) // _PANELS_A_ROW)
    picture.set_size_inches(3.1 * _PANELS_A_ROW + 1.5, (0.6 + 0.17 * max(len(t.rows) for t in tables)) * n_rows + 0.4)
    every = picture.subplots(n_rows, _PANELS_A_ROW, sharey=True, squeeze=False).ravel()
    for axes in every[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(every, names, strict=False):
        having = [table for table in tables if name in table.columns]
        clean: list[float] = []
        for table, marker in zip(having, _MARKERS, strict=False):
            cells = [(str(row[0]), *_number(row[table.columns.index(name)])) for row in table.rows]
            rows, values = [cell[0] for cell in cells], [cell[1] for cell in cells]
            bars = [[mean - low for _, mean, low, _ in cells], [high - mean for _, mean, _, high in cells]]
            axes.errorbar(values, rows, xerr=bars, marker=marker, markersize=4, linestyle="", label=_legend(table))
            clean += [value for row, value in zip(rows, values, strict=True) if row.startswith("clean")]
        if clean:
            axes.axvspan(min(clean), max(clean), color="grey", alpha=0.15)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=6.5)
        axes.grid(alpha=0.3)
    every[0].invert_yaxis()
    handles, labels = every[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)


def _legend(table: Figures) -> str:
    return table.plot.across if table.plot is not None else table.title


def _across(table: Figures) -> list[float] | list[str]:
    """Where the points of a line stand: at numbers if the first column holds them, evenly spaced else."""
    first = [row[0] for row in table.rows]
    if all(isinstance(cell, float) for cell in first):
        return [_number(cell)[0] for cell in first]
    return [str(cell) for cell in first]


def _number(cell: object) -> tuple[float, float, float]:
    """A figure with its range."""
    if isinstance(cell, Spread):
        return cell.mean, cell.low, cell.high
    assert isinstance(cell, float), "only columns of numbers are drawn"
    return cell, cell, cell


def _names(table: Figures) -> list[str]:
    return [] if table.plot is None else [table.columns[column] for column in _drawn(table, table.plot)]


def _drawn(table: Figures, plot: Plot) -> list[int]:
    """Columns that are drawn: they hold numbers throughout."""
    chosen = [table.columns.index(name) for name in plot.columns or table.columns[1:]]
    return [j for j in chosen if all(isinstance(row[j], float | Spread) for row in table.rows)]
