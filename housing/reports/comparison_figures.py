"""Figures that compare runs, as SVG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from housing.evaluation.slices import SliceScore, score_slices
from housing.plots.run_figures import plot_map
from housing.plots.svg import SERIES_COLORS, TEXT, SvgFigure, draw_svg
from housing.reports.map_figures import draw_landmarks
from housing.reports.run_data import RunData
from housing.reports.run_figures import SMALL_SIZE, plot_calibration
from housing.schema.column import Matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def metric_bars(runs: Sequence[RunData], shown: Sequence[tuple[str, str, float]]) -> SvgFigure:
    """Draw metrics and costs of runs side by side. `shown` has name, label and divisor of each."""

    def plot(figure: "Figure") -> None:
        row = figure.subplots(1, len(shown), sharey=True)
        positions = range(len(runs))[::-1]
        for axes, (name, label, divisor) in zip(row, shown, strict=True):
            values = [run.past_run.run.metrics[name] / divisor for run in runs]
            axes.barh(positions, values, color=SERIES_COLORS[: len(runs)], height=0.6)
            for position, value in zip(positions, values, strict=True):
                axes.annotate(
                    _format_number(value), (value, position), (3, 0), textcoords="offset points", va="center", fontsize=9
                )
            axes.margins(x=0.35)
            axes.set_title(label, fontsize=10)
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
        row[0].set_yticks(positions, [f"{run.label}  {run.cfg.model.name} {run.cfg.features.name}" for run in runs])

    return draw_svg(
        "Scores and costs",
        f"Scores on validation rows and costs, as each run measured them. Lower is better. {runs[0].target_label}.",
        plot,
        (11.2, 0.9 + 0.42 * len(runs)),
    )


def _format_number(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def compare_calibration(runs: Sequence[RunData]) -> SvgFigure:
    """Draw the calibration of several runs."""
    caption = f"Mean target by decile of the prediction. {runs[0].rows_description}."
    return draw_svg("Calibration", caption, lambda figure: plot_calibration(figure, runs), SMALL_SIZE)


def compare_error_maps(runs: Sequence[RunData]) -> list[SvgFigure]:
    """Draw the error map of each run, all with the same colour scale."""
    limit = float(np.quantile(np.abs(np.concatenate([run.error for run in runs])), 0.95)) or 1.0

    def draw_map(run: RunData, coordinates: Matrix) -> SvgFigure:
        def plot(figure: "Figure") -> None:
            axes = figure.subplots()
            plot_map(axes, coordinates, run.error, run.target_label, limit)
            draw_landmarks(axes, run)
            axes.set_title("")

        return draw_svg(
            f"Error map of {run.label}", f"{run.rows_description}; the same colour scale in each map.", plot, (5.5, 5.6)
        )

    return [draw_map(run, run.coordinates) for run in runs if run.coordinates is not None]


def prediction_differences(first: RunData, other: RunData, colour: str) -> list[SvgFigure]:
    """Draw the difference between the predictions of two runs."""
    difference = other.predictions - first.predictions

    def scatter(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.scatter(first.predictions, difference, s=5, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axes.axhline(0, color=TEXT, linewidth=0.8)
        axes.set(xlabel=f"predicted by {first.label}, {first.target_label}", ylabel=f"{other.label} minus {first.label}")

    title = f"{other.label} against {first.label}"
    caption = f"{len(difference):,} validation rows; root mean square difference {np.sqrt(np.mean(difference**2)):.4g}."
    figures = [draw_svg(title, caption, scatter, SMALL_SIZE)]
    coordinates = first.coordinates
    if coordinates is not None:

        def on_map(figure: "Figure") -> None:
            axes = figure.subplots()
            plot_map(axes, coordinates, difference, first.target_label)
            draw_landmarks(axes, first)
            axes.set_title("")
            axes.figure.axes[-1].set_ylabel(f"{other.label} minus {first.label}, {first.target_label}")

        figures.append(draw_svg(f"{title}, on the map", caption, on_map, (5.5, 5.6)))
    return figures


def score_run_slices(run: RunData) -> list[SliceScore]:
    """Score the validation rows of a run by slice."""
    return score_slices(run.slices, run.predictions, run.actual, run.weight, run.parts.units_of(run.holdout.rows))
