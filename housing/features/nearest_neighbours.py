"""Nearest-neighbour features: distances, columns and targets of the nearest training rows."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.features import compiled
from housing.features.encoding import median
from housing.features.kd_tree import Indices
from housing.features.rank_correlation import rank_correlations
from housing.features.spatial_index import SpatialIndex, require_counts, require_positive
from housing.schema.column import Matrix, Vector
from housing.schema.declaration import UNORDERED_TYPES
from housing.schema.table_schema import Schema

CHUNK = 128  # rows per batch; each needs several kB, and a processor's cache has about 1 MB
COLOCATED_KM = 1e-6  # rows within this distance share their location
MIN_WEIGHT = 1e-9  # weight of a neighbour at any distance, so that the sum of weights is never 0


class NearestNeighbours:
    """Statistics of the nearest training rows. A training row is not a neighbour of itself, and each neighbour counts alike.

    Target means are taken over the nearest rows, with weights that decay with distance, over similar rows, and over rows at
    the same location. Similarity also depends on the column that correlates most with the target. A table without
    coordinates gets no columns.

    Parameters
    ----------
    schema
        The columns of the table.
    distances_to
        Ranks of the neighbours whose distance in km is a column.
    feature_means
        Numbers of neighbours over which numeric columns are averaged.
    target_means
        Numbers of neighbours over which targets are averaged.
    target_stds
        Numbers of neighbours over which the standard deviation of targets is taken.
    decay_km
        Distances in km at which the weight of a neighbour's target has fallen to 1/e.
    similarity_km
        The same for the mean over similar rows.

    Attributes
    ----------
    arrays
        Fitted state: locations, numeric `columns`, shape (training rows, columns), and `targets`, shape (training rows,).
    """

    is_local = True

    def __init__(
        self,
        schema: Schema,
        distances_to: Sequence[int],
        feature_means: Sequence[int],
        target_means: Sequence[int],
        target_stds: Sequence[int],
        decay_km: Sequence[float],
        similarity_km: float,
    ) -> None:
        coordinates = schema.coordinates()
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.names: list[str] = []
        self.index: SpatialIndex | None = None
        if coordinates is None:
            return
        self.index = SpatialIndex(coordinates)
        self.arrays = self.index.arrays
        numbers = [
            (index, column.name)
            for index, column in enumerate(schema.features)
            if column.type not in UNORDERED_TYPES and index not in coordinates
        ]
        require_counts(
            "neighbours",
            distances_to=distances_to,
            feature_means=feature_means,
            target_means=target_means,
            target_stds=target_stds,
        )
        require_positive("neighbours", decay_km=decay_km, similarity_km=[similarity_km])
        self.columns = [index for index, _ in numbers]
        self.distances_to, self.feature_means = np.asarray(distances_to, dtype=int), list(feature_means)
        self.target_means, self.target_stds = np.asarray(target_means, dtype=int), np.asarray(target_stds, dtype=int)
        self.decay_km = np.asarray(decay_km, dtype=np.float64)
        self.similarity_km = similarity_km
        self.n_neighbours = max(*distances_to, *feature_means, *target_means, *target_stds)
        self.names = [f"km_to_neighbour_{count}" for count in distances_to]
        self.names += [f"{name}_mean_of_{count}_nearest" for count in feature_means for _, name in numbers]
        self.names += [f"{name}_minus_mean_of_{feature_means[0]}_nearest" for _, name in numbers]
        self.names += [f"target_mean_of_{count}_nearest" for count in target_means]
        self.names += [f"target_std_of_{count}_nearest" for count in target_stds]
        self.names += [f"target_mean_decay_{km:g}_km" for km in decay_km]
        self.names += ["target_mean_of_similar", "target_mean_colocated", "rows_colocated"]

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Store locations, numeric columns (missing values become the median) and targets of the training rows."""
        if self.index is not None:
            for cached in ("_numbers", "_training_rows"):
                self.__dict__.pop(cached, None)
            self.index.fit(matrix)
            columns = matrix[:, self.columns]
            medians = np.array([median(column) for column in columns.T])
            columns = np.ascontiguousarray(np.where(np.isnan(columns), medians, columns))  # otherwise each look-up copies them
            self.arrays["columns"], self.arrays["targets"] = columns, target
            self.arrays["medians"] = medians
            self.arrays["most_correlated"] = np.array(_most_correlated(columns, target))
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the columns of new rows, shape (rows, names)."""
        if self.index is None:
            return np.empty((len(matrix), 0))
        index = self.index
        return self._in_chunks(matrix, lambda part: index.nearest(matrix[part], self.n_neighbours))

    def fit_transform(self, matrix: Matrix, target: Vector, _weight: Vector | None = None) -> Matrix:
        """Fit, and return the leave-one-out columns of the training rows, shape (rows, names)."""
        return self.fit_leave_one_out(matrix, target)(slice(None))

    def fit_leave_one_out(self, matrix: Matrix, target: Vector) -> Callable[[slice], Matrix]:
        """Fit, and return what computes the leave-one-out columns of a slice of the training rows, shape (rows, names)."""
        self.fit(matrix, target)
        index = self.index
        if index is None:
            return lambda rows: np.empty((len(matrix[rows]), 0))

        def derive(rows: slice) -> Matrix:
            first = rows.start or 0
            return self._in_chunks(
                matrix[rows],
                lambda part: index.nearest_leave_one_out(self.n_neighbours, slice(first + part.start, first + part.stop)),
            )

        return derive

    def _in_chunks(self, matrix: Matrix, nearest: Callable[[slice], tuple[Matrix, Indices]]) -> Matrix:
        derived = np.empty((len(matrix), len(self.names)))
        derive = self._derive if compiled.kernels is None else self._derive_compiled
        for start in range(0, len(matrix), CHUNK):
            part = slice(start, min(start + CHUNK, len(matrix)))
            derive(matrix[part], *nearest(part), derived[part])
        return derived

    def _derive(self, matrix: Matrix, km: Matrix, near: Indices, derived: Matrix) -> None:
        own, columns = matrix[:, self.columns], self.arrays["columns"].take(near, axis=0)
        means = [np.add.reduce(columns[:, :count], axis=1) / count for count in self.feature_means]
        targets = self._target_columns(km, self.arrays["targets"].take(near), self._difference(own, columns))
        np.concatenate([km[:, self.distances_to - 1], *means, own - means[0], *targets], axis=1, out=derived)

    def _derive_compiled(self, matrix: Matrix, km: Matrix, near: Indices, derived: Matrix) -> None:
        rows, count = km.shape
        n_means = len(self.decay_km) + 1
        targets, is_colocated = np.empty((rows, count, 1)), np.empty((rows, 1, count))
        exponents = np.empty((rows, n_means, count))
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        compiled.kernels.summarise(
            *self._numbers, km, near, matrix, matrix.shape[1], *self._training_rows, derived, targets, exponents, is_colocated
        )
        weights = np.exp(exponents, out=exponents)  # numpy's exponential and matrix products have bits of their own
        weights += MIN_WEIGHT
        compiled.kernels.finish(weights, weights @ targets, is_colocated @ targets, derived, count, n_means, derived.shape[1])

    @cached_property
    def _training_rows(self) -> tuple[Matrix, Vector]:
        columns, targets = (np.ascontiguousarray(self.arrays[name], dtype=np.float64) for name in ("columns", "targets"))
        return columns, targets

    @cached_property
    def _numbers(self) -> tuple[bytes, bytes]:
        """The parameters as `read_block` of spatial_kernels.c reads them: whole numbers, and the others."""
        index, spread = self.arrays["most_correlated"].tolist()
        lists = (self.columns, self.distances_to, self.feature_means, self.target_means, self.target_stds)
        sizes = [len(self.columns), int(index), *(len(numbers) for numbers in lists[1:]), len(self.decay_km)]
        whole = [self.n_neighbours, *sizes, *(number for numbers in lists for number in numbers)]
        median_of_most_correlated = self.arrays["medians"][int(index)] if self.columns else 0.0
        real = [median_of_most_correlated, spread, self.similarity_km, COLOCATED_KM, *self.decay_km]
        return np.array(whole, dtype=np.int64).tobytes(), np.array(real, dtype=np.float64).tobytes()

    def _difference(self, query: Matrix, columns: Matrix) -> Matrix:
        """Return the scaled difference of each neighbour in the most correlated column, shape (rows, neighbours)."""
        if not self.columns:
            return np.zeros(columns.shape[:2])
        index, scale = int(self.arrays["most_correlated"][0]), self.arrays["most_correlated"][1]
        values = query[:, [index]]
        values = np.where(np.isnan(values), self.arrays["medians"][index], values)
        return np.abs(columns[:, :, index] - values) / scale

    def _target_columns(self, km: Matrix, targets: Matrix, difference: Matrix) -> list[Matrix]:
        sums, squares = targets.cumsum(axis=1), (targets * targets).cumsum(axis=1)
        means, means_for_stds = (
            sums[:, self.target_means - 1] / self.target_means,
            sums[:, self.target_stds - 1] / self.target_stds,
        )
        variances = squares[:, self.target_stds - 1] / self.target_stds - means_for_stds * means_for_stds
        decays = np.concatenate([km[:, None] / self.decay_km[:, None], (km / self.similarity_km + difference)[:, None]], axis=1)
        weights = np.exp(-decays) + MIN_WEIGHT
        weighted = (weights @ targets[:, :, None])[:, :, 0] / np.add.reduce(weights, axis=2)
        is_colocated = (km < COLOCATED_KM).astype(np.float64)
        n_colocated = np.add.reduce(is_colocated, axis=1, keepdims=True)
        colocated_mean = (is_colocated[:, None] @ targets[:, :, None])[:, :, 0] / np.where(n_colocated > 0, n_colocated, np.nan)
        return [means, np.sqrt(np.maximum(variances, 0.0)), weighted, colocated_mean, n_colocated]


def _most_correlated(columns: Matrix, target: Vector) -> tuple[int, float]:
    """Return the index of the column most correlated with the target, and a third of its standard deviation (or 1)."""
    if not columns.shape[1]:
        return 0, 1.0
    best = int(np.argmax(rank_correlations(columns, target)))
    return best, float(columns[:, best].std()) / 3 or 1.0
