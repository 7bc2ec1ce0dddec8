"""Spatial index: nearest-neighbour search among the locations of training rows."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.kd_tree import PACKED, Indices, KdTree, pack_tree
from housing.schema.column import Matrix, Vector

KM_PER_DEGREE = 111.2  # of latitude
OLD_POINTS = "points"  # in degrees, from which bundles of format 8 built their tree each time they were loaded


class SpatialIndex:
    """Nearest-neighbour search among training rows by distance in km.

    Parameters
    ----------
    coordinates
        Indices of latitude and longitude in the matrix.

    Attributes
    ----------
    arrays
        Fitted state: the tree of the points in km, see `pack_tree`; `latitude`, shape (1,), the mean in degrees.
    """

    def __init__(self, coordinates: tuple[int, int]) -> None:
        self.coordinates = list(coordinates)
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, unique: bool = False) -> Self:
        """Store the locations of training rows; with `unique`, rows at the same location become one point."""
        degrees = matrix[:, self.coordinates]
        points = np.unique(degrees, axis=0) if unique else degrees
        self.arrays["latitude"] = np.array([degrees[:, 0].mean()])
        self.arrays |= pack_tree(project_to_km(points, float(self.arrays["latitude"][0])))
        self.__dict__.pop("_tree", None)
        return self

    @cached_property
    def _tree(self) -> KdTree:
        scale = km_per_degree(float(self.arrays["latitude"][0]))
        if OLD_POINTS in self.arrays:  # of a bundle of format 8
            return KdTree(self.arrays[OLD_POINTS] * scale, self.coordinates, scale)
        return KdTree.restore({name: self.arrays[name] for name in PACKED}, self.coordinates, scale)

    def nearest(self, matrix: Matrix, count: int) -> tuple[Matrix, Indices]:
        """Return distances in km and indices of the `count` nearest points, nearest first; both of shape (rows, count)."""
        return self._tree.query(matrix, count)

    def nearest_leave_one_out(self, count: int, part: slice = slice(None)) -> tuple[Matrix, Indices]:
        """Return the same for the training rows, all or a part of them; a row is not its own neighbour."""
        return self._tree.leave_one_out(count, part)

    def distance_to_nearest(self, matrix: Matrix) -> Vector:
        """Return the distance in km to the nearest training row, shape (rows,)."""
        return self.nearest(matrix, 1)[0][:, 0]


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
    return degrees * km_per_degree(float(latitude))


@lru_cache(maxsize=64)  # creating the array takes a measurable part of a one-row prediction
def km_per_degree(latitude: float) -> NDArray[np.float64]:
    """Return the lengths of a degree of latitude and of longitude in km, shape (2,)."""
    scale = np.array([KM_PER_DEGREE, KM_PER_DEGREE * math.cos(math.radians(latitude))])
    scale.flags.writeable = False
    return scale
