"""Figures of one run, as SVG."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.evaluation.contributions import ShapValues
from housing.evaluation.limitations import MIN_ROWS
from housing.evaluation.results import Evaluation, HarderSplitResult
from housing.evaluation.slices import CAPPED, SliceScore, quintiles
from housing.plots.run_figures import plot_importance, plot_predicted, plot_residuals
from housing.plots.svg import ACCENT, MUTED, PRIMARY, SERIES_COLORS, SvgFigure, draw_svg
from housing.reports.run_data import RunData
from housing.schema.column import Matrix, Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL_SIZE = (5.5, 4.7)  # inches: two fit side by side on a page, and one is readable on a phone
N_DECILES = 10
NOMINAL_LEVELS = tuple(level / 100 for level in range(50, 100, 5))
N_FOLDS = 5
MAX_FEATURES = 14  # columns in an importance plot
MAX_DEPENDENCE_PLOTS = 6
MAX_SWARM_ROWS = 500  # rows in a beeswarm plot


def error_figures(run: RunData) -> list[SvgFigure]:
    """Draw predicted against actual values, and residuals over predictions."""
    values = run.predictions, run.actual, run.weight, run.target_label
    return [
        draw_svg(
            "Predicted against actual",
            f"{run.rows_description}. On the line, predictions are exact.",
            lambda figure: _plot_untitled(plot_predicted, figure, *values),
            SMALL_SIZE,
        ),
        draw_svg(
            "Residuals",
            f"Prediction minus actual value, over the prediction. {run.rows_description}.",
            lambda figure: _plot_untitled(plot_residuals, figure, run.predictions, run.actual, run.target_label),
            SMALL_SIZE,
        ),
    ]


def _plot_untitled(plot: Any, figure: "Figure", *values: Any) -> None:
    """Draw without a title, which the page shows."""
    axes = figure.subplots()
    plot(axes, *values)
    axes.set_title("")


def calibration(run: RunData) -> SvgFigure:
    """Draw the mean target over the mean prediction, by decile of the prediction."""
    runs = [run]
    caption = (
        f"Mean target by decile of the prediction, with its 95 % confidence interval. On the line, predictions are unbiased."
        f" {run.rows_description}."
    )
    return draw_svg("Calibration", caption, lambda figure: plot_calibration(figure, runs), SMALL_SIZE)


def plot_calibration(figure: "Figure", runs: Sequence[RunData]) -> None:
    """Plot the mean target over the mean prediction, by decile of the prediction of each run."""
    axes = figure.subplots()
    ends = [math.inf, -math.inf]
    for run, colour in zip(runs, SERIES_COLORS, strict=False):
        groups = np.array_split(np.argsort(run.predictions, kind="stable"), min(N_DECILES, len(run.predictions)))
        x, y = (np.array([run.mean(values, rows) for rows in groups]) for values in (run.predictions, run.actual))
        half_width = np.array([1.96 * run.actual[rows].std() / math.sqrt(len(rows)) for rows in groups])
        axes.errorbar(x, y, half_width, fmt="o-", color=colour, markersize=5, linewidth=1, capsize=2, label=run.label)
        ends = [min(ends[0], x.min(), y.min()), max(ends[1], x.max(), y.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=f"mean prediction, {runs[0].target_label}", ylabel="mean actual")
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=9)


def interval_coverage(run: RunData) -> SvgFigure | None:
    """Draw the observed over the nominal coverage of intervals; return None if the run has no intervals."""
    inside = covered_by_level(run)
    if inside is None:
        return None
    levels = list(inside)
    fifths = [mask for _, mask in quintiles(run.predictions)]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1, linestyle="--", label="nominal")
        for mask, colour, label in (
            (fifths[0], ACCENT, "lowest fifth of predictions"),
            (fifths[-1], SERIES_COLORS[2], "highest fifth of predictions"),
        ):
            shares = [100 * run.mean(inside[level], mask) for level in levels]
            axes.plot([100 * level for level in levels], shares, "-", color=colour, linewidth=1, label=label)
        shares = [100 * run.mean(inside[level], slice(None)) for level in levels]
        axes.plot([100 * level for level in levels], shares, "o-", color=PRIMARY, markersize=5, label="all rows")
        axes.set(
            xlabel="nominal coverage, %", ylabel="observed coverage, %", xlim=(48, 100), ylim=(min(48, axes.get_ylim()[0]), 101)
        )
        axes.legend(frameon=False, fontsize=9)

    caption = (
        f"Share of targets inside their interval. {run.rows_description}; each fold has intervals that the other four calibrated."
    )
    return draw_svg("Interval coverage", caption, plot, SMALL_SIZE)


def covered_by_level(run: RunData) -> dict[float, Any] | None:
    """Return by nominal coverage which validation rows are covered, by intervals that other folds calibrated.

    None if the run has no intervals.
    """
    scored = run.holdout.calibration
    if scored is None:
        return None
    fold = np.random.default_rng(0).permutation(len(scored)) % N_FOLDS
    inside_by_level = {level: np.zeros(len(scored), dtype=bool) for level in NOMINAL_LEVELS}
    for number in range(N_FOLDS):
        others, rows = scored.select(fold != number), scored.select(fold == number)
        for level, inside in inside_by_level.items():
            inside[fold == number] = others.covers(rows, level)
    return inside_by_level


def shap_figures(shap: ShapValues, run: RunData) -> list[SvgFigure]:
    """Draw the mean absolute SHAP value of each column, and the SHAP values of single rows."""
    strongest = shap.top_features(MAX_FEATURES)[::-1]
    names = [shap.columns[index] for index in strongest]
    height = 1.0 + 0.3 * len(names)

    def bars(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(names, shap.mean_abs[strongest], color=PRIMARY, height=0.65)
        for position, value in enumerate(shap.mean_abs[strongest]):
            axes.annotate(f"{value:.3g}", (value, position), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.margins(x=0.14, y=0.02)
        axes.set_xlabel("mean absolute SHAP value")

    def swarm(figure: "Figure") -> None:
        axes = figure.subplots()
        for position, index in enumerate(strongest):
            _beeswarm(axes, position, shap.contributions[:MAX_SWARM_ROWS, index], shap.values[:MAX_SWARM_ROWS, index])
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("SHAP value; blue: low, red: high")

    rows = f"{len(shap.base_values):,} test rows (their targets are not used)"
    shown = f" The first {MAX_FEATURES} of {len(shap.columns)} columns." if len(shap.columns) > MAX_FEATURES else ""
    return [
        draw_svg(
            "Importance",
            f"SHAP values from XGBoost's own contributions, {run.contribution_label}.{shown} {rows}.",
            bars,
            (5.5, height),
        ),
        draw_svg(
            "SHAP values",
            f"Each dot is the SHAP value of one row; its colour is the value of the column, from low to high. {rows}.",
            swarm,
            (5.5, height),
        ),
    ]


def _beeswarm(axes: "Axes", height: int, contribution: Vector, values: Vector) -> None:
    """Draw a beeswarm: dots of similar value are spread vertically."""
    bins = np.round((contribution - contribution.min()) / (np.ptp(contribution) or 1.0) * 60)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins.astype(int))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = np.empty(len(order))
    offset[order] = np.where(rank % 2, 1, -1) * ((rank + 1) // 2)
    spread = 0.38 * offset / max(1.0, float(np.abs(offset).max()))
    ranks = np.argsort(np.argsort(values)) / max(1, len(values) - 1)
    axes.scatter(contribution, height + spread, c=ranks, cmap="coolwarm", s=5, linewidths=0, rasterized=True)


def shap_dependence(shap: ShapValues, run: RunData) -> SvgFigure:
    """Draw the SHAP value of the most important columns over their values."""
    shown = shap.top_features(MAX_DEPENDENCE_PLOTS)
    columns = min(3, len(shown))

    def plot(figure: "Figure") -> None:
        grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharey=True)
        for axes, index in zip(grid.flat, shown, strict=False):
            values, contribution = shap.values[:, index], shap.contributions[:, index]
            axes.scatter(values, contribution, s=5, color=PRIMARY, alpha=0.35, linewidths=0, rasterized=True)
            axes.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
            present = values[~np.isnan(values)]
            if present.size and np.ptp(present) > 0:
                low, high = np.quantile(present, (0.005, 0.995))
                _plot_median(axes, values, contribution)
                if high > low:
                    axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            axes.set_xlabel(shap.columns[index])
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("SHAP value")

    caption = (
        f"SHAP value over the value of the column, with the median; the extreme 1 % of the values is cut off."
        f" {run.contribution_label}, {len(shap.base_values):,} test rows (their targets are not used)."
    )
    return draw_svg("Dependence", caption, plot, (11.2, 2.9 * -(-len(shown) // columns)))


def _plot_median(axes: "Axes", values: Vector, contribution: Vector) -> None:
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    groups = [rows for rows in np.array_split(order, 20) if len(rows)]
    x, y = ([float(np.median(column[rows])) for rows in groups] for column in (values, contribution))
    axes.plot(x, y, color=ACCENT, linewidth=1.6)


def permutation_importance(run: RunData, matrix: Matrix, weight: Vector | None) -> SvgFigure:
    """Draw permutation importance, for models that have no SHAP values."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_importance(axes, run.bundle, matrix, weight, run.target_label)
        axes.set_title("")
        axes.set_xlabel("RMS change of predictions if the column is permuted")

    caption = (
        "Permutation importance; SHAP values are available only if every member of the model is an XGBoost model."
        f" {min(1000, len(matrix)):,} test rows (their targets are not used). {run.target_label}."
    )
    return draw_svg("Importance", caption, plot, (5.5, 1.2 + 0.3 * matrix.shape[1]))


def learning_curve(run: RunData, sizes: Sequence[int], rmse: Sequence[float]) -> SvgFigure:
    """Draw the RMSE over the number of training rows."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(sizes, rmse, "o-", color=PRIMARY)
        for x, y in zip(sizes, rmse, strict=True):
            axes.annotate(f"{y:.3f}", (x, y), (5, 5), textcoords="offset points", fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.margins(x=0.13, y=0.15)
        axes.set(xlabel="training rows", ylabel=f"RMSE, {run.target_label}")

    scored = f"{len(run.holdout.rows):,} validation rows"
    caption = f"Each dot is a fit on a random subset of the training rows, scored on {scored}."
    return draw_svg("Learning curve", caption, plot, SMALL_SIZE)


def errors_by_slice(
    labels: Sequence[str], scored: Sequence[Sequence[SliceScore]], overall: Sequence[float], rows_description: str
) -> SvgFigure:
    """Draw the RMSE by slice for one or several runs, without slices of few rows."""
    shown = [[slice_ for slice_ in slices_ if slice_.rows >= MIN_ROWS] for slices_ in scored]
    first = shown[0]
    names = [f"{slice_.kind} {slice_.name}  ({slice_.rows:,})" for slice_ in first][::-1]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        for label, colour, slices_, rmse in zip(labels, SERIES_COLORS, shown, overall, strict=False):
            axes.axvline(rmse, color=colour, linewidth=1, linestyle="--", zorder=0)
            axes.plot(
                [slice_.rmse for slice_ in slices_][::-1],
                range(len(slices_)),
                "o",
                color=colour,
                markersize=6,
                alpha=0.9,
                label=label,
            )
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="y", color="#eef1f4", zorder=0)
        axes.tick_params(axis="y", length=0)
        for index, (previous, current) in enumerate(pairwise(first)):
            if current.kind != previous.kind:
                axes.axhline(len(names) - 1.5 - index, color=MUTED, linewidth=0.6)
        axes.set_xlabel("RMSE; dashed: all rows")
        if len(labels) > 1:
            axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(labels))

    capped = (
        " Capped: the target is at its declared minimum or maximum." if any(slice_.kind == CAPPED for slice_ in first) else ""
    )
    few = f" Slices of fewer than {MIN_ROWS} rows are left out." if len(first) < len(scored[0]) else ""
    caption = f"{rows_description}; number of rows in brackets.{capped}{few}"
    return draw_svg("Error by slice", caption, plot, (5.5, 1.2 + 0.27 * len(names)))


def errors_by_distance(evaluation: Evaluation, unit: str) -> list[SvgFigure]:
    """Draw the RMSE over the distance to the nearest fitted row, for results of the blocks split."""
    results = [result for result in evaluation.harder_splits if result.split == "blocks" and len(result.distance_bands) > 1]
    return [_errors_by_distance(result, evaluation.scores["rmse"], unit) for result in results]


def _errors_by_distance(result: HarderSplitResult, test_rmse: float, unit: str) -> SvgFigure:
    bands = result.distance_bands

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        names = [f"{band.min_km:g}–{band.max_km:g}" if band.max_km else f"> {band.min_km:g}" for band in bands]
        axes.bar(names, [band.rmse for band in bands], color=PRIMARY, width=0.7)
        for position, band in enumerate(bands):
            label, offset = f"{band.rmse:.2f}\n({band.rows:,})", (0, 3)
            axes.annotate(label, (position, band.rmse), offset, textcoords="offset points", ha="center", fontsize=8)
        axes.axhline(test_rmse, color=ACCENT, linewidth=1, linestyle="--", label="test rows of the run's own split")
        axes.margins(y=0.18)
        axes.legend(frameon=False, fontsize=9)
        axes.set(xlabel="km to the nearest fitted row", ylabel=f"RMSE, {unit}")

    caption = (
        f"{result.test_rows:,} rows in held-out blocks of the map, predicted by a refit of the same config; rows in brackets."
    )
    return draw_svg("Error by distance", caption, plot, SMALL_SIZE)
