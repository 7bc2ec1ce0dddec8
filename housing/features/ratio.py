"""Products and ratios of columns, such as bedrooms per room."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.schema import Matrix, Schema, Vector


class Ratio:
    """Each new column is a product of columns raised to powers; NaN where it has no finite value."""

    def __init__(self, schema: Schema, columns: Mapping[str, Mapping[str, float]]) -> None:
        self.names = list(columns)
        self.factors = [[(schema.index(name), power) for name, power in powers.items()] for powers in columns.values()]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, _matrix: Matrix, _target: Vector) -> Self:
        """Learn nothing: the powers are given."""
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give one column for each declared product."""
        made = np.ones((len(matrix), len(self.names)))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for place, factors in enumerate(self.factors):
                for column, power in factors:
                    made[:, place] *= matrix[:, column] ** power
        made[~np.isfinite(made)] = np.nan
        return made
