"""Distances to landmarks: points such as cities, and lines such as a coast."""

from collections.abc import Mapping
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features import compiled
from housing.features.spatial_index import km_per_degree, project_to_km
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class LandmarkDistances:
    """Distances in km to each point, to the nearest point and to each line.

    A table without coordinates gets no columns.

    Parameters
    ----------
    schema
        The columns of the table.
    points
        "latitude longitude" in degrees, by name.
    lines
        "latitude longitude, latitude longitude, ..." in degrees, by name.

    Attributes
    ----------
    arrays
        Fitted state: `latitude`, shape (1,), the mean latitude of the training rows, at which distances are exact.
    """

    is_local = False

    def __init__(self, schema: Schema, points: Mapping[str, str], lines: Mapping[str, str]) -> None:
        self.coordinates = schema.coordinates()
        if self.coordinates is None:
            points, lines = {}, {}
        self.points = parse_coordinates(", ".join(points.values())) if points else np.empty((0, 2))
        self.lines = [parse_coordinates(line) for line in lines.values()]
        self.names = [f"km_to_{name}" for name in [*points, *(["nearest"] if points else []), *lines]]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, _target: Vector) -> Self:
        """Learn the mean latitude, which sets the length of a degree of longitude."""
        if self.coordinates is not None:
            self.arrays["latitude"] = np.array([matrix[:, self.coordinates[0]].mean()])
            for cached in ("_projected", "_packed"):
                self.__dict__.pop(cached, None)
        return self

    @cached_property
    def _projected(self) -> tuple[Matrix, list["_Polyline"]]:
        """Points, shape (points, 2), and lines, in km north and east."""
        return self._project(self.points), [_Polyline(self._project(line)) for line in self.lines]

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the distances in km, shape (rows, names)."""
        if self.coordinates is None or not self.names:
            return np.empty((len(matrix), 0))
        if compiled.kernels is not None:
            return self._transform_compiled(np.ascontiguousarray(matrix, dtype=np.float64), self.coordinates)
        compiled.warn_not_compiled()
        north, east = self._project(matrix[:, self.coordinates]).T[:, :, None]
        points, lines = self._projected
        columns = [line.distance(north, east) for line in lines]
        if len(points):
            to_points = np.hypot(north - points[:, 0], east - points[:, 1])
            columns = [to_points, to_points.min(axis=1, keepdims=True), *columns]
        return np.concatenate(columns, axis=1)

    def _transform_compiled(self, matrix: Matrix, coordinates: tuple[int, int]) -> Matrix:
        derived = np.empty((len(matrix), len(self.names)))
        compiled.kernels.landmarks(matrix, matrix.shape[1], *coordinates, *self._packed, derived)
        return derived

    @cached_property
    def _packed(self) -> tuple[float | bytes, ...]:
        """Lengths of a degree in km, points, lines, and their numbers of segments, as spatial_kernels.c reads them."""
        points, lines = self._projected
        scale = km_per_degree(float(self.arrays["latitude"][0])).tolist()
        segments = np.array([len(line.north) for line in lines], dtype=np.int64)
        return *scale, points.tobytes(), b"".join(line.tobytes() for line in lines), segments.tobytes()

    def _project(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        return project_to_km(degrees, self.arrays["latitude"][0])


class _Polyline:
    """A polyline in km. North and east are separate arrays, because a sum over an axis of length two is slower."""

    def __init__(self, line: Matrix) -> None:
        self.north, self.east = line[:-1].T
        self.step_north, self.step_east = np.diff(line, axis=0).T
        self.squares = self.step_north**2 + self.step_east**2

    def tobytes(self) -> bytes:
        """Return the arrays one after the other."""
        return b"".join(map(np.ndarray.tobytes, (self.north, self.east, self.step_north, self.step_east, self.squares)))

    def distance(self, north: Matrix, east: Matrix) -> Matrix:
        """Return the distance in km from each row to the nearest segment; arguments and result have the shape (rows, 1)."""
        north, east = north - self.north, east - self.east
        along = (north * self.step_north + east * self.step_east) / self.squares
        np.minimum(np.maximum(along, 0.0, out=along), 1.0, out=along)
        north -= along * self.step_north
        east -= along * self.step_east
        return np.sqrt(np.minimum.reduce(north * north + east * east, axis=1, keepdims=True))


def parse_coordinates(text: str) -> NDArray[np.float64]:
    """Parse "latitude longitude, latitude longitude" into an array of degrees, shape (points, 2).

    Raises
    ------
    ConfigError
        If the text has another form.
    """
    try:
        points = np.array([[float(degrees) for degrees in point.split()] for point in text.split(",")])
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ConfigError(f"Landmarks must have the form 'latitude longitude, latitude longitude' (got {text[:60]!r}).")
    return points
