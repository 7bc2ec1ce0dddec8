"""TODO docstring."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.features.landmarks import read_places
from housing.plots.run_figures import plot_map
from housing.plots.svg import FAINT, INK, Drawn, draw_svg
from housing.reports.run_data import Subject
from housing.schema.column import Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_EVERY = 0.09  # of the map's height: places nearer to each other share one name


def maps(subject: Subject) -> list[Drawn]:
    """Draw where the model errs, and by how much; nothing for a table without coordinates."""
    places = subject.places
    if places is None:
        return []

    def of_errors(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_map(axes, places, subject.error, subject.unit)
        _landmarks(axes, subject)
        axes.set_title("")

    def of_size(figure: "Figure") -> None:
        axes = figure.subplots()
        latitude, longitude = places.T
        hexagons = axes.hexbin(
            longitude, latitude, subject.error**2, gridsize=24, mincnt=3, cmap="YlOrRd", linewidths=0.2,
            reduce_C_function=lambda squares: float(np.sqrt(np.mean(squares))),
        )  # fmt: skip
        axes.set(xlabel="longitude", ylabel="latitude")
        axes.set_aspect(_aspect(latitude))
        _landmarks(axes, subject)
        _scale(axes, hexagons, f"RMSE, {subject.unit}")

    return [
        draw_svg("Error map", f"Each dot is a row. {subject.rows}.", of_errors, (5.5, 5.6)),
        draw_svg("Where errors are large", f"RMSE in each cell with three rows and more. {subject.rows}.", of_size, (5.5, 5.6)),
    ]


def _aspect(latitude: Vector) -> float:
    return 1.0 / math.cos(math.radians(float(latitude.mean())))


def _scale(axes: "Axes", drawn: Any, label: str) -> None:
    scale: Any = axes.figure.colorbar(drawn, ax=axes, shrink=0.6)
    scale.set_label(label)


def _landmarks(axes: "Axes", subject: Subject) -> None:
    """Draw the lines and name the places that the table declares."""
    places = subject.cfg.data.get("places") or {}
    ends = axes.axis()
    for line in (places.get("lines") or {}).values():
        latitude, longitude = read_places(line).T
        axes.plot(longitude, latitude, color=FAINT, linewidth=0.8, zorder=0)
    named: list[Vector] = []
    for name, place in (places.get("points") or {}).items():
        here = read_places(place)[0]
        if all(np.hypot(*(here - other)) > NAMED_EVERY * (ends[3] - ends[2]) for other in named):
            named.append(here)
            axes.plot(here[1], here[0], ".", color=INK, markersize=3)
            _name(axes, name.replace("_", " ").title(), here)
    axes.axis(ends)


def _name(axes: "Axes", name: str, place: Vector) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    offset: Any = {"xytext": (4, 4), "textcoords": "offset points"}
    axes.annotate(name, (place[1], place[0]), fontsize=7, bbox=box, clip_on=True, **offset)
