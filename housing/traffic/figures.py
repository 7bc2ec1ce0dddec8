"""Figures of a replay, as SVG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from housing.plots.run_figures import plot_map
from housing.plots.svg import ACCENT, MUTED, PRIMARY, TEXT, SvgFigure, draw_svg
from housing.schema.column import Matrix, Vector
from housing.traffic.differences import ColumnDifferences, Differences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (5.5, 4.7)  # inches, as on the other pages
N_BARS = 60
CENTRAL_SHARE = 0.99  # of the rows in the histogram
SUBJECT = "candidate minus answer"


def difference_figures(differences: Differences, unit: str) -> list[SvgFigure]:
    """Draw the distribution of the differences, and both predictions of each row, for a random sample of rows."""
    logged, candidate, coordinates = differences.sample
    caption = f"{_sampled(differences)}."

    def histogram(figure: "Figure") -> None:
        axes = figure.subplots()
        difference = candidate - logged
        low, high = np.quantile(difference, ((1 - CENTRAL_SHARE) / 2, (1 + CENTRAL_SHARE) / 2))
        axes.hist(difference, bins=N_BARS, range=(low, high) if low < high else None, color=PRIMARY)
        axes.axvline(0, color=TEXT, linewidth=0.8)
        axes.set(xlabel=f"{SUBJECT}, {unit}", ylabel="rows")

    def scatter(figure: "Figure") -> None:
        axes = figure.subplots()
        ends = [min(logged.min(), candidate.min()), max(logged.max(), candidate.max())]
        axes.scatter(logged, candidate, s=5, color=PRIMARY, alpha=0.35, linewidths=0, rasterized=True)
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        axes.set(xlabel=f"answer, {unit}", ylabel="candidate")

    figures = [
        draw_svg("Differences", f"The central {CENTRAL_SHARE:.0%}. {caption}", histogram, SIZE),
        draw_svg("Candidate against answer", f"On the line, both agree. {caption}", scatter, SIZE),
    ]
    return figures if coordinates is None else [*figures, _map(coordinates, candidate - logged, unit, caption)]


def _sampled(differences: Differences) -> str:
    rows, sampled = differences.overall.rows, len(differences.sample[0])
    return f"All {rows:,} rows" if sampled == rows else f"A random sample of {sampled:,} of {rows:,} rows"


def _map(coordinates: Matrix, difference: Vector, unit: str, caption: str) -> SvgFigure:
    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        located = ~np.isnan(coordinates).any(axis=1)
        plot_map(axes, coordinates[located], difference[located], unit)
        axes.set_title("")
        axes.figure.axes[-1].set_ylabel(f"{SUBJECT}, {unit}")

    return draw_svg("Differences on the map", f"Red: the candidate is higher. {caption}", plot, (5.5, 5.6))


def column_figures(columns: Sequence[ColumnDifferences], unit: str) -> list[SvgFigure]:
    """Draw the mean and the RMS of the differences by bin of each column."""

    def draw(column: ColumnDifferences) -> SvgFigure:
        caption = f"All rows. The bins explain {column.explained:.1%} of the variance of the differences."
        return draw_svg(f"By {column.name}", caption, lambda figure: _plot_bins(figure.subplots(), column, unit), SIZE)

    return [draw(column) for column in columns]


def _plot_bins(axes: "Axes", column: ColumnDifferences, unit: str) -> None:
    names, summaries = list(column.bins), list(column.bins.values())
    positions = np.arange(len(names))[::-1]
    axes.barh(positions, [summary.mean for summary in summaries], height=0.6, color=PRIMARY, label="mean")
    axes.plot([summary.rms for summary in summaries], positions, "o", color=ACCENT, markersize=4, label="RMS")
    axes.axvline(0, color=TEXT, linewidth=0.8)
    axes.set_yticks(positions, [name if len(name) <= 24 else f"{name[:23]}…" for name in names], fontsize=8)
    axes.set_xlabel(f"{SUBJECT}, {unit}")
    axes.legend(frameon=False, fontsize=9)
