"""TODO docstring."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from housing.evaluation.slices import Slice, slices
from housing.plots.run_figures import plot_map
from housing.plots.svg import INK, SERIES, Drawn, draw_svg
from housing.reports.run_data import Subject
from housing.schema.column import Matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from housing.reports.map_figures import _landmarks
from housing.reports.run_figures import SMALL, _plot_calibration


def metrics(subjects: Sequence[Subject], shown: Sequence[tuple[str, str, float]]) -> Drawn:
    """Draw metrics and costs of runs side by side. `shown`: name, label, and by what to divide."""

    def plot(figure: "Figure") -> None:
        row = figure.subplots(1, len(shown), sharey=True)
        places = range(len(subjects))[::-1]
        for axes, (name, label, divisor) in zip(row, shown, strict=True):
            values = [subject.original.run.metrics[name] / divisor for subject in subjects]
            axes.barh(places, values, color=SERIES[: len(subjects)], height=0.6)
            for place, value in zip(places, values, strict=True):
                axes.annotate(_number(value), (value, place), (3, 0), textcoords="offset points", va="center", fontsize=9)
            axes.margins(x=0.35)
            axes.set_title(label, fontsize=10)
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
        row[0].set_yticks(places, [f"{one.label}  {one.cfg.model.name} {one.cfg.features.name}" for one in subjects])

    return draw_svg(
        "Figures side by side",
        f"Scores of the validation rows and costs, as each run measured them; less is better in all. {subjects[0].unit}.",
        plot,
        (11.2, 0.9 + 0.42 * len(subjects)),
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def calibrations(subjects: Sequence[Subject]) -> Drawn:
    """Draw the calibration of several runs."""
    caption = f"Mean target by decile of the prediction. {subjects[0].rows}."
    return draw_svg("Calibration", caption, lambda figure: _plot_calibration(figure, subjects), SMALL)


def maps_alike(subjects: Sequence[Subject]) -> list[Drawn]:
    """Draw the error map of each run, all with the same colours."""
    limit = float(np.quantile(np.abs(np.concatenate([subject.error for subject in subjects])), 0.95)) or 1.0

    def drawn(subject: Subject, places: Matrix) -> Drawn:
        def plot(figure: "Figure") -> None:
            axes = figure.subplots()
            plot_map(axes, places, subject.error, subject.unit, limit)
            _landmarks(axes, subject)
            axes.set_title("")

        return draw_svg(f"Error map of {subject.label}", f"{subject.rows}; the same colours in each map.", plot, (5.5, 5.6))

    return [drawn(subject, subject.places) for subject in subjects if subject.places is not None]


def differences(first: Subject, other: Subject, colour: str) -> list[Drawn]:
    """Draw where two runs do not predict the same."""
    apart = other.predicted - first.predicted

    def over(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.scatter(first.predicted, apart, s=5, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set(xlabel=f"predicted by {first.label}, {first.unit}", ylabel=f"{other.label} less {first.label}")

    title = f"{other.label} against {first.label}"
    caption = f"{len(apart):,} validation rows; root mean square of the difference {np.sqrt(np.mean(apart**2)):.4g}."
    drawn = [draw_svg(title, caption, over, SMALL)]
    places = first.places
    if places is not None:

        def of_places(figure: "Figure") -> None:
            axes = figure.subplots()
            plot_map(axes, places, apart, first.unit)
            _landmarks(axes, first)
            axes.set_title("")
            axes.figure.axes[-1].set_ylabel(f"{other.label} less {first.label}, {first.unit}")

        drawn.append(draw_svg(f"{title}, on the map", caption, of_places, (5.5, 5.6)))
    return drawn


def sliced(subject: Subject) -> list[Slice]:
    """Score the validation rows of a run by slice."""
    return slices(subject.groups, subject.predicted, subject.actual)
