"""What the nearest training rows are like: how far they are, their columns, their targets."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.features.encode import median
from housing.features.places import Indices, Places, require_above_0, require_counts
from housing.schema import Matrix, Schema, Vector

CHUNK = 5000  # rows at a time: each takes some kB while it is worked on
FAR_TOO = 1e-9  # weight that a neighbour has at any distance, so that weights never vanish


class Neighbours:
    """Columns from the training rows nearest in place; a training row is no neighbour of its own.

    Targets are averaged over the nearest rows, with weights that fall with the distance, over rows at the very same
    place, and over rows that are alike in the column that goes best with the target. No column where the table has no
    coordinates.
    """

    is_local = True

    def __init__(
        self,
        schema: Schema,
        km_to: Sequence[int],
        columns_of: Sequence[int],
        targets_of: Sequence[int],
        spreads_of: Sequence[int],
        decay_km: Sequence[float],
    ) -> None:
        coordinates = schema.coordinates()
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.names: list[str] = []
        self.places: Places | None = None
        if coordinates is None:
            return
        self.places = Places(coordinates)
        self.arrays = self.places.arrays
        numbers = [
            (place, c.name) for place, c in enumerate(schema.features) if c.type != "category" and place not in coordinates
        ]
        require_counts("neighbours", km_to=km_to, columns_of=columns_of, targets_of=targets_of, spreads_of=spreads_of)
        require_above_0("neighbours", decay_km=decay_km)
        self.columns = [place for place, _ in numbers]
        self.km_to, self.columns_of = np.asarray(km_to, dtype=int), list(columns_of)
        self.targets_of, self.spreads_of = np.asarray(targets_of, dtype=int), np.asarray(spreads_of, dtype=int)
        self.decay_km = np.asarray(decay_km, dtype=np.float64)
        self.count = max(*km_to, *columns_of, *targets_of, *spreads_of)
        self.names = [f"km_to_neighbour_{count}" for count in km_to]
        self.names += [f"{name}_of_{count}_near" for count in columns_of for _, name in numbers]
        self.names += [f"{name}_against_{columns_of[0]}_near" for _, name in numbers]
        self.names += [f"target_of_{count}_near" for count in targets_of]
        self.names += [f"target_spread_of_{count}_near" for count in spreads_of]
        self.names += [f"target_within_{km:g}_km" for km in decay_km]
        self.names += ["target_here", "rows_here", "target_of_alike"]

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Keep the training rows: places, columns (a missing number is its median), targets."""
        if self.places is not None:
            self.places.fit(matrix)
            columns = matrix[:, self.columns]
            medians = np.array([median(column) for column in columns.T])
            columns = np.where(np.isnan(columns), medians, columns)
            self.arrays["columns"], self.arrays["targets"] = columns, target
            self.arrays["medians"] = medians
            leading, spread = _leading(columns, target)
            self.arrays["leading"] = np.array([leading, spread])
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the columns, shape (rows, names)."""
        if self.places is None:
            return np.empty((len(matrix), 0))
        return self._in_chunks(matrix, *self.places.nearest(matrix, self.count))

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give the columns of the training rows themselves, each without itself."""
        self.fit(matrix, target)
        if self.places is None:
            return np.empty((len(matrix), 0))
        return self._in_chunks(matrix, *self.places.nearest_others(self.count))

    def _in_chunks(self, matrix: Matrix, km: Matrix, near: Indices) -> Matrix:
        chunks = [slice(start, start + CHUNK) for start in range(0, max(len(matrix), 1), CHUNK)]
        return np.concatenate([self._derive(matrix[rows], km[rows], near[rows]) for rows in chunks])

    def _derive(self, matrix: Matrix, km: Matrix, near: Indices) -> Matrix:
        own = matrix[:, self.columns]
        means = [self.arrays["columns"][near[:, :count]].mean(axis=1) for count in self.columns_of]
        return np.concatenate(
            [km[:, self.km_to - 1], *means, own - means[0], *self._targets(own, km, self.arrays["targets"][near], near)], axis=1
        )

    def _targets(self, own: Matrix, km: Matrix, targets: Matrix, near: Indices) -> list[Matrix]:
        sums, squares = targets.cumsum(axis=1), np.square(targets).cumsum(axis=1)
        spread = squares[:, self.spreads_of - 1] / self.spreads_of - np.square(sums[:, self.spreads_of - 1] / self.spreads_of)
        weights = np.exp(-km[:, None] / self.decay_km[:, None]) + FAR_TOO
        here = km < 1e-6
        rows_here = here.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            target_here = (here * targets).sum(axis=1, keepdims=True) / rows_here  # NaN where nobody else is
        return [
            sums[:, self.targets_of - 1] / self.targets_of,
            np.sqrt(np.maximum(spread, 0.0)),
            (weights * targets[:, None]).sum(axis=2) / weights.sum(axis=2),
            target_here,
            rows_here,
            self._of_alike(own, km, targets, near),
        ]

    def _of_alike(self, own: Matrix, km: Matrix, targets: Matrix, near: Indices) -> Matrix:
        """Average the targets of neighbours with weights that fall with the distance, and with the leading column's."""
        leading, spread = int(self.arrays["leading"][0]), self.arrays["leading"][1]
        mine = np.nan_to_num(own[:, leading], nan=self.arrays["medians"][leading])
        apart = np.abs(self.arrays["columns"][near, leading] - mine[:, None]) / spread
        weights = np.exp(-km / self.decay_km.max() * 2 - apart) + FAR_TOO
        return (weights * targets).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)


def _leading(columns: Matrix, target: Vector) -> tuple[int, float]:
    """Give the place of the column whose ranks go best with the target's, and a third of its standard deviation (or 1)."""
    if not columns.shape[1]:
        return 0, 1.0
    centred = [ranks - ranks.mean() for ranks in (np.argsort(np.argsort(column)) for column in (*columns.T, target))]
    with np.errstate(invalid="ignore"):
        strength = [abs(float(ranks @ centred[-1])) / max(float(ranks @ ranks), 1.0) for ranks in centred[:-1]]
    best = int(np.argmax(strength))
    return best, float(columns[:, best].std()) / 3 or 1.0
