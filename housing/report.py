"""What people look at: the block that a run prints, the leaderboard of a sweep, the figures of a model."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as Grid

from housing.bundle import Bundle
from housing.data import Table
from housing.schema import Matrix, Vector
from housing.split import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from housing.promote import Decision
    from housing.run import Outcome

PERMUTATIONS, PERMUTED_ROWS = 3, 1000
INK, FAINT, WARM, COOL = "#1f2933", "#9aa5b1", "#c8553d", "#2b6f97"


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log file has no edge to wrap at
    return console


def show_job(outcome: "Outcome") -> None:
    """Print what came of one job of a sweep, in one line."""
    metrics = outcome.metrics
    state = "reused" if outcome.reused else f"fitted in {metrics['fit_seconds']:.2f} s"
    print(f"\t     rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}   {state}", flush=True)


def show_outcome(outcome: "Outcome", cfg: DictConfig) -> None:
    """Print what came of one run."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    unit = cfg.data.columns[_target(cfg)].get("unit", "")
    state = "reused: this very run is finished already (rerun=true fits again)" if outcome.reused else "fitted"
    grid.add_row("run", f"{cfg.model.name} on features {cfg.features.name}, data {cfg.data.name}: {state}")
    metrics = outcome.metrics
    grid.add_row("validation", f"rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}   ({unit})")
    speed = f"fit {metrics['fit_seconds']:.2f} s   one row {metrics['row_microseconds']:,.0f} microseconds"
    grid.add_row("cost", f"{speed}   {metrics['rows_per_second']:,.0f} rows/s   {metrics['model_bytes'] / 1e6:.2f} MB")
    grid.add_row("look", outcome.link)
    _console().print(grid)


def _target(cfg: DictConfig) -> str:
    return next(name for name, column in cfg.data.columns.items() if column.get("role") == "target")


def show_leaderboard(outcomes: "list[Outcome]", cfg: DictConfig, run_id: str) -> None:
    """Print the jobs of a sweep, best first, and why the others failed."""
    console = _console()
    finished = sorted((o for o in outcomes if o.status == "FINISHED"), key=lambda outcome: outcome.metrics[cfg.metric])
    common = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    title = f"{len(finished)} of {len(outcomes)} runs finished, best {cfg.metric} on validation rows first"
    grid = Grid(title=title, title_justify="left")
    for name in ("", "run", "rmse", "mae", "r2", "fit s", "row µs", "MB", "state", "run id"):
        grid.add_column(name, justify="left" if name in ("run", "state", "run id") else "right", no_wrap=name == "run id")
    for rank, outcome in enumerate(finished, start=1):
        metrics = outcome.metrics
        numbers = [f"{metrics[name]:.4f}" for name in ("rmse", "mae", "r2")] + [f"{metrics['fit_seconds']:.2f}"]
        numbers += [f"{metrics['row_microseconds']:,.0f}", f"{metrics['model_bytes'] / 1e6:.2f}"]
        state = "reused" if outcome.reused else "fitted"
        grid.add_row(str(rank), _asked(outcome, common), *numbers, state, outcome.run_id, style="bold" if rank == 1 else "")
    if finished:
        console.print(grid)
    else:
        console.print(title)
    for outcome in outcomes:
        if outcome.status != "FINISHED":
            console.print(f"{outcome.status} {_asked(outcome, common)}: {outcome.error}", style="red", markup=False)
    if finished:
        advice = f"promote its best: python -m housing.promote data={cfg.data.name} sweep={run_id}"
        console.print(f"sweep {run_id}   {advice}", soft_wrap=True)


def _asked(outcome: "Outcome", common: set[str]) -> str:
    """Give what sets a job apart from the others of its sweep."""
    return " ".join(override for override in outcome.overrides if override not in common) or "(defaults)"


def show_decision(decision: "Decision", cfg: DictConfig) -> None:
    """Print what the gate decided, on which figures, and why."""
    console = _console()
    console.print(f"{decision.verdict}  {cfg.registered_model} at alias {decision.alias}", style="bold")
    if decision.challenger_metrics:
        grid = Grid(title=f"on {decision.test_rows:,} test rows", title_justify="left")
        for name in ("", *decision.challenger_metrics):
            grid.add_column(name, justify="right" if name else "left")
        grid.add_row(f"challenger: run {decision.run_id}", *(f"{value:.4f}" for value in decision.challenger_metrics.values()))
        grid.add_row(f"champion: {decision.champion}", *(f"{value:.4f}" for value in decision.champion_metrics.values()))
        console.print(grid)
    for reason in decision.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    here = f"version {decision.version}" if decision.version else "nothing"
    console.print(f"{decision.alias} is {here}" + (" now" if decision.verdict == "PROMOTE" else ", as before"))


def figures(bundle: Bundle, table: Table, rows: Rows, folder: Path) -> Path:
    """Draw a model on some rows as PNG files in `folder`, and give it.

    They are: predicted against actual, residuals, importance, and the error on the map where there are coordinates.
    """
    import matplotlib as mpl  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs

    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)
    mpl.use("agg")
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT, "font.size": 10})
    mpl.rcParams.update({"text.color": INK, "axes.labelcolor": INK, "axes.titlelocation": "left", "axes.titleweight": "bold"})
    folder.mkdir(parents=True, exist_ok=True)
    matrix, actual = table.matrix[rows], table.target[rows]
    predicted = bundle.predict(matrix)
    unit = f"{table.schema.target.name} ({table.schema.target.unit})"
    title = f"{bundle.card['model']} on features {bundle.card['features']}, {len(rows):,} validation rows"
    _draw(folder / "predicted.png", lambda axes: _predicted(axes, predicted, actual, unit), title)
    _draw(folder / "residuals.png", lambda axes: _residuals(axes, predicted, actual, unit), title)
    _draw(folder / "importance.png", lambda axes: _importance(axes, bundle, matrix, actual), title)
    coordinates = table.schema.coordinates()
    if coordinates is not None:
        _draw(folder / "map.png", lambda axes: _map(axes, matrix[:, coordinates], predicted - actual, unit), title, (6.5, 7))
    return folder


def _draw(path: Path, draw: "Callable[[Axes], None]", title: str, size: tuple[float, float] = (7.5, 5.5)) -> None:
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel

    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.subplots())
    figure.supxlabel(title, fontsize=8, color=FAINT)
    figure.savefig(path)


def _predicted(axes: "Axes", predicted: Vector, actual: Vector, unit: str) -> None:
    from matplotlib.colors import LogNorm  # pylint: disable=import-outside-toplevel

    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    axes.hexbin(
        actual, predicted, gridsize=60, extent=(*ends, *ends), norm=LogNorm(vmin=0.3), mincnt=1, cmap="Blues", linewidths=0.1
    )
    axes.plot(ends, ends, color=WARM, linewidth=1)
    axes.set(title="Predicted against actual", xlabel=f"actual {unit}", ylabel="predicted", aspect="equal")
    error = predicted - actual
    note = f"rmse {np.sqrt(np.mean(error**2)):.4f}\nmean error {error.mean():+.4f}\ndarker: more rows"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, verticalalignment="top")


def _residuals(axes: "Axes", predicted: Vector, actual: Vector, unit: str) -> None:
    error = predicted - actual
    axes.scatter(predicted, error, s=4, color=COOL, alpha=0.25, linewidths=0)
    axes.axhline(0.0, color=WARM, linewidth=1)
    groups = np.array_split(np.argsort(predicted), min(20, len(predicted)))
    middle = [float(np.median(predicted[rows])) for rows in groups]
    for share, style in ((0.1, "--"), (0.5, "-"), (0.9, "--")):
        line = [float(np.quantile(error[rows], share)) for rows in groups]
        axes.plot(middle, line, style, color=INK, linewidth=1.2, label=f"{share:.0%} of the rows lie below")
    axes.set(title="Error against prediction", xlabel=f"predicted {unit}", ylabel="predicted - actual")
    axes.legend(frameon=False, fontsize=8)


def _importance(axes: "Axes", bundle: Bundle, matrix: Matrix, actual: Vector) -> None:
    gain = importance(bundle, matrix, actual)
    order = np.argsort(gain)
    names = [bundle.schema.features[place].name for place in order]
    axes.barh(names, gain[order], color=COOL)
    axes.set(title="Importance of each column", xlabel="rise of the rmse when the column is shuffled")
    for place, value in enumerate(gain[order]):
        axes.text(max(value, 0.0), place, f" {value:.3f}", verticalalignment="center", fontsize=8)


def importance(bundle: Bundle, matrix: Matrix, actual: Vector) -> Vector:
    """Give the rise of the RMSE when a column is shuffled (mean of three shuffles of 1,000 rows at most).
    One number for each column of the schema.

    Permutation importance as in Breiman, "Random Forests", Machine Learning 45 (2001), section 10.
    """
    random = np.random.default_rng(0)
    matrix, actual = matrix[:PERMUTED_ROWS], actual[:PERMUTED_ROWS]

    def rmse(rows: Matrix) -> float:
        return float(np.sqrt(np.mean(np.square(bundle.predict(rows) - actual))))

    def shuffled(column: int) -> Matrix:
        rows = matrix.copy()
        rows[:, column] = random.permutation(rows[:, column])
        return rows

    columns = range(matrix.shape[1])
    return np.array([np.mean([rmse(shuffled(column)) for _ in range(PERMUTATIONS)]) for column in columns]) - rmse(matrix)


def _map(axes: "Axes", places: Matrix, error: Vector, unit: str) -> None:
    limit = float(np.quantile(np.abs(error), 0.95))
    order = np.argsort(np.abs(error))  # the large errors on top
    latitude, longitude = places[order].T
    points = axes.scatter(longitude, latitude, c=error[order], s=7, cmap="RdBu_r", vmin=-limit, vmax=limit, linewidths=0)
    axes.set(title="Where the model errs", xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1.0 / float(np.cos(np.radians(latitude.mean()))))
    scale: Any = axes.figure.colorbar(points, ax=axes, shrink=0.6, extend="both")
    scale.set_label(f"predicted - actual, {unit}: red is too high")
