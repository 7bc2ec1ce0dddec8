"""The figures of a report, as SVG for its page: of one run, and of several side by side."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.evaluation.contributions import Explained
from housing.evaluation.limitations import FEW
from housing.evaluation.results import Honest
from housing.evaluation.slices import CAPPED, Slice, fifths
from housing.plots.run_figures import plot_importance, plot_predicted, plot_residuals
from housing.plots.svg import COOL, FAINT, SERIES, WARM, Drawn, draw_svg
from housing.reports.run_data import Subject
from housing.schema.column import Matrix, Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = (5.5, 4.7)  # inches: two stand side by side on a page, and one can be read on a telephone


DECILES = 10


NOMINAL = tuple(level / 100 for level in range(50, 100, 5))


FOLDS = 5


SHOWN = 14  # columns whose importance is drawn


DEPENDENCES = 6


SWARM = 500  # rows of a swarm


def errors(subject: Subject) -> list[Drawn]:
    """Draw predicted against actual, and the error over the prediction."""
    predicted, actual, unit = subject.predicted, subject.actual, subject.unit
    return [
        draw_svg(
            "Predicted against actual",
            f"{subject.rows}. On the line, predictions are right.",
            lambda figure: _untitled(plot_predicted, figure, predicted, actual, unit),
            SMALL,
        ),
        draw_svg(
            "Residuals",
            f"Predicted less actual, over the prediction. {subject.rows}.",
            lambda figure: _untitled(plot_residuals, figure, predicted, actual, unit),
            SMALL,
        ),
    ]


def _untitled(plot: Any, figure: "Figure", *values: Any) -> None:
    """Draw without a title: the page has it."""
    axes = figure.subplots()
    plot(axes, *values)
    axes.set_title("")


def calibration(subject: Subject) -> Drawn:
    """Draw the mean target over the mean prediction, by decile of the prediction."""
    subjects = [subject]
    caption = (
        f"Mean target by decile of the prediction, with 95 % of what chance allows. On the line, predictions are right on"
        f" average. {subject.rows}."
    )
    return draw_svg("Calibration", caption, lambda figure: _plot_calibration(figure, subjects), SMALL)


def _plot_calibration(figure: "Figure", subjects: Sequence[Subject]) -> None:
    axes = figure.subplots()
    ends = [math.inf, -math.inf]
    for subject, colour in zip(subjects, SERIES, strict=False):
        groups = np.array_split(np.argsort(subject.predicted, kind="stable"), min(DECILES, len(subject.predicted)))
        x = np.array([subject.predicted[rows].mean() for rows in groups])
        y = np.array([subject.actual[rows].mean() for rows in groups])
        chance = np.array([1.96 * subject.actual[rows].std() / math.sqrt(len(rows)) for rows in groups])
        axes.errorbar(x, y, chance, fmt="o-", color=colour, markersize=5, linewidth=1, capsize=2, label=subject.label)
        ends = [min(ends[0], x.min(), y.min()), max(ends[1], x.max(), y.max())]
    axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel=f"mean prediction, {subjects[0].unit}", ylabel="mean actual")
    if len(subjects) > 1:
        axes.legend(frameon=False, fontsize=9)


def coverage(subject: Subject) -> Drawn | None:
    """Draw the share of targets that intervals cover over the share that was asked for; None without intervals."""
    inside = covered(subject)
    if inside is None:
        return None
    asked = list(inside)
    low_to_high = [where for _, where in fifths(subject.predicted)]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([50, 100], [50, 100], color=FAINT, linewidth=1, linestyle="--", label="as asked")
        for where, colour, label in (
            (low_to_high[0], WARM, "lowest fifth of predictions"),
            (low_to_high[-1], SERIES[2], "highest fifth"),
        ):
            shares = [100 * inside[level][where].mean() for level in asked]
            axes.plot([100 * level for level in asked], shares, "-", color=colour, linewidth=1, label=label)
        shares = [100 * inside[level].mean() for level in asked]
        axes.plot([100 * level for level in asked], shares, "o-", color=COOL, markersize=5, label="all rows")
        axes.set(xlabel="asked for, %", ylabel="covered, %", xlim=(48, 100), ylim=(min(48, axes.get_ylim()[0]), 101))
        axes.legend(frameon=False, fontsize=9)

    caption = (
        f"Share of targets in their interval. {subject.rows}; each fifth of them with intervals that the other four calibrated."
    )
    return draw_svg("Coverage of intervals", caption, plot, SMALL)


def covered(subject: Subject) -> dict[float, Any] | None:
    """Say for each coverage that may be asked which rows are covered, by intervals that other rows calibrated."""
    scales, error = subject.evidence.scales, subject.error
    if scales is None:
        return None
    scores, fold = np.abs(error) / scales, np.random.default_rng(0).permutation(len(error)) % FOLDS
    found = {level: np.zeros(len(error), dtype=bool) for level in NOMINAL}
    for number in range(FOLDS):
        others, mine = np.sort(scores[fold != number]), fold == number
        for level, inside in found.items():
            place = math.ceil((len(others) + 1) * level) - 1
            inside[mine] = scores[mine] <= (others[place] if place < len(others) else math.inf)
    return found


def contributions(explained: Explained, subject: Subject) -> list[Drawn]:
    """Draw which columns move predictions, and how."""
    strongest = explained.strongest(SHOWN)[::-1]
    names = [explained.columns[place] for place in strongest]
    height = 1.0 + 0.3 * len(names)

    def bars(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(names, explained.strength[strongest], color=COOL, height=0.65)
        for place, value in enumerate(explained.strength[strongest]):
            axes.annotate(f"{value:.3g}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.margins(x=0.14, y=0.02)
        axes.set_xlabel("mean absolute SHAP value")

    def swarm(figure: "Figure") -> None:
        axes = figure.subplots()
        for height_, place in enumerate(strongest):
            _swarm(axes, height_, explained.contributions[:SWARM, place], explained.values[:SWARM, place])
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("SHAP value; blue: low, red: high")

    rows = f"{len(explained.base):,} test rows, of which the targets are not looked at"
    more = f" The first {SHOWN} of {len(explained.columns)} columns." if len(explained.columns) > SHOWN else ""
    return [
        draw_svg(
            "Importance", f"SHAP values from XGBoost's own contributions, {subject.unit}.{more} {rows}.", bars, (5.5, height)
        ),
        draw_svg(
            "What values do",
            f"Each dot is the SHAP value of one row; its colour is the value of the column, from low to high. {rows}.",
            swarm,
            (5.5, height),
        ),
    ]


def _swarm(axes: "Axes", height: int, contribution: Vector, values: Vector) -> None:
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


def dependence(explained: Explained, subject: Subject) -> Drawn:
    """Draw what the strongest columns contribute over the values that they hold."""
    shown = explained.strongest(DEPENDENCES)
    columns = min(3, len(shown))

    def plot(figure: "Figure") -> None:
        grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharey=True)
        for axes, place in zip(grid.flat, shown, strict=False):
            values, contribution = explained.values[:, place], explained.contributions[:, place]
            axes.scatter(values, contribution, s=5, color=COOL, alpha=0.35, linewidths=0, rasterized=True)
            axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
            there = values[~np.isnan(values)]
            if there.size and np.ptp(there) > 0:
                low, high = np.quantile(there, (0.005, 0.995))
                _middle(axes, values, contribution)
                if high > low:
                    axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            axes.set_xlabel(explained.columns[place])
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("contribution")

    caption = (
        f"SHAP value over the value of the column, with the median; the outermost hundredth of the values is cut off."
        f" {subject.unit}, {len(explained.base):,} test rows, of which the targets are not looked at."
    )
    return draw_svg("Dependence", caption, plot, (11.2, 2.9 * -(-len(shown) // columns)))


def _middle(axes: "Axes", values: Vector, contribution: Vector) -> None:
    order = np.argsort(values)[: int((~np.isnan(values)).sum())]
    groups = [rows for rows in np.array_split(order, 20) if len(rows)]
    x, y = ([float(np.median(column[rows])) for rows in groups] for column in (values, contribution))
    axes.plot(x, y, color=WARM, linewidth=1.6)


def permuted(subject: Subject, matrix: Matrix) -> Drawn:
    """Draw how much predictions hang on each column, for models whose trees are not at hand."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_importance(axes, subject.bundle, matrix, subject.unit)
        axes.set_title("")
        axes.set_xlabel("rms change of the prediction when the column is shuffled")

    caption = (
        "Permutation importance, since a member of this model is not of XGBoost and has no contributions of its own."
        f" {min(1000, len(matrix)):,} test rows, of which the targets are not looked at. {subject.unit}."
    )
    return draw_svg("Importance", caption, plot, (5.5, 1.2 + 0.3 * matrix.shape[1]))


def learning_curve(subject: Subject, sizes: Sequence[int], rmse: Sequence[float]) -> Drawn:
    """Draw the RMSE over the number of training rows."""

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(sizes, rmse, "o-", color=COOL)
        for x, y in zip(sizes, rmse, strict=True):
            axes.annotate(f"{y:.3f}", (x, y), (5, 5), textcoords="offset points", fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.margins(x=0.13, y=0.15)
        axes.set(xlabel="training rows", ylabel=f"RMSE, {subject.unit}")

    scored = f"{len(subject.evidence.rows):,} validation rows"
    caption = f"Each dot is a fit on the first so many of the shuffled training rows, scored on {scored}."
    return draw_svg("Learning curve", caption, plot, SMALL)


def by_slice(labels: Sequence[str], scored: Sequence[Sequence[Slice]], overall: Sequence[float], rows: str) -> Drawn:
    """Draw the RMSE of slices, for one run or several; slices of few rows are left out."""
    shown = [[one for one in slices_ if one.rows >= FEW] for slices_ in scored]
    first = shown[0]
    names = [f"{one.kind} {one.name}  ({one.rows:,})" for one in first][::-1]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        for label, colour, ones, rmse in zip(labels, SERIES, shown, overall, strict=False):
            axes.axvline(rmse, color=colour, linewidth=1, linestyle="--", zorder=0)
            axes.plot([one.rmse for one in ones][::-1], range(len(ones)), "o", color=colour, markersize=6, alpha=0.9, label=label)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="y", color="#eef1f4", zorder=0)
        axes.tick_params(axis="y", length=0)
        for place, (above, one) in enumerate(pairwise(first)):
            if one.kind != above.kind:
                axes.axhline(len(names) - 1.5 - place, color=FAINT, linewidth=0.6)
        axes.set_xlabel("RMSE; dashed: all rows")
        if len(labels) > 1:
            axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(labels))

    capped = " Capped: the target is the least, or the largest, that is declared." if any(o.kind == CAPPED for o in first) else ""
    few = f" Slices of fewer than {FEW} rows are left out." if len(first) < len(scored[0]) else ""
    caption = f"{rows}; how many there are of each is in brackets.{capped}{few}"
    return draw_svg("Error by slice", caption, plot, (5.5, 1.2 + 0.27 * len(names)))


def by_distance(honest: Honest, unit: str) -> list[Drawn]:
    """Draw the RMSE over the distance to the nearest known row, for the split of blocks."""
    far = [one for one in honest.elsewhere if one.split == "blocks" and len(one.rings) > 1]

    def drawn(one: Any) -> Drawn:
        def plot(figure: "Figure") -> None:
            axes = figure.subplots()
            names = [f"{ring.above:g}–{ring.up_to:g}" if ring.up_to else f"> {ring.above:g}" for ring in one.rings]
            axes.bar(names, [ring.rmse for ring in one.rings], color=COOL, width=0.7)
            for place, ring in enumerate(one.rings):
                axes.annotate(
                    f"{ring.rmse:.2f}\n({ring.rows:,})",
                    (place, ring.rmse),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            axes.axhline(honest.scores["rmse"], color=WARM, linewidth=1, linestyle="--", label="test rows of the run's own split")
            axes.margins(y=0.18)
            axes.legend(frameon=False, fontsize=9)
            axes.set(xlabel="km to the nearest row that was fitted on", ylabel=f"RMSE, {unit}")

        caption = (
            f"{one.test_rows:,} rows in whole cells of the map that were held out, by a fit of the same config; rows in brackets."
        )
        return draw_svg("Error by distance", caption, plot, SMALL)

    return [drawn(one) for one in far]
