"""Distances in km to declared places: points such as cities, lines such as a coast."""

from collections.abc import Mapping
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.spatial_index import project_to_km
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class LandmarkDistances:
    """Distance to each point, to the nearest of them, and to each line; no column where the table has no coordinates.

    The plane of `to_km` touches the globe at the training rows' mean latitude.
    """

    is_local = False

    def __init__(self, schema: Schema, points: Mapping[str, str], lines: Mapping[str, str]) -> None:
        self.coordinates = schema.coordinates()
        here = self.coordinates is not None
        self.points = parse_coordinates(", ".join(points.values())) if here and points else np.empty((0, 2))
        self.lines = [parse_coordinates(line) for line in lines.values()] if here else []
        self.names = [f"km_to_{name}" for name in [*points, *(["nearest"] if points else []), *lines]] if here else []
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, _target: Vector) -> Self:
        """Learn the latitude at which a degree of longitude is measured."""
        if self.coordinates is not None:
            self.arrays["latitude"] = np.array([matrix[:, self.coordinates[0]].mean()])
            self.__dict__.pop("_projected", None)
        return self

    @cached_property
    def _projected(self) -> tuple[Matrix, list["_Polyline"]]:
        """The places in km."""
        return self._project(self.points), [_Polyline(self._project(line)) for line in self.lines]

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the distances in km."""
        if self.coordinates is None or not self.names:
            return np.empty((len(matrix), 0))
        north, east = self._project(matrix[:, self.coordinates]).T[:, :, None]
        points, lines = self._projected
        columns = [line.distance(north, east) for line in lines]
        if len(points):
            to_points = np.hypot(north - points[:, 0], east - points[:, 1])
            columns = [to_points, to_points.min(axis=1, keepdims=True), *columns]
        return np.concatenate(columns, axis=1)

    def _project(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        return project_to_km(degrees, self.arrays["latitude"][0])


class _Polyline:
    """A polyline in km; the axes are apart, since a sum over an axis of two costs more than an addition."""

    def __init__(self, line: Matrix) -> None:
        self.north, self.east = line[:-1].T
        self.step_north, self.step_east = np.diff(line, axis=0).T
        self.squares = self.step_north**2 + self.step_east**2

    def distance(self, north: Matrix, east: Matrix) -> Matrix:
        """Give the distance of each row, all of shape (rows, 1): the least to one of the segments."""
        north, east = north - self.north, east - self.east
        along = (north * self.step_north + east * self.step_east) / self.squares
        np.minimum(np.maximum(along, 0.0, out=along), 1.0, out=along)
        north -= along * self.step_north
        east -= along * self.step_east
        return np.sqrt(np.minimum.reduce(north * north + east * east, axis=1, keepdims=True))


def parse_coordinates(text: str) -> NDArray[np.float64]:
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
