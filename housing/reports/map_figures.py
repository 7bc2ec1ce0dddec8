"""TODO docstring."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from housing.features.landmarks import parse_coordinates
from housing.plots.run_figures import plot_map
from housing.plots.svg import MUTED, TEXT, SvgFigure, draw_svg
from housing.reports.run_data import RunData
from housing.schema.column import Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_LABEL_GAP = 0.09  # of the map's height: places nearer to each other share one name


def error_maps(run: RunData) -> list[SvgFigure]:
    """Draw where the model errs, and by how much; nothing for a table without coordinates."""
    places = run.coordinates
    if places is None:
        return []

    def of_errors(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_map(axes, places, run.error, run.target_label)
        _draw_landmarks(axes, run)
        axes.set_title("")

    def of_size(figure: "Figure") -> None:
        axes = figure.subplots()
        latitude, longitude = places.T
        hexagons = axes.hexbin(
            longitude, latitude, run.error**2, gridsize=24, mincnt=3, cmap="YlOrRd", linewidths=0.2,
            reduce_C_function=lambda squares: float(np.sqrt(np.mean(squares))),
        )  # fmt: skip
        axes.set(xlabel="longitude", ylabel="latitude")
        axes.set_aspect(_aspect(latitude))
        _draw_landmarks(axes, run)
        _add_colorbar(axes, hexagons, f"RMSE, {run.target_label}")

    return [
        draw_svg("Error map", f"Each dot is a row. {run.rows_description}.", of_errors, (5.5, 5.6)),
        draw_svg(
            "Where errors are large", f"RMSE in each cell with three rows and more. {run.rows_description}.", of_size, (5.5, 5.6)
        ),
    ]


def _aspect(latitude: Vector) -> float:
    return 1.0 / math.cos(math.radians(float(latitude.mean())))


def _add_colorbar(axes: "Axes", mappable: Any, label: str) -> None:
    scale: Any = axes.figure.colorbar(mappable, ax=axes, shrink=0.6)
    scale.set_label(label)


def _draw_landmarks(axes: "Axes", run: RunData) -> None:
    """Draw the lines and name the places that the table declares."""
    places = run.cfg.data.get("landmarks") or {}
    ends = axes.axis()
    for line in (places.get("lines") or {}).values():
        latitude, longitude = parse_coordinates(line).T
        axes.plot(longitude, latitude, color=MUTED, linewidth=0.8, zorder=0)
    named: list[Vector] = []
    for name, place in (places.get("points") or {}).items():
        here = parse_coordinates(place)[0]
        if all(np.hypot(*(here - other)) > MIN_LABEL_GAP * (ends[3] - ends[2]) for other in named):
            named.append(here)
            axes.plot(here[1], here[0], ".", color=TEXT, markersize=3)
            _label_point(axes, name.replace("_", " ").title(), here)
    axes.axis(ends)


def _label_point(axes: "Axes", name: str, location: Vector) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    offset: Any = {"xytext": (4, 4), "textcoords": "offset points"}
    axes.annotate(name, (location[1], location[0]), fontsize=7, bbox=box, clip_on=True, **offset)
