"""The places of the training rows: which are nearest to a row, and how far that is."""

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


class SpatialIndex:
    """Training rows on a plane, and the search among them. `arrays` holds latitude and longitude of each, in degrees."""

    def __init__(self, coordinates: tuple[int, int]) -> None:
        self.coordinates = list(coordinates)
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, unique: bool = False) -> Self:
        """Take the places of training rows; with `once` a place where many rows lie is kept once."""
        degrees = matrix[:, self.coordinates]
        self.arrays["points"] = np.unique(degrees, axis=0) if unique else degrees
        self.arrays["latitude"] = np.array([degrees[:, 0].mean()])
        self.__dict__.pop("_tree", None)
        return self

    @cached_property
    def _tree(self) -> "cKDTree":
        return build_kd_tree(self.project(self.arrays["points"]))

    def project(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give places in degrees as km north and east."""
        return project_to_km(degrees, self.arrays["latitude"][0])

    def nearest(self, matrix: Matrix, count: int) -> tuple[Matrix, Indices]:
        """Give the distance in km to each of the `count` nearest training rows, and which they are; nearest first."""
        return query(self._tree, self.project(matrix[:, self.coordinates]), count)

    def nearest_leave_one_out(self, count: int) -> tuple[Matrix, Indices]:
        """Give the same for each training row, which is no neighbour of its own."""
        return query_leave_one_out(self._tree, count)

    def distance_to_nearest(self, matrix: Matrix) -> Vector:
        """Give the distance in km to the nearest training row."""
        return self.nearest(matrix, 1)[0][:, 0]


def build_kd_tree(points: NDArray[np.float64]) -> "cKDTree":
    """Give a search tree of points."""
    from scipy.spatial import cKDTree  # pylint: disable=import-outside-toplevel  # a model without neighbours needs none

    return cKDTree(points)


def query(kd_tree: "cKDTree", points: NDArray[np.float64], count: int) -> tuple[Matrix, Indices]:
    """Give distance and index of the `count` points nearest to each wanted one. Raises ConfigError where there are fewer."""
    require_rows(kd_tree.n, count)
    distances, indices = kd_tree.query(points, k=np.arange(1, count + 1))
    return distances, indices


def query_leave_one_out(kd_tree: "cKDTree", count: int) -> tuple[Matrix, Indices]:
    """Give distance and index of the `count` points nearest to each point of the tree but itself."""
    require_rows(kd_tree.n, count + 1)
    distances, indices = kd_tree.query(kd_tree.data, k=np.arange(1, count + 2))
    itself = indices == np.arange(kd_tree.n)[:, None]
    itself[~itself.any(axis=1), -1] = True  # more twins than neighbours
    return distances[~itself].reshape(kd_tree.n, count), indices[~itself].reshape(kd_tree.n, count)


def require_rows(rows: int, required: int) -> None:
    """Raise ConfigError where there are fewer rows than wanted."""
    if rows < required:
        raise ConfigError(
            f"features: {required} training rows are needed, and there are {rows};"
            " allowed: fewer neighbours or cells, more rows, or features=static"
        )


def require_counts(block: str, **counts: Sequence[int]) -> None:
    """Raise ConfigError where a list of numbers of rows is empty, or holds what is no such number."""
    for name, numbers in counts.items():
        if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ConfigError(f"features: block {block}: {name} is {list(numbers)}; allowed: whole numbers above 0, one at least")


def require_positive(block: str, **values: Sequence[float]) -> None:
    """Raise ConfigError for a value that is not above 0."""
    for name, numbers in values.items():
        if not all(number > 0 for number in numbers):
            raise ConfigError(f"features: block {block}: {name} is {list(numbers)}; allowed: above 0")


KM_PER_DEGREE = 111.2  # of latitude


def project_to_km(degrees: NDArray[np.float64], latitude: float) -> NDArray[np.float64]:
    """Give places (latitude, longitude in degrees, last axis) in km north and east.

    The plane touches the globe at `latitude`: good to 1 % over a few hundred km, and a tree asks only for an order.
    """
    return degrees * _km_per_degree(float(latitude))


@lru_cache(maxsize=64)  # making the array again would be a part of each prediction that can be felt
def _km_per_degree(latitude: float) -> NDArray[np.float64]:
    scale = np.array([KM_PER_DEGREE, KM_PER_DEGREE * math.cos(math.radians(latitude))])
    scale.flags.writeable = False
    return scale
