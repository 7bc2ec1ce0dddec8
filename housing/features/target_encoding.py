"""Mean targets of cells on the map; a training row is given those of the folds it is not in."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.spatial_index import (
    Indices,
    build_kd_tree,
    project_to_km,
    query,
    require_counts,
    require_positive,
    require_rows,
)
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

MAX_ITER = 20  # of k-means


class SpatialTargetEncoding:
    """For each number of cells: the mean target of the training rows in a row's cell, drawn towards the mean of all.

    The smallest cells are found by k-means on places alone, larger ones by k-means on their centres, so that cells lie
    within cells. No column where the table has no coordinates.
    """

    is_local = True

    def __init__(self, schema: Schema, n_clusters: Sequence[int], folds: int, smoothing: float, seed: int) -> None:
        require_counts("target_encoding", n_clusters=n_clusters)
        require_positive("target_encoding", smoothing=[smoothing])
        if folds < 2:
            raise ConfigError(f"features: block target_encoding: folds is {folds}; allowed: 2 and more")
        coordinates = schema.coordinates()
        self.coordinates = [] if coordinates is None else list(coordinates)
        self.n_clusters = [] if coordinates is None else sorted(n_clusters, reverse=True)
        self.folds, self.smoothing, self.seed = folds, smoothing, seed
        self.names = [f"target_encoding_{count}_clusters" for count in self.n_clusters]
        self.arrays: dict[str, NDArray[Any]] = {}

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn the cells and their mean targets."""
        self.fit_transform(matrix, target)
        return self

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give each training row what the folds without it say."""
        derived = np.empty((len(matrix), len(self.n_clusters)))
        if not self.n_clusters:
            return derived
        require_rows(len(matrix), max(*self.n_clusters, self.folds))
        self.__dict__.pop("_tree", None)
        self.arrays["latitude"] = matrix[:, self.coordinates[0]].mean(keepdims=True)
        random, km = np.random.default_rng(self.seed), self._project(matrix)
        fold_of = random.permutation(len(matrix)) % self.folds
        self.arrays["centres"], larger = k_means(km, self.n_clusters[0], random), np.arange(self.n_clusters[0])
        means, cell, centres = [], _nearest(self._tree, km), self.arrays["centres"]
        for column, count in enumerate(self.n_clusters):
            if column:
                centres, within = k_means(centres, count, random), centres
                larger = _nearest(build_kd_tree(centres), within)[larger]
            means.append(self._smoothed_means(larger[cell], target, count)[larger])
            for fold in range(self.folds):
                others = fold_of != fold
                learned = self._smoothed_means(larger[cell[others]], target[others], count)
                derived[~others, column] = learned[larger[cell[~others]]]
        self.arrays["means"] = np.column_stack(means)
        return derived

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the mean target of each row's cells."""
        if not self.n_clusters:
            return np.empty((len(matrix), 0))
        found: Matrix = self.arrays["means"][_nearest(self._tree, self._project(matrix))]
        return found

    @cached_property
    def _tree(self) -> "cKDTree":
        return build_kd_tree(self.arrays["centres"])

    def _project(self, matrix: Matrix) -> NDArray[np.float64]:
        return project_to_km(matrix[:, self.coordinates], self.arrays["latitude"][0])

    def _smoothed_means(self, cell: Indices, target: Vector, count: int) -> Vector:
        sums, rows = np.bincount(cell, target, count), np.bincount(cell, minlength=count)
        found: Vector = (sums + self.smoothing * target.mean()) / (rows + self.smoothing)
        return found


def k_means(points: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Give `count` centres: Lloyd's rounds from points picked by chance; a centre that loses all its points stays."""
    centres = points[random.choice(len(points), count, replace=False)]
    for _ in range(MAX_ITER):
        cell = _nearest(build_kd_tree(centres), points)
        rows = np.bincount(cell, minlength=count)
        sums = np.column_stack([np.bincount(cell, axis, count) for axis in points.T])
        centres = np.where(rows[:, None] > 0, sums / np.maximum(rows, 1)[:, None], centres)
    return centres


def _nearest(centres: "cKDTree", points: NDArray[np.float64]) -> Indices:
    return query(centres, points, 1)[1][:, 0]
