"""The figures of a model, drawn from its bundle on rows that it was not fitted on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.bundle import Bundle
from housing.data import Table
from housing.schema import Matrix, Vector
from housing.split import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERMUTATIONS, PERMUTED_ROWS = 3, 1000
INK, FAINT, WARM, COOL = "#1f2933", "#9aa5b1", "#c8553d", "#2b6f97"


def draw(bundle: Bundle, table: Table, rows: Rows, folder: Path) -> Path:
    """Draw a model on some rows as PNG files in `folder`, and give it.

    They are: predicted against actual, residuals, importance, and the error on the map where there are coordinates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matrix, actual = table.matrix[rows], table.target[rows]
    predicted = bundle.predict(matrix)
    unit = f"{table.schema.target.name} ({table.schema.target.unit})"
    title = f"{bundle.card['model']} on features {bundle.card['features']}, {len(rows):,} validation rows"
    with styled():
        _draw(folder / "predicted.png", lambda axes: _predicted(axes, predicted, actual, unit), title)
        _draw(folder / "residuals.png", lambda axes: _residuals(axes, predicted, actual, unit), title)
        _draw(folder / "importance.png", lambda axes: _importance(axes, bundle, matrix, actual), title)
        coordinates = table.schema.coordinates()
        if coordinates is not None:
            _draw(folder / "map.png", lambda axes: _map(axes, matrix[:, coordinates], predicted - actual, unit), title, (6.5, 7))
    return folder


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of this project for as long as the block lasts; needs no screen."""
    import matplotlib as mpl  # pylint: disable=import-outside-toplevel  # 1 s that only drawing needs

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    mpl.use("agg")
    lines: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT}
    words: Any = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "font.size": 10,
    }
    with mpl.rc_context({**lines, **words}):
        yield


def _draw(path: Path, plot: "Callable[[Axes], None]", title: str, size: tuple[float, float] = (7.5, 5.5)) -> None:
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel

    figure = Figure(figsize=size, layout="constrained", dpi=120)
    plot(figure.subplots())
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
