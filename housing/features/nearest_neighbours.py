"""What the nearest training rows are like: how far they are, their columns, their targets."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.features.encoding import median
from housing.features.rank_correlation import rank_correlations
from housing.features.spatial_index import Indices, SpatialIndex, require_counts, require_positive
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

CHUNK = 5000  # rows at a time: each takes some kB while it is worked on


COLOCATED_KM = 1e-6  # km within which rows are at one place


MIN_WEIGHT = 1e-9  # weight that a neighbour has at any distance, so that weights never vanish


class NearestNeighbours:
    """Columns from the training rows nearest in place; a training row is no neighbour of its own.

    Targets are averaged over the nearest rows, with weights that fall with the distance, over rows at the very same
    place, and over rows that are alike in the column that goes best with the target. No column where the table has no
    coordinates.
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
            (place, c.name) for place, c in enumerate(schema.features) if c.type != "category" and place not in coordinates
        ]
        require_counts(
            "neighbours",
            distances_to=distances_to,
            feature_means=feature_means,
            target_means=target_means,
            target_stds=target_stds,
        )
        require_positive("neighbours", decay_km=decay_km, similarity_km=[similarity_km])
        self.columns = [place for place, _ in numbers]
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
        """Keep the training rows: places, columns (a missing number is its median), targets."""
        if self.index is not None:
            self.index.fit(matrix)
            columns = matrix[:, self.columns]
            medians = np.array([median(column) for column in columns.T])
            columns = np.ascontiguousarray(np.where(np.isnan(columns), medians, columns))  # else each look-up copies them
            self.arrays["columns"], self.arrays["targets"] = columns, target
            self.arrays["medians"] = medians
            leading, spread = _most_correlated(columns, target)
            self.arrays["most_correlated"] = np.array([leading, spread])
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the columns, shape (rows, names)."""
        if self.index is None:
            return np.empty((len(matrix), 0))
        return self._in_chunks(matrix, *self.index.nearest(matrix, self.n_neighbours))

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give the columns of the training rows themselves, each without itself."""
        self.fit(matrix, target)
        if self.index is None:
            return np.empty((len(matrix), 0))
        return self._in_chunks(matrix, *self.index.nearest_leave_one_out(self.n_neighbours))

    def _in_chunks(self, matrix: Matrix, km: Matrix, near: Indices) -> Matrix:
        if len(matrix) <= CHUNK:
            return self._derive(matrix, km, near)
        chunks = [slice(start, start + CHUNK) for start in range(0, len(matrix), CHUNK)]
        return np.concatenate([self._derive(matrix[rows], km[rows], near[rows]) for rows in chunks])

    def _derive(self, matrix: Matrix, km: Matrix, near: Indices) -> Matrix:
        own, columns = matrix[:, self.columns], self.arrays["columns"].take(near, axis=0)
        means = [np.add.reduce(columns[:, :count], axis=1) / count for count in self.feature_means]
        targets = self._target_columns(km, self.arrays["targets"].take(near), self._difference(own, columns))
        return np.concatenate([km[:, self.distances_to - 1], *means, own - means[0], *targets], axis=1)

    def _difference(self, query: Matrix, columns: Matrix) -> Matrix:
        """Give how far each neighbour is from a row in the leading column."""
        if not self.columns:
            return np.zeros(columns.shape[:2])
        leading, scale = int(self.arrays["most_correlated"][0]), self.arrays["most_correlated"][1]
        mine = query[:, [leading]]
        mine = np.where(np.isnan(mine), self.arrays["medians"][leading], mine)
        return np.abs(columns[:, :, leading] - mine) / scale

    def _target_columns(self, km: Matrix, targets: Matrix, difference: Matrix) -> list[Matrix]:
        sums, squares = targets.cumsum(axis=1), (targets * targets).cumsum(axis=1)
        means, means_of_spreads = (
            sums[:, self.target_means - 1] / self.target_means,
            sums[:, self.target_stds - 1] / self.target_stds,
        )
        spreads = squares[:, self.target_stds - 1] / self.target_stds - means_of_spreads * means_of_spreads
        decays = np.concatenate([km[:, None] / self.decay_km[:, None], (km / self.similarity_km + difference)[:, None]], axis=1)
        weights = np.exp(-decays) + MIN_WEIGHT
        weighted = (weights @ targets[:, :, None])[:, :, 0] / np.add.reduce(weights, axis=2)
        here = (km < COLOCATED_KM).astype(np.float64)
        rows_here = np.add.reduce(here, axis=1, keepdims=True)
        target_here = (here[:, None] @ targets[:, :, None])[:, :, 0] / np.where(rows_here > 0, rows_here, np.nan)
        return [means, np.sqrt(np.maximum(spreads, 0.0)), weighted, target_here, rows_here]


def _most_correlated(columns: Matrix, target: Vector) -> tuple[int, float]:
    """Return the index of the column most correlated with the target, and a third of its standard deviation (or 1)."""
    if not columns.shape[1]:
        return 0, 1.0
    best = int(np.argmax(rank_correlations(columns, target)))
    return best, float(columns[:, best].std()) / 3 or 1.0
