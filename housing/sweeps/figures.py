"""Figures of a leaderboard as SVG: optimization history, Pareto front, importance, slices, parallel coordinates."""

from typing import TYPE_CHECKING, Any

import numpy as np

from housing.plots.svg import ACCENT, MUTED, PRIMARY, RASTERIZE_ABOVE, TEXT, SvgFigure, draw_svg
from housing.schema.column import Vector
from housing.sweeps.ranking import Parameter, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 500  # best jobs in parallel coordinates
MAX_SLICES = 12
MAX_CATEGORIES = 12  # categories of a parameter that fit on an axis
MAX_IMPORTANCE_JOBS = 200  # 1,000 jobs would take eight times as long
COLOR_MAP = "Blues"  # dark is good: reversed for objectives that are better if lower


def draw(ranking: Ranking) -> list[SvgFigure]:
    """Draw figures, leaving out those that need more jobs. The same jobs always give the same bytes."""
    finished = len(ranking.finished)
    parameters = [
        parameter for parameter in ranking.parameters if parameter.numbers or len(parameter.distinct_values) <= MAX_CATEGORIES
    ]
    drawn = []
    if finished > 1:
        drawn.append(_optimization_history(ranking))
    if finished > 1 and len(ranking.objectives) > 1:
        drawn.append(_pareto_front(ranking))
    if finished >= 4 and len(parameters) > 1:
        drawn += _importance_chart(ranking, parameters)
    if finished > 1 and parameters:
        drawn.append(_slice_plot(ranking, parameters))
    if finished > 1 and len(parameters) > 1:
        drawn.append(_parallel_coordinates(ranking, parameters))
    return drawn


def _optimization_history(ranking: Ranking) -> SvgFigure:
    metric, jobs = ranking.objectives[0], np.sort(ranking.finished)
    job_numbers = np.array(ranking.job_numbers)
    scores = np.array([ranking.metric(job) for job in jobs])
    top = _upper_limit(ranking, scores)
    above = int((scores > top).sum())

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        reused = np.array([ranking.outcomes[job].reused for job in jobs])
        for mask, color, label in ((~reused, PRIMARY, "fitted"), (reused, MUTED, "reused")):
            if mask.any():
                axes.scatter(
                    job_numbers[jobs[mask]],
                    np.minimum(scores[mask], top),
                    s=16,
                    color=color,
                    label=label,
                    rasterized=len(jobs) > RASTERIZE_ABOVE,
                    linewidths=0,
                    zorder=2,
                )
        high = job_numbers[jobs[scores > top]]
        if len(high):
            axes.scatter(high, np.full(len(high), top), marker="^", s=30, color=TEXT, label="above the axis", zorder=3)
        pruned = [job for job, outcome in enumerate(ranking.outcomes) if outcome.status == "PRUNED"]
        failed = [job for _, _, failed_jobs in ranking.failures for job in failed_jobs]
        for unfinished, color, label in ((pruned, MUTED, "pruned"), (failed, ACCENT, "not finished")):
            if unfinished:
                axes.plot(
                    job_numbers[unfinished],
                    [0.02] * len(unfinished),
                    "x",
                    color=color,
                    label=label,
                    transform=axes.get_xaxis_transform(),
                )
        best = np.maximum.accumulate(scores) if ranking.higher_is_better else np.minimum(np.minimum.accumulate(scores), top)
        axes.step(job_numbers[jobs], best, where="post", color=ACCENT, linewidth=1.4, label="best so far")
        axes.set(xlabel="job", ylabel=ranking.label())
        axes.margins(y=0.1)
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    caption = f"The {metric} of each job in the order of the sweep, and the best value so far. {ranking.direction.capitalize()}."
    if above:
        caption += f" {above} {'jobs lie' if above > 1 else 'job lies'} above the axis, at up to {scores.max():.4g}."
    return draw_svg(f"{metric} of each job", caption, plot, (10.0, 3.8))


def _pareto_front(ranking: Ranking) -> SvgFigure:
    vertical_name, horizontal_name = ranking.objectives[:2]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        horizontal = np.array([ranking.metric(job, horizontal_name) for job in ranking.finished])
        vertical = np.array([ranking.metric(job, vertical_name) for job in ranking.finished])
        top = _upper_limit(ranking, vertical)
        axes.scatter(
            horizontal, np.minimum(vertical, top), s=18, color=MUTED, linewidths=0, rasterized=len(horizontal) > RASTERIZE_ABOVE
        )
        front = sorted(
            (ranking.metric(job, horizontal_name), min(ranking.metric(job, vertical_name), top)) for job in ranking.pareto_front
        )
        axes.plot(*zip(*front, strict=True), "o", color=ACCENT, markersize=6, label="Pareto set")
        if len(ranking.objectives) == 2:
            axes.step(*zip(*front, strict=True), where="post", color=ACCENT, linewidth=1)
        if horizontal.min() > 0 and horizontal.max() > 30 * horizontal.min():
            axes.set_xscale("log")
        axes.set(xlabel=ranking.label(horizontal_name), ylabel=ranking.label(vertical_name))
        axes.legend(frameon=False, fontsize=9)

    caption = f"Each dot is a job. No other job dominates those of the Pareto set in {' and '.join(ranking.objectives)}."
    return draw_svg(f"{vertical_name} against {horizontal_name}", caption, plot, (7.0, 4.6))


def _importance_chart(ranking: Ranking, parameters: list[Parameter]) -> list[SvgFigure]:
    importances = parameter_importances(ranking, parameters)
    if importances is None:
        return []
    shares = sorted(importances.items(), key=lambda pair: pair[1])

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        names, values = zip(*shares, strict=True)
        axes.barh(names, values, color=PRIMARY, height=0.6)
        for position, value in enumerate(values):
            axes.annotate(
                f"{value:.0%}", (value, position), (4, 0), textcoords="offset points", verticalalignment="center", fontsize=9
            )
        axes.set_xlim(0, max(values) * 1.12)
        axes.set_xlabel(f"share of the variance of {ranking.objectives[0]}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    caption = (
        f"Share of the variance of {ranking.objectives[0]} among the jobs that each parameter explains"
        " (functional ANOVA over a random forest; Hutter, Hoos and Leyton-Brown, 2014). With few jobs this is a rough estimate."
    )
    return [draw_svg("Parameter importance", caption, plot, (8.0, 1.2 + 0.38 * len(shares)))]


def parameter_importances(ranking: Ranking, parameters: list[Parameter]) -> dict[str, float] | None:
    """Return each parameter's share of the variance of the first objective, or None if the objective does not vary."""
    import optuna  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs

    ranks = np.unique(np.linspace(0, len(ranking.finished) - 1, MAX_IMPORTANCE_JOBS).astype(int))
    jobs = [ranking.finished[rank] for rank in ranks]
    scores = np.array([ranking.metric(job) for job in jobs])
    if np.ptp(scores) == 0:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    spaces = {parameter.name: _distribution(parameter, jobs) for parameter in parameters}
    for job, score in zip(jobs, np.minimum(scores, _upper_limit(ranking, scores)), strict=True):
        values = {parameter.name: _parameter_value(parameter, job) for parameter in parameters}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=spaces, value=float(score)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    labels = {parameter.name: parameter.label for parameter in parameters}
    return {labels[name]: share for name, share in optuna.importance.get_param_importances(study, evaluator=evaluator).items()}


def _parameter_value(parameter: Parameter, job: int) -> Any:
    return parameter.values[job] if parameter.numbers is None else parameter.numbers[job]


def _distribution(parameter: Parameter, jobs: list[int]) -> Any:
    from optuna.distributions import (  # pylint: disable=import-outside-toplevel
        CategoricalDistribution,
        FloatDistribution,
    )

    if parameter.numbers is None:
        return CategoricalDistribution(parameter.distinct_values)
    values = [parameter.numbers[job] for job in jobs]
    return FloatDistribution(min(values), max(values), log=parameter.is_logarithmic)


def _slice_plot(ranking: Ranking, parameters: list[Parameter]) -> SvgFigure:
    shown = parameters[:MAX_SLICES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    jobs = ranking.finished[::-1]  # the best on top
    scores = np.array([ranking.metric(job) for job in jobs])
    top = _upper_limit(ranking, scores)

    def plot(figure: "Figure") -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for panel, axes in enumerate(grid.flat):
            if panel >= len(shown):
                axes.set_visible(False)
                continue
            positions = _axis_positions(axes, shown[panel])[jobs]
            rasterized = len(jobs) > RASTERIZE_ABOVE
            colors: Any = {"c": jobs, "cmap": "Blues", "vmin": -len(jobs) / 2}
            axes.scatter(positions, np.minimum(scores, top), s=16, rasterized=rasterized, **colors)
            axes.plot(positions[-1], scores[-1], "o", color=ACCENT, markersize=7)
            axes.set_xlabel(shown[panel].label)
            if panel % columns == 0:
                axes.set_ylabel(ranking.label())

    caption = f"{ranking.objectives[0]} of each job over each parameter. Later jobs are darker, the best job is red."
    if len(shown) < len(parameters):
        caption += f" The figure shows the first {MAX_SLICES} of {len(parameters)} parameters."
    return draw_svg("Slices", caption, plot, (3.4 * columns if columns > 1 else 6.0, 2.7 * rows))


def _axis_positions(axes: "Axes", parameter: Parameter) -> Vector:
    """Set up an axis for a parameter, and return each job's position on it."""
    if parameter.numbers is not None:
        if parameter.is_logarithmic:
            axes.set_xscale("log")
        return np.array(parameter.numbers)
    names = [value or "(not set)" for value in parameter.distinct_values]
    axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) * len(names) > 24 else 0)
    axes.margins(x=0.15)
    return np.array([float(parameter.distinct_values.index(value)) for value in parameter.values])


def _parallel_coordinates(ranking: Ranking, parameters: list[Parameter]) -> SvgFigure:
    shown, metric = parameters[:MAX_SLICES], ranking.objectives[0]
    jobs = ranking.finished[:MAX_LINES][::-1]
    scores = np.array([ranking.metric(job) for job in jobs])
    top = _upper_limit(ranking, scores)

    def plot(figure: "Figure") -> None:
        import matplotlib as mpl  # pylint: disable=import-outside-toplevel
        from matplotlib.collections import LineCollection  # pylint: disable=import-outside-toplevel

        axes = figure.subplots()
        heights = np.stack([*(_heights(parameter)[jobs] for parameter in shown), _rescale(np.minimum(scores, top))], axis=1)
        beyond = 0.3 * (top - scores.min())  # the worst jobs are pale, not white
        if ranking.higher_is_better:
            norm, color_map = mpl.colors.Normalize(scores.min() - beyond, top), COLOR_MAP
        else:
            norm, color_map = mpl.colors.Normalize(scores.min(), top + beyond), f"{COLOR_MAP}_r"
        lines = [np.column_stack([np.arange(heights.shape[1]), height]) for height in heights]
        collection = LineCollection(lines, array=np.minimum(scores, top), cmap=color_map, norm=norm, linewidths=1.2, alpha=0.8)
        axes.add_collection(collection)
        axes.plot(np.arange(heights.shape[1]), heights[-1], color=ACCENT, linewidth=2.4, zorder=3)
        scales = [(parameter.label, _ticks(parameter)) for parameter in shown]
        for position, (label, ticks) in enumerate([*scales, (metric, _range_ticks(scores.min(), top))]):
            axes.plot([position, position], [0, 1], color=MUTED, linewidth=0.8, zorder=0)
            for height, text in ticks:
                box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
                offset: Any = {"xytext": (4, 0), "textcoords": "offset points"}
                axes.annotate(text, (position, height), fontsize=8, verticalalignment="center", bbox=box, zorder=4, **offset)
            axes.text(position, 1.08, label, fontsize=9, fontweight="bold", horizontalalignment="center")
        axes.set(xlim=(-0.3, len(shown) + 0.6), ylim=(-0.06, 1.14))
        axes.axis("off")

    caption = f"Each line is a job, from its parameters to its {metric}. Dark is good, the best job is red."
    if len(ranking.finished) > MAX_LINES:
        caption += f" The figure shows the best {MAX_LINES} of {len(ranking.finished)} jobs."
    return draw_svg("Parallel coordinates", caption, plot, (max(6.0, min(11.0, 2.0 * (len(shown) + 1))), 4.6))


def _heights(parameter: Parameter) -> Vector:
    """Return each job's position on an axis from 0 to 1."""
    if parameter.numbers is None:
        last = max(1, len(parameter.distinct_values) - 1)
        return np.array([parameter.distinct_values.index(value) / last for value in parameter.values])
    numbers = np.array(parameter.numbers)
    return _rescale(np.log10(numbers) if parameter.is_logarithmic else numbers)


def _rescale(values: Vector) -> Vector:
    return (values - values.min()) / (np.ptp(values) or 1.0)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.numbers is None:
        last = max(1, len(parameter.distinct_values) - 1)
        return [(index / last, value or "(not set)") for index, value in enumerate(parameter.distinct_values)]
    return _range_ticks(min(parameter.numbers), max(parameter.numbers), parameter.is_logarithmic)


def _range_ticks(low: float, high: float, logarithmic: bool = False) -> list[tuple[float, str]]:
    middle = float(np.sqrt(low * high)) if logarithmic else (low + high) / 2
    return [(0.0, f"{low:.4g}"), (0.5, f"{middle:.4g}"), (1.0, f"{high:.4g}")]


def _upper_limit(ranking: Ranking, scores: Vector) -> float:
    """Return the upper end of an axis of the first objective. An outlier must not flatten the others, unless it is the best."""
    if ranking.higher_is_better:
        return float(scores.max())
    lower, median, upper = np.quantile(scores, (0.25, 0.5, 0.75))
    end = max(upper + 3.0 * (upper - lower), median + 0.05 * abs(median))
    return float(min(scores.max(), end))
