"""Distances in km to declared places: points such as cities, lines such as a coast."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.errors import ConfigError
from housing.schema import Matrix, Schema, Vector

KM_PER_DEGREE = 111.2  # of latitude


class Distance:
    """Distance to each point, to the nearest of them, and to each line; no column where the table has no coordinates.

    Degrees become km on a plane that touches the globe at the training rows' mean latitude: good to 1 % over a few
    hundred km, and a tree asks only for an order.
    """

    def __init__(self, schema: Schema, points: Mapping[str, str], lines: Mapping[str, str]) -> None:
        self.coordinates = schema.coordinates()
        here = self.coordinates is not None
        self.points = read_places(", ".join(points.values())) if here and points else np.empty((0, 2))
        self.lines = [read_places(line) for line in lines.values()] if here else []
        self.names = [f"km_to_{name}" for name in [*points, *(["nearest"] if points else []), *lines]] if here else []
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, _target: Vector) -> Self:
        """Learn the latitude at which a degree of longitude is measured."""
        if self.coordinates is not None:
            self.arrays["latitude"] = np.array([matrix[:, self.coordinates[0]].mean()])
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the distances in km."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        rows = self._plane(matrix[:, self.coordinates])
        columns = []
        if len(self.points):
            to_points = np.linalg.norm(rows[:, None] - self._plane(self.points), axis=-1)
            columns += [to_points, to_points.min(axis=1, keepdims=True)]
        columns += [_to_line(rows, self._plane(line))[:, None] for line in self.lines]
        return np.hstack(columns) if columns else np.empty((len(matrix), 0))

    def _plane(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        return degrees * KM_PER_DEGREE * [1.0, np.cos(np.radians(self.arrays["latitude"][0]))]


def read_places(text: str) -> NDArray[np.float64]:
    """Read "latitude longitude, latitude longitude" as an array of shape (places, 2).

    Raises ConfigError for a text of another form.
    """
    try:
        places = np.array([[float(degrees) for degrees in place.split()] for place in text.split(",")])
    except ValueError:
        places = np.empty(0)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ConfigError(f"places: {text[:60]!r} is not of the form 'latitude longitude, latitude longitude'")
    return places


def _to_line(rows: NDArray[np.float64], line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each row to a polyline: the least distance to one of its segments."""
    start, step = line[:-1], np.diff(line, axis=0)
    along = ((rows[:, None] - start) * step).sum(-1) / (step * step).sum(-1)
    nearest = start + np.clip(along, 0.0, 1.0)[..., None] * step
    return np.linalg.norm(rows[:, None] - nearest, axis=-1).min(axis=1)
