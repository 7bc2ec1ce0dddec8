"""The figures of a report, as SVG for its page: of one run, and of several side by side."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.evaluation.contributions import ShapValues
from housing.evaluation.limitations import MIN_ROWS
from housing.evaluation.results import Evaluation
from housing.evaluation.slices import CAPPED, SliceScore, quintiles
from housing.plots.run_figures import plot_importance, plot_predicted, plot_residuals
from housing.plots.svg import ACCENT, MUTED, PRIMARY, SERIES_COLORS, SvgFigure, draw_svg
from housing.reports.run_data import RunData
from housing.schema.column import Matrix, Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL_SIZE = (5.5, 4.7)  # inches: two stand side by side on a page, and one can be read on a telephone


N_DECILES = 10


NOMINAL_LEVELS = tuple(level / 100 for level in range(50, 100, 5))


N_FOLDS = 5


MAX_FEATURES = 14  # columns whose importance is drawn


MAX_DEPENDENCE_PLOTS = 6


MAX_SWARM_ROWS = 500  # rows of a swarm


def error_figures(run: RunData) -> list[SvgFigure]:
    """Draw predicted against actual, and the error over the prediction."""
    predicted, actual, unit = run.predictions, run.actual, run.target_label
    return [
        draw_svg(
            "Predicted against actual",
            f"{run.rows_description}. On the line, predictions are right.",
            lambda figure: _plot_untitled(plot_predicted, figure, predicted, actual, unit),
            SMALL_SIZE,
        ),
        draw_svg(
            "Residuals",
            f"Predicted less actual, over the prediction. {run.rows_description}.",
            lambda figure: _plot_untitled(plot_residuals, figure, predicted, actual, unit),
            SMALL_SIZE,
        ),
    ]


def _plot_untitled(plot: Any, figure: "Figure", *values: Any) -> None:
    """Draw without a title: the page has it."""
    axes = figure.subplots()
    plot(axes, *values)
    axes.set_title("")


def calibration(run: RunData) -> SvgFigure:
    """Draw the mean target over the mean prediction, by decile of the prediction."""
    runs = [run]
    caption = (
        f"Mean target by decile of the prediction, with 95 % of what chance allows. On the line, predictions are right on"
        f" average. {run.rows_description}."
    )
    return draw_svg("Calibration", caption, lambda figure: _plot_calibration(figure, runs), SMALL_SIZE)


def _plot_calibration(figure: "Figure", runs: Sequence[RunData]) -> None:
    axes = figure.subplots()
    ends = [math.inf, -math.inf]
    for run, colour in zip(runs, SERIES_COLORS, strict=False):
        groups = np.array_split(np.argsort(run.predictions, kind="stable"), min(N_DECILES, len(run.predictions)))
        x = np.array([run.predictions[rows].mean() for rows in groups])
        y = np.array([run.actual[rows].mean() for rows in groups])
        chance = np.array([1.96 * run.actual[rows].std() / math.sqrt(len(rows)) for rows in groups])
        axes.errorbar(x, y, chance, fmt="o-", color=colour, markersize=5, linewidth=1, capsize=2, label=run.label)
        ends = [min(ends[0], x.min(), y.min()), max(ends[1], x.max(), y.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=f"mean prediction, {runs[0].target_label}", ylabel="mean actual")
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=9)


def interval_coverage(run: RunData) -> SvgFigure | None:
    """Draw the share of targets that intervals cover over the share that was asked for; None without intervals."""
    inside = covered_by_level(run)
    if inside is None:
        return None
    asked = list(inside)
    low_to_high = [where for _, where in quintiles(run.predictions)]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1, linestyle="--", label="as asked")
        for where, colour, label in (
            (low_to_high[0], ACCENT, "lowest fifth of predictions"),
            (low_to_high[-1], SERIES_COLORS[2], "highest fifth"),
        ):
            shares = [100 * inside[level][where].mean() for level in asked]
            axes.plot([100 * level for level in asked], shares, "-", color=colour, linewidth=1, label=label)
        shares = [100 * inside[level].mean() for level in asked]
        axes.plot([100 * level for level in asked], shares, "o-", color=PRIMARY, markersize=5, label="all rows")
        axes.set(xlabel="asked for, %", ylabel="covered, %", xlim=(48, 100), ylim=(min(48, axes.get_ylim()[0]), 101))
        axes.legend(frameon=False, fontsize=9)

    caption = f"Share of targets in their interval. {run.rows_description}; each fifth of them with intervals that the other four calibrated."
    return draw_svg("Coverage of intervals", caption, plot, SMALL_SIZE)


def covered_by_level(run: RunData) -> dict[float, Any] | None:
    """Say for each coverage that may be asked which rows are covered, by intervals that other rows calibrated."""
    scales, error = run.holdout.error_scales, run.error
    if scales is None:
        return None
    scores, fold = np.abs(error) / scales, np.random.default_rng(0).permutation(len(error)) % N_FOLDS
    found = {level: np.zeros(len(error), dtype=bool) for level in NOMINAL_LEVELS}
    for number in range(N_FOLDS):
        others, mine = np.sort(scores[fold != number]), fold == number
        for level, inside in found.items():
            place = math.ceil((len(others) + 1) * level) - 1
            inside[mine] = scores[mine] <= (others[place] if place < len(others) else math.inf)
    return found


def shap_figures(shap: ShapValues, run: RunData) -> list[SvgFigure]:
    """Draw which columns move predictions, and how."""
    strongest = shap.top_features(MAX_FEATURES)[::-1]
    names = [shap.columns[place] for place in strongest]
    height = 1.0 + 0.3 * len(names)

    def bars(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(names, shap.mean_abs[strongest], color=PRIMARY, height=0.65)
        for place, value in enumerate(shap.mean_abs[strongest]):
            axes.annotate(f"{value:.3g}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.margins(x=0.14, y=0.02)
        axes.set_xlabel("mean absolute SHAP value")

    def swarm(figure: "Figure") -> None:
        axes = figure.subplots()
        for height_, place in enumerate(strongest):
            _beeswarm(axes, height_, shap.contributions[:MAX_SWARM_ROWS, place], shap.values[:MAX_SWARM_ROWS, place])
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("SHAP value; blue: low, red: high")

    rows = f"{len(shap.base_values):,} test rows, of which the targets are not looked at"
    more = f" The first {MAX_FEATURES} of {len(shap.columns)} columns." if len(shap.columns) > MAX_FEATURES else ""
    return [
        draw_svg(
            "Importance", f"SHAP values from XGBoost's own contributions, {run.target_label}.{more} {rows}.", bars, (5.5, height)
        ),
        draw_svg(
            "What values do",
            f"Each dot is the SHAP value of one row; its colour is the value of the column, from low to high. {rows}.",
            swarm,
            (5.5, height),
        ),
    ]


def _beeswarm(axes: "Axes", height: int, contribution: Vector, values: Vector) -> None:
    """Draw dots that make room for each other where many are alike."""
    bins = np.round((contribution - contribution.min()) / (np.ptp(contribution) or 1.0) * 60)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins.astype(int))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    away = np.empty(len(order))
    away[order] = np.where(rank % 2, 1, -1) * ((rank + 1) // 2)
    spread = 0.38 * away / max(1.0, float(np.abs(away).max()))
    ranks = np.argsort(np.argsort(values)) / max(1, len(values) - 1)
    axes.scatter(contribution, height + spread, c=ranks, cmap="coolwarm", s=5, linewidths=0, rasterized=True)


def shap_dependence(shap: ShapValues, run: RunData) -> SvgFigure:
    """Draw what the strongest columns contribute over the values that they hold."""
    shown = shap.top_features(MAX_DEPENDENCE_PLOTS)
    columns = min(3, len(shown))

    def plot(figure: "Figure") -> None:
        grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharey=True)
        for axes, place in zip(grid.flat, shown, strict=False):
            values, contribution = shap.values[:, place], shap.contributions[:, place]
            axes.scatter(values, contribution, s=5, color=PRIMARY, alpha=0.35, linewidths=0, rasterized=True)
            axes.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
            there = values[~np.isnan(values)]
            if there.size and np.ptp(there) > 0:
                low, high = np.quantile(there, (0.005, 0.995))
                _plot_median(axes, values, contribution)
                if high > low:
                    axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            axes.set_xlabel(shap.columns[place])
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("contribution")

    caption = (
        f"SHAP value over the value of the column, with the median; the outermost hundredth of the values is cut off."
        f" {run.target_label}, {len(shap.base_values):,} test rows, of which the targets are not looked at."
    )
    return draw_svg("Dependence", caption, plot, (11.2, 2.9 * -(-len(shown) // columns)))


def _plot_median(axes: "Axes", values: Vector, contribution: Vector) -> None:
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    groups = [rows for rows in np.array_split(order, 20) if len(rows)]
    x, y = ([float(np.median(column[rows])) for rows in groups] for column in (values, contribution))
    axes.plot(x, y, color=ACCENT, linewidth=1.6)


def permutation_importance(run: RunData, matrix: Matrix) -> SvgFigure:
    """Draw how much predictions hang on each column, for models whose trees are not at hand."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_importance(axes, run.bundle, matrix, run.target_label)
        axes.set_title("")
        axes.set_xlabel("rms change of the prediction when the column is shuffled")

    caption = (
        "Permutation importance, since a member of this model is not of XGBoost and has no contributions of its own."
        f" {min(1000, len(matrix)):,} test rows, of which the targets are not looked at. {run.target_label}."
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
    caption = f"Each dot is a fit on the first so many of the shuffled training rows, scored on {scored}."
    return draw_svg("Learning curve", caption, plot, SMALL_SIZE)


def errors_by_slice(
    labels: Sequence[str], scored: Sequence[Sequence[SliceScore]], overall: Sequence[float], rows_description: str
) -> SvgFigure:
    """Draw the RMSE of slices, for one run or several; slices of few rows are left out."""
    shown = [[one for one in slices_ if one.rows >= MIN_ROWS] for slices_ in scored]
    first = shown[0]
    names = [f"{one.kind} {one.name}  ({one.rows:,})" for one in first][::-1]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        for label, colour, ones, rmse in zip(labels, SERIES_COLORS, shown, overall, strict=False):
            axes.axvline(rmse, color=colour, linewidth=1, linestyle="--", zorder=0)
            axes.plot([one.rmse for one in ones][::-1], range(len(ones)), "o", color=colour, markersize=6, alpha=0.9, label=label)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="y", color="#eef1f4", zorder=0)
        axes.tick_params(axis="y", length=0)
        for place, (above, one) in enumerate(pairwise(first)):
            if one.kind != above.kind:
                axes.axhline(len(names) - 1.5 - place, color=MUTED, linewidth=0.6)
        axes.set_xlabel("RMSE; dashed: all rows")
        if len(labels) > 1:
            axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(labels))

    capped = " Capped: the target is the least, or the largest, that is declared." if any(o.kind == CAPPED for o in first) else ""
    few = f" Slices of fewer than {MIN_ROWS} rows are left out." if len(first) < len(scored[0]) else ""
    caption = f"{rows_description}; how many there are of each is in brackets.{capped}{few}"
    return draw_svg("Error by slice", caption, plot, (5.5, 1.2 + 0.27 * len(names)))


def errors_by_distance(evaluation: Evaluation, unit: str) -> list[SvgFigure]:
    """Draw the RMSE over the distance to the nearest known row, for the split of blocks."""
    far = [one for one in evaluation.harder_splits if one.split == "blocks" and len(one.distance_bands) > 1]

    def drawn(one: Any) -> SvgFigure:
        def plot(figure: "Figure") -> None:
            axes = figure.subplots()
            names = [f"{ring.above:g}–{ring.up_to:g}" if ring.up_to else f"> {ring.above:g}" for ring in one.rings]
            axes.bar(names, [ring.rmse for ring in one.rings], color=PRIMARY, width=0.7)
            for place, ring in enumerate(one.rings):
                axes.annotate(
                    f"{ring.rmse:.2f}\n({ring.rows:,})",
                    (place, ring.rmse),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            axes.axhline(
                evaluation.scores["rmse"], color=ACCENT, linewidth=1, linestyle="--", label="test rows of the run's own split"
            )
            axes.margins(y=0.18)
            axes.legend(frameon=False, fontsize=9)
            axes.set(xlabel="km to the nearest row that was fitted on", ylabel=f"RMSE, {unit}")

        caption = (
            f"{one.test_rows:,} rows in whole cells of the map that were held out, by a fit of the same config; rows in brackets."
        )
        return draw_svg("Error by distance", caption, plot, SMALL_SIZE)

    return [drawn(one) for one in far]
