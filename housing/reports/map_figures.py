"""Maps of errors, as SVG."""

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

MIN_LABEL_GAP = 0.09  # of the map's height; of landmarks closer than this only the first is named


def error_maps(run: RunData) -> list[SvgFigure]:
    """Draw the errors on a map; return nothing if the table has no coordinates."""
    coordinates = run.coordinates
    if coordinates is None:
        return []

    def scatter(figure: "Figure") -> None:
        axes = figure.subplots()
        plot_map(axes, coordinates, run.error, run.target_label)
        draw_landmarks(axes, run)
        axes.set_title("")

    def hexagon_map(figure: "Figure") -> None:
        axes = figure.subplots()
        latitude, longitude = coordinates.T
        hexagons = axes.hexbin(
            longitude, latitude, np.arange(len(latitude)), gridsize=24, mincnt=3, cmap="YlOrRd", linewidths=0.2,
            reduce_C_function=lambda rows: run.rmse_of(np.array(rows, dtype=np.intp)),
        )  # fmt: skip
        axes.set(xlabel="longitude", ylabel="latitude")
        axes.set_aspect(_aspect(latitude))
        draw_landmarks(axes, run)
        _add_colorbar(axes, hexagons, f"RMSE, {run.target_label}")

    return [
        draw_svg("Error map", f"Each dot is a row. {run.rows_description}.", scatter, (5.5, 5.6)),
        draw_svg("Error size", f"RMSE in each cell with at least three rows. {run.rows_description}.", hexagon_map, (5.5, 5.6)),
    ]


def _aspect(latitude: Vector) -> float:
    return 1.0 / math.cos(math.radians(float(latitude.mean())))


def _add_colorbar(axes: "Axes", mappable: Any, label: str) -> None:
    scale: Any = axes.figure.colorbar(mappable, ax=axes, shrink=0.6)
    scale.set_label(label)


def draw_landmarks(axes: "Axes", run: RunData) -> None:
    """Draw the landmarks that the table declares: lines, and points with their names."""
    landmarks = run.cfg.data.get("landmarks") or {}
    limits = axes.axis()
    for line in (landmarks.get("lines") or {}).values():
        latitude, longitude = parse_coordinates(line).T
        axes.plot(longitude, latitude, color=MUTED, linewidth=0.8, zorder=0)
    named: list[Vector] = []
    for name, point in (landmarks.get("points") or {}).items():
        location = parse_coordinates(point)[0]
        if all(np.hypot(*(location - other)) > MIN_LABEL_GAP * (limits[3] - limits[2]) for other in named):
            named.append(location)
            axes.plot(location[1], location[0], ".", color=TEXT, markersize=3)
            _label_point(axes, name.replace("_", " ").title(), location)
    axes.axis(limits)


def _label_point(axes: "Axes", name: str, location: Vector) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    offset: Any = {"xytext": (4, 4), "textcoords": "offset points"}
    axes.annotate(name, (location[1], location[0]), fontsize=7, bbox=box, clip_on=True, **offset)
