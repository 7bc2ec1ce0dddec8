"""The figures of a leaderboard, as SVG for its page: what the jobs reached, what mattered, where the good values lie."""

from typing import TYPE_CHECKING, Any

import numpy as np

from housing.plots.svg import ACCENT, MUTED, PRIMARY, RASTERIZE_ABOVE, TEXT, SvgFigure, draw_svg
from housing.schema.column import Vector
from housing.sweeps.ranking import Parameter, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 500  # of parallel coordinates, the best ones


MAX_SLICES = 12


MAX_CATEGORIES = 12  # words of one parameter that a figure can name


MAX_IMPORTANCE_JOBS = 200  # jobs behind the importance: five times as many take eight times as long


COLOR_MAP = "Blues_r"  # dark is good


def draw(ranking: Ranking) -> list[SvgFigure]:
    """Draw what the jobs of a sweep give cause for; the same jobs always give the same bytes."""
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
    scores = np.array([ranking.metric(number) for number in jobs])
    top = _upper_limit(scores)
    above = int((scores > top).sum())

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        reused = np.array([ranking.outcomes[number].reused for number in jobs])
        for which, colour, label in ((~reused, PRIMARY, "fitted"), (reused, MUTED, "reused")):
            if which.any():
                places, values = jobs[which], np.minimum(scores[which], top)
                axes.scatter(
                    places,
                    values,
                    s=16,
                    color=colour,
                    label=label,
                    rasterized=len(jobs) > RASTERIZE_ABOVE,
                    linewidths=0,
                    zorder=2,
                )
        high = jobs[scores > top]
        if len(high):
            axes.scatter(high, np.full(len(high), top), marker="^", s=30, color=TEXT, label="above the edge", zorder=3)
        pruned = [number for number, outcome in enumerate(ranking.outcomes) if outcome.status == "PRUNED"]
        failed = [number for _, _, numbers in ranking.failures for number in numbers]
        for lost, colour, label in ((pruned, MUTED, "pruned"), (failed, ACCENT, "not finished")):
            if lost:
                axes.plot(lost, [0.02] * len(lost), "x", color=colour, label=label, transform=axes.get_xaxis_transform())
        axes.step(
            jobs, np.minimum(np.minimum.accumulate(scores), top), where="post", color=ACCENT, linewidth=1.4, label="best so far"
        )
        axes.set(xlabel="job", ylabel=metric)
        axes.margins(y=0.1)
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    caption = f"The {metric} of each job in the order in which they were asked, and the best up to there."
    if above:
        caption += f" {above} {'jobs lie' if above > 1 else 'job lies'} above the upper edge, at up to {scores.max():.4g}."
    return draw_svg(f"{metric} over the jobs", caption, plot, (10.0, 3.8))


def _pareto_front(ranking: Ranking) -> SvgFigure:
    one, other = ranking.objectives[:2]

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        horizontal = np.array([ranking.metric(number, other) for number in ranking.finished])
        vertical = np.array([ranking.metric(number, one) for number in ranking.finished])
        top = _upper_limit(vertical)
        axes.scatter(
            horizontal, np.minimum(vertical, top), s=18, color=MUTED, linewidths=0, rasterized=len(horizontal) > RASTERIZE_ABOVE
        )
        front = sorted((ranking.metric(number, other), min(ranking.metric(number, one), top)) for number in ranking.pareto_front)
        axes.plot(*zip(*front, strict=True), "o", color=ACCENT, markersize=6, label="Pareto set")
        if len(ranking.objectives) == 2:
            axes.step(*zip(*front, strict=True), where="post", color=ACCENT, linewidth=1)
        if horizontal.min() > 0 and horizontal.max() > 30 * horizontal.min():
            axes.set_xscale("log")
        axes.set(xlabel=other, ylabel=one)
        axes.legend(frameon=False, fontsize=9)

    caption = f"Each dot is a job; those of the Pareto set are beaten by no other in {' and '.join(ranking.objectives)} together."
    return draw_svg(f"{one} against {other}", caption, plot, (7.0, 4.6))


def _importance_chart(ranking: Ranking, parameters: list[Parameter]) -> list[SvgFigure]:
    found = parameter_importances(ranking, parameters)
    if found is None:
        return []
    shares = sorted(found.items(), key=lambda pair: pair[1])

    def plot(figure: "Figure") -> None:
        axes = figure.subplots()
        names, values = zip(*shares, strict=True)
        axes.barh(names, values, color=PRIMARY, height=0.6)
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:.0%}", (value, place), (4, 0), textcoords="offset points", verticalalignment="center", fontsize=9
            )
        axes.set_xlim(0, max(values) * 1.12)
        axes.set_xlabel(f"share of the variance of {ranking.objectives[0]}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    caption = (
        f"How much of the variance of {ranking.objectives[0]} among the jobs each parameter accounts for"
        " (functional ANOVA over a random forest; Hutter, Hoos and Leyton-Brown, 2014). With few jobs it is a hint."
    )
    return [draw_svg("What mattered", caption, plot, (8.0, 1.2 + 0.38 * len(shares)))]


def parameter_importances(ranking: Ranking, parameters: list[Parameter]) -> dict[str, float] | None:
    """Give for each parameter its share of the variance of the first objective, or None where that does not vary."""
    import optuna  # pylint: disable=import-outside-toplevel  # a second that only drawing needs

    jobs = [
        ranking.finished[place] for place in np.unique(np.linspace(0, len(ranking.finished) - 1, MAX_IMPORTANCE_JOBS).astype(int))
    ]
    scores = np.array([ranking.metric(number) for number in jobs])
    if np.ptp(scores) == 0:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    spaces = {parameter.name: _distribution(parameter, jobs) for parameter in parameters}
    names = {parameter.name: parameter for parameter in parameters}
    for number, score in zip(jobs, np.minimum(scores, _upper_limit(scores)), strict=True):
        values = {name: _parameter_value(parameter, number) for name, parameter in names.items()}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=spaces, value=float(score)))
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))
    return {names[name].label: share for name, share in found.items()}


def _parameter_value(parameter: Parameter, number: int) -> Any:
    return parameter.values[number] if parameter.numbers is None else parameter.numbers[number]


def _distribution(parameter: Parameter, jobs: list[int]) -> Any:
    from optuna.distributions import (  # pylint: disable=import-outside-toplevel
        CategoricalDistribution,
        FloatDistribution,
    )

    if parameter.numbers is None:
        return CategoricalDistribution(parameter.distinct_values)
    values = [parameter.numbers[number] for number in jobs]
    return FloatDistribution(min(values), max(values), log=parameter.is_logarithmic)


def _slice_plot(ranking: Ranking, parameters: list[Parameter]) -> SvgFigure:
    shown = parameters[:MAX_SLICES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    jobs = ranking.finished[::-1]  # the best on top
    scores = np.array([ranking.metric(number) for number in jobs])
    top = _upper_limit(scores)

    def plot(figure: "Figure") -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place >= len(shown):
                axes.set_visible(False)
                continue
            places = _axis_positions(axes, shown[place])[jobs]
            rasterized = len(jobs) > RASTERIZE_ABOVE
            axes.scatter(places, np.minimum(scores, top), c=jobs, cmap="Blues", vmin=-len(jobs) / 2, s=16, rasterized=rasterized)
            axes.plot(places[-1], scores[-1], "o", color=ACCENT, markersize=7)
            axes.set_xlabel(shown[place].label)
            if place % columns == 0:
                axes.set_ylabel(ranking.objectives[0])

    caption = f"{ranking.objectives[0]} of each job over each parameter; later jobs are darker, the best is red."
    if len(shown) < len(parameters):
        caption += f" The first {MAX_SLICES} of {len(parameters)} parameters."
    return draw_svg("Slices", caption, plot, (3.4 * columns if columns > 1 else 6.0, 2.7 * rows))


def _axis_positions(axes: "Axes", parameter: Parameter) -> Vector:
    """Give where on an axis each job lies, and label it."""
    if parameter.numbers is not None:
        if parameter.is_logarithmic:
            axes.set_xscale("log")
        return np.array(parameter.numbers)
    names = [word or "(not set)" for word in parameter.distinct_values]
    axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) * len(names) > 24 else 0)
    axes.margins(x=0.15)
    return np.array([float(parameter.distinct_values.index(value)) for value in parameter.values])


def _parallel_coordinates(ranking: Ranking, parameters: list[Parameter]) -> SvgFigure:
    shown, metric = parameters[:MAX_SLICES], ranking.objectives[0]
    jobs = ranking.finished[:MAX_LINES][::-1]
    scores = np.array([ranking.metric(number) for number in jobs])
    top = _upper_limit(scores)

    def plot(figure: "Figure") -> None:
        import matplotlib as mpl  # pylint: disable=import-outside-toplevel
        from matplotlib.collections import LineCollection  # pylint: disable=import-outside-toplevel

        axes = figure.subplots()
        heights = np.stack([*(_heights(parameter)[jobs] for parameter in shown), _rescale(np.minimum(scores, top))], axis=1)
        norm = mpl.colors.Normalize(scores.min(), top + 0.3 * (top - scores.min()))  # the worst are not white
        lines = [np.column_stack([np.arange(heights.shape[1]), height]) for height in heights]
        collection = LineCollection(lines, array=np.minimum(scores, top), cmap=COLOR_MAP, norm=norm, linewidths=1.2, alpha=0.8)
        axes.add_collection(collection)
        axes.plot(np.arange(heights.shape[1]), heights[-1], color=ACCENT, linewidth=2.4, zorder=3)
        for place, (label, ticks) in enumerate(
            [*((p.label, _ticks(p)) for p in shown), (metric, _range_ticks(scores.min(), top))]
        ):
            axes.plot([place, place], [0, 1], color=MUTED, linewidth=0.8, zorder=0)
            for height, text in ticks:
                box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
                offset: Any = {"xytext": (4, 0), "textcoords": "offset points"}
                axes.annotate(text, (place, height), fontsize=8, verticalalignment="center", bbox=box, zorder=4, **offset)
            axes.text(place, 1.08, label, fontsize=9, fontweight="bold", horizontalalignment="center")
        axes.set(xlim=(-0.3, len(shown) + 0.6), ylim=(-0.06, 1.14))
        axes.axis("off")

    caption = f"Each line is a job from its parameters to its {metric}; dark is good, the best is red."
    if len(ranking.finished) > MAX_LINES:
        caption += f" The best {MAX_LINES} of {len(ranking.finished)} jobs."
    return draw_svg("Parallel coordinates", caption, plot, (max(6.0, min(11.0, 2.0 * (len(shown) + 1))), 4.6))


def _heights(parameter: Parameter) -> Vector:
    """Give where on an axis from 0 to 1 each job lies."""
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
        return [(place / last, word or "(not set)") for place, word in enumerate(parameter.distinct_values)]
    return _range_ticks(min(parameter.numbers), max(parameter.numbers), parameter.is_logarithmic)


def _range_ticks(low: float, high: float, logarithmic: bool = False) -> list[tuple[float, str]]:
    middle = float(np.sqrt(low * high)) if logarithmic else (low + high) / 2
    return [(0.0, f"{low:.4g}"), (0.5, f"{middle:.4g}"), (1.0, f"{high:.4g}")]


def _upper_limit(scores: Vector) -> float:
    """Give the upper edge of an axis that shows the bulk of scores: one that went astray must not flatten the rest."""
    quarter, half, most = np.quantile(scores, (0.25, 0.5, 0.75))
    edge = max(most + 3.0 * (most - quarter), half + 0.05 * abs(half))
    return float(min(scores.max(), edge))
