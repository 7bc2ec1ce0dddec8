"""Figures of one run, drawn from rows that its model was not fitted on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.bundle.bundle import Bundle
from housing.data.split import Split
from housing.data.table import Table
from housing.plots.svg import ACCENT, MUTED, PRIMARY, TEXT, project_style
from housing.schema.column import Matrix, Vector
from housing.scoring.holdout import HoldoutPredictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_PERMUTATIONS, PERMUTED_ROWS = 3, 1000


def draw(bundle: Bundle, holdout: HoldoutPredictions, table: Table, parts: Split, folder: Path) -> Path:
    """Draw the figures of a run as PNG files in `folder`, and return it.

    Predicted against actual values, residuals and, if the table has coordinates, a map of the errors show the validation
    rows, predicted by the fit on the training rows. Column importance is computed on the test rows' inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = table.encoded_as(bundle.schema)
    matrix, actual, predicted = table.matrix[holdout.rows], table.target[holdout.rows], holdout.predicted
    weight, test = table.weight_of(holdout.rows), table.take(parts.test)
    unit = f"{table.schema.target.name} ({table.schema.target.unit_label})"
    model = f"{bundle.card['model']} on features {bundle.card['features']}"
    title = f"{model}, fitted on training rows, {len(actual):,} validation rows"
    with project_style():
        _save_figure(folder / "predicted.png", lambda axes: plot_predicted(axes, predicted, actual, weight, unit), title)
        _save_figure(folder / "residuals.png", lambda axes: plot_residuals(axes, predicted, actual, unit), title)
        _save_figure(folder / "importance.png", lambda axes: plot_importance(axes, bundle, test.matrix, test.weight, unit), model)
        coordinates = table.schema.coordinates()
        if coordinates is not None:
            locations = matrix[:, coordinates]
            _save_figure(folder / "map.png", lambda axes: plot_map(axes, locations, predicted - actual, unit), title, (6.5, 7))
    return folder


def _save_figure(path: Path, plot: "Callable[[Axes], None]", title: str, size: tuple[float, float] = (7.5, 5.5)) -> None:
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel

    figure = Figure(figsize=size, layout="constrained", dpi=120)
    plot(figure.subplots())
    figure.supxlabel(title, fontsize=8, color=MUTED)
    figure.savefig(path)


def plot_predicted(axes: "Axes", predicted: Vector, actual: Vector, weight: Vector | None, unit: str) -> None:
    """Plot predicted against actual values as a density, with the diagonal of exact predictions."""
    from matplotlib.colors import LogNorm  # pylint: disable=import-outside-toplevel

    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    axes.hexbin(
        actual, predicted, gridsize=60, extent=(*ends, *ends), norm=LogNorm(vmin=0.3), mincnt=1, cmap="Blues", linewidths=0.1
    )
    axes.plot(ends, ends, color=ACCENT, linewidth=1)
    axes.set(title="Predicted against actual", xlabel=f"actual {unit}", ylabel="predicted", aspect="equal")
    error = predicted - actual
    rmse, mean_error = np.sqrt(np.average(error**2, weights=weight)), np.average(error, weights=weight)
    note = f"rmse {rmse:.4f}\nmean error {mean_error:+.4f}\ndarker: more rows"
    axes.text(0.03, 0.97, note, transform=axes.transAxes, verticalalignment="top")


def plot_residuals(axes: "Axes", predicted: Vector, actual: Vector, unit: str) -> None:
    """Plot the error against the prediction, with the 10%, 50% and 90% quantiles of the error."""
    error = predicted - actual
    axes.scatter(predicted, error, s=4, color=PRIMARY, alpha=0.25, linewidths=0, rasterized=True)
    axes.axhline(0.0, color=ACCENT, linewidth=1)
    groups = np.array_split(np.argsort(predicted), min(20, len(predicted)))
    middle = [float(np.median(predicted[rows])) for rows in groups]
    for share, style in ((0.1, "--"), (0.5, "-"), (0.9, "--")):
        line = [float(np.quantile(error[rows], share)) for rows in groups]
        axes.plot(middle, line, style, color=TEXT, linewidth=1.2, label=f"{share:.0%} quantile")
    axes.set(title="Error against prediction", xlabel=f"predicted {unit}", ylabel="predicted - actual")
    axes.legend(frameon=False, fontsize=8)


def plot_importance(axes: "Axes", bundle: Bundle, matrix: Matrix, weight: Vector | None, unit: str) -> None:
    """Plot the permutation importance of each column of the table."""
    change = permutation_importance(bundle, matrix, weight)
    order = np.argsort(change)
    names = [bundle.schema.features[column].name for column in order]
    axes.barh(names, change[order], color=PRIMARY)
    axes.set(title="Importance of each column", xlabel=f"RMS change of the prediction when the column is shuffled, {unit}")
    for position, value in enumerate(change[order]):
        axes.text(value, position, f" {value:.3g}", verticalalignment="center", fontsize=8)
    axes.margins(x=0.12)


def permutation_importance(bundle: Bundle, matrix: Matrix, weight: Vector | None) -> Vector:
    """Return the root mean square change of the prediction when a column is shuffled, shape (columns of the schema,).

    This is permutation importance (Breiman, "Random Forests", Machine Learning 45 (2001), section 10) with the prediction
    in place of the target, so it needs no targets of test rows. It averages three shuffles of at most 1,000 rows.
    """
    random, owners = np.random.default_rng(0), bundle.schema.texts.owners
    matrix, weight = matrix[:PERMUTED_ROWS], None if weight is None else weight[:PERMUTED_ROWS]
    predicted = bundle.predict(matrix)

    def change(column: int) -> float:
        rows, numbers = matrix.copy(), owners == column  # the numbers of a text go together
        rows[:, numbers] = rows[random.permutation(len(rows))][:, numbers]
        return float(np.average(np.square(bundle.predict(rows) - predicted), weights=weight))

    columns = range(len(bundle.schema.features))
    return np.sqrt([np.mean([change(column) for _ in range(N_PERMUTATIONS)]) for column in columns])


def plot_map(axes: "Axes", coordinates: Matrix, error: Vector, unit: str, color_limit: float | None = None) -> None:
    """Plot the error at each location. The color scale ends at `color_limit`, by default the 95% quantile of the error."""
    color_limit = color_limit or float(np.quantile(np.abs(error), 0.95)) or 1.0
    order = np.argsort(np.abs(error))  # the large errors on top
    latitude, longitude = coordinates[order].T
    colors: Any = {"c": error[order], "cmap": "RdBu_r", "vmin": -color_limit, "vmax": color_limit}
    points = axes.scatter(longitude, latitude, s=7, linewidths=0, rasterized=True, **colors)
    axes.set(title="Error on the map", xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1.0 / float(np.cos(np.radians(latitude.mean()))))
    color_bar: Any = axes.figure.colorbar(points, ax=axes, shrink=0.6, extend="both")
    color_bar.set_label(f"error of {unit}; red: prediction too high")
