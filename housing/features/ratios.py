"""Products and ratios of columns, such as bedrooms per room."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class Ratios:
    """Each new column is a product of columns raised to powers; NaN where it has no finite value."""

    is_local = False

    def __init__(self, schema: Schema, columns: Mapping[str, Mapping[str, float]]) -> None:
        self.names = list(columns)
        used = list(dict.fromkeys(name for powers in columns.values() for name in powers))
        self.input_columns = [_numeric_index(schema, name) for name in used]
        self.powers = np.array([[powers.get(name, 0.0) for name in used] for powers in columns.values()])
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, _matrix: Matrix, _target: Vector) -> Self:
        """Learn nothing: the powers are given."""
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give one column for each declared product."""
        if not self.names:
            return np.empty((len(matrix), 0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            made = np.prod(matrix[:, None, self.input_columns] ** self.powers, axis=2)
        made[~np.isfinite(made)] = np.nan
        return made


def _numeric_index(schema: Schema, name: str) -> int:
    place = schema.index(name)
    if schema.features[place].type == "category":
        raise ConfigError(f"ratio: column {name} is a category; allowed: numbers")
    return place
