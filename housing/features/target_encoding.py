"""Spatial target encoding: smoothed mean targets of clusters on the map, out of fold for training rows."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.kd_tree import Indices, KdTree, require_rows
from housing.features.spatial_index import km_per_degree, project_to_km, require_counts, require_positive
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

MAX_ITER = 20  # iterations of k-means


class SpatialTargetEncoding:
    """Smoothed, weighted mean target of the training rows in the same cluster, for several numbers of clusters.

    The smallest clusters come from k-means on locations, larger ones from k-means on the centres of the smaller ones, so
    clusters are nested. A table without coordinates gets no columns.

    Parameters
    ----------
    schema
        The columns of the table.
    n_clusters
        Numbers of clusters; each is one column.
    folds
        Number of folds. A training row gets the means of the folds without it.
    smoothing
        Number of rows of weight 1 with the overall mean that are added to each cluster.
    seed
        Seed of folds and initial centres.

    Attributes
    ----------
    arrays
        Fitted state: `centres`, shape (smallest clusters, 2), in km, and `means`, shape (smallest clusters, names).
    """

    is_local = True

    def __init__(self, schema: Schema, n_clusters: Sequence[int], folds: int, smoothing: float, seed: int) -> None:
        require_counts("target_encoding", n_clusters=n_clusters)
        require_positive("target_encoding", smoothing=[smoothing])
        if folds < 2:
            raise ConfigError(f"Block target_encoding: folds must be at least 2 (got {folds}).")
        coordinates = schema.coordinates()
        self.coordinates = [] if coordinates is None else list(coordinates)
        self.n_clusters = [] if coordinates is None else sorted(n_clusters, reverse=True)
        self.folds, self.smoothing, self.seed = folds, smoothing, seed
        self.names = [f"target_encoding_{count}_clusters" for count in self.n_clusters]
        self.arrays: dict[str, NDArray[Any]] = {}

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn the clusters and their mean targets."""
        self.fit_transform(matrix, target)
        return self

    def fit_transform(self, matrix: Matrix, target: Vector, weight: Vector | None = None) -> Matrix:
        """Fit, and return the out-of-fold means of the training rows, shape (rows, names)."""
        derived = np.empty((len(matrix), len(self.n_clusters)))
        if not self.n_clusters:
            return derived
        require_rows(len(matrix), max(*self.n_clusters, self.folds))
        self.__dict__.pop("_tree", None)
        self.arrays["latitude"] = matrix[:, self.coordinates[0]].mean(keepdims=True)
        random = np.random.default_rng(self.seed)
        km = project_to_km(matrix[:, self.coordinates], self.arrays["latitude"][0])
        weight = np.ones(len(matrix)) if weight is None else weight
        fold_of = random.permutation(len(matrix)) % self.folds
        self.arrays["centres"], parent_of = k_means(km, self.n_clusters[0], random), np.arange(self.n_clusters[0])
        means, cluster, centres = [], _nearest(KdTree(self.arrays["centres"]), km), self.arrays["centres"]
        for column, count in enumerate(self.n_clusters):
            if column:
                centres, smaller = k_means(centres, count, random), centres
                parent_of = _nearest(KdTree(centres), smaller)[parent_of]
            means.append(self._smoothed_means(parent_of[cluster], target, weight, count)[parent_of])
            for fold in range(self.folds):
                in_fold, others = fold_of == fold, fold_of != fold
                fold_means = self._smoothed_means(parent_of[cluster[others]], target[others], weight[others], count)
                derived[in_fold, column] = fold_means[parent_of[cluster[in_fold]]]
        self.arrays["means"] = np.column_stack(means)
        return derived

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the mean targets of the clusters of new rows, shape (rows, names)."""
        if not self.n_clusters:
            return np.empty((len(matrix), 0))
        means: Matrix = self.arrays["means"][_nearest(self._tree, matrix)]
        return means

    @cached_property
    def _tree(self) -> KdTree:
        return KdTree(self.arrays["centres"], self.coordinates, km_per_degree(float(self.arrays["latitude"][0])))

    def _smoothed_means(self, cluster: Indices, target: Vector, weight: Vector, count: int) -> Vector:
        sums, rows = np.bincount(cluster, weight * target, count), np.bincount(cluster, weight, count)
        means: Vector = (sums + self.smoothing * np.average(target, weights=weight)) / (rows + self.smoothing)
        return means


def k_means(points: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return cluster centres, shape (count, dimensions), by Lloyd's algorithm from random points.

    A centre that loses all its points stays where it is.
    """
    centres = points[random.choice(len(points), count, replace=False)]
    for _ in range(MAX_ITER):
        cluster = _nearest(KdTree(centres), points)
        rows = np.bincount(cluster, minlength=count)
        sums = np.column_stack([np.bincount(cluster, axis, count) for axis in points.T])
        centres = np.where(rows[:, None] > 0, sums / np.maximum(rows, 1)[:, None], centres)
    return centres


def _nearest(centres: KdTree, rows: Matrix) -> Indices:
    return centres.query(rows, 1)[1][:, 0]
