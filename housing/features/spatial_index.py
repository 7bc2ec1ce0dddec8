"""Spatial index: nearest-neighbour search among the locations of training rows."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Indices = NDArray[np.intp]

KM_PER_DEGREE = 111.2  # of latitude


class SpatialIndex:
    """Nearest-neighbour search among training rows by distance in km.

    Parameters
    ----------
    coordinates
        Indices of latitude and longitude in the matrix.

    Attributes
    ----------
    arrays
        Fitted state: `points`, shape (points, 2), latitude and longitude in degrees; `latitude`, shape (1,), their mean.
    """

    def __init__(self, coordinates: tuple[int, int]) -> None:
        self.coordinates = list(coordinates)
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, unique: bool = False) -> Self:
        """Store the locations of training rows; with `unique`, rows at the same location become one point."""
        degrees = matrix[:, self.coordinates]
        self.arrays["points"] = np.unique(degrees, axis=0) if unique else degrees
        self.arrays["latitude"] = np.array([degrees[:, 0].mean()])
        self.__dict__.pop("_tree", None)
        return self

    @cached_property
    def _tree(self) -> "cKDTree":
        return build_kd_tree(self.project(self.arrays["points"]))

    def project(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project degrees, shape (..., 2), to km north and east."""
        return project_to_km(degrees, self.arrays["latitude"][0])

    def nearest(self, matrix: Matrix, count: int) -> tuple[Matrix, Indices]:
        """Return distances in km and indices of the `count` nearest points, nearest first; both of shape (rows, count)."""
        return query(self._tree, self.project(matrix[:, self.coordinates]), count)

    def nearest_leave_one_out(self, count: int) -> tuple[Matrix, Indices]:
        """Return the same for the training rows; a row is not its own neighbour."""
        return query_leave_one_out(self._tree, count)

    def distance_to_nearest(self, matrix: Matrix) -> Vector:
        """Return the distance in km to the nearest training row, shape (rows,)."""
        return self.nearest(matrix, 1)[0][:, 0]


def build_kd_tree(points: NDArray[np.float64]) -> "cKDTree":
    """Return a search tree of points, shape (points, dimensions)."""
    from scipy.spatial import cKDTree  # pylint: disable=import-outside-toplevel  # a slow import that most models never need

    return cKDTree(points)


def query(kd_tree: "cKDTree", points: NDArray[np.float64], count: int) -> tuple[Matrix, Indices]:
    """Return distances and indices of the `count` points of a tree that are nearest to each query point.

    Parameters
    ----------
    kd_tree
        The search tree.
    points
        Query points, shape (rows, dimensions).
    count
        Number of neighbours.

    Returns
    -------
    distances, indices
        Both of shape (rows, count), nearest first.

    Raises
    ------
    ConfigError
        If the tree has fewer than `count` points.
    """
    require_rows(kd_tree.n, count)
    distances, indices = kd_tree.query(points, k=np.arange(1, count + 1))
    return distances, indices


def query_leave_one_out(kd_tree: "cKDTree", count: int) -> tuple[Matrix, Indices]:
    """Return distances and indices, both of shape (points, count), of the neighbours of each point without the point itself."""
    require_rows(kd_tree.n, count + 1)
    distances, indices = kd_tree.query(kd_tree.data, k=np.arange(1, count + 2))
    is_self = indices == np.arange(kd_tree.n)[:, None]
    is_self[~is_self.any(axis=1), -1] = True  # if more points coincide than are returned, drop any one of them
    return distances[~is_self].reshape(kd_tree.n, count), indices[~is_self].reshape(kd_tree.n, count)


def require_rows(rows: int, required: int) -> None:
    """Raise ConfigError if there are too few training rows."""
    if rows < required:
        raise ConfigError(
            f"The features need at least {required} training rows (got {rows}). Use more rows, fewer neighbours or clusters,"
            " or features=static."
        )


def require_counts(block: str, **counts: Sequence[int]) -> None:
    """Raise ConfigError unless each list has at least one value and all its values are whole numbers above 0."""
    for name, numbers in counts.items():
        if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ConfigError(f"Block {block}: {name} must be one or more whole numbers above 0 (got {list(numbers)}).")


def require_positive(block: str, **values: Sequence[float]) -> None:
    """Raise ConfigError unless all values are above 0."""
    for name, numbers in values.items():
        if not all(number > 0 for number in numbers):
            raise ConfigError(f"Block {block}: {name} must be above 0 (got {list(numbers)}).")


def project_to_km(degrees: NDArray[np.float64], latitude: float) -> NDArray[np.float64]:
    """Project latitude and longitude in degrees, shape (..., 2), to km north and east of the origin.

    The equirectangular projection is exact at `latitude` and accurate to 1 % within a few hundred km.
    """
    return degrees * _km_per_degree(float(latitude))


@lru_cache(maxsize=64)  # creating the array takes a measurable part of a one-row prediction
def _km_per_degree(latitude: float) -> NDArray[np.float64]:
    scale = np.array([KM_PER_DEGREE, KM_PER_DEGREE * math.cos(math.radians(latitude))])
    scale.flags.writeable = False
    return scale
