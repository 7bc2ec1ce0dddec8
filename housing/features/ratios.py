"""Ratio features: products and quotients of columns, such as bedrooms per room."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector
from housing.schema.declaration import UNORDERED_TYPES
from housing.schema.table_schema import Schema


class Ratios:
    """Products of columns raised to powers. A result that is not finite is NaN.

    Parameters
    ----------
    schema
        The columns of the table.
    columns
        By name of the new column: exponents by name of the input column.
    """

    is_local = False

    def __init__(self, schema: Schema, columns: Mapping[str, Mapping[str, float]]) -> None:
        self.names = list(columns)
        used = list(dict.fromkeys(name for powers in columns.values() for name in powers))
        self.input_columns = [_numeric_index(schema, name) for name in used]
        self.powers = np.array([[powers.get(name, 0.0) for name in used] for powers in columns.values()])
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, _matrix: Matrix, _target: Vector) -> Self:
        """Do nothing: the powers are fixed."""
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Return one column per product, shape (rows, names)."""
        if not self.names:
            return np.empty((len(matrix), 0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            products = np.prod(matrix[:, None, self.input_columns] ** self.powers, axis=2)
        products[~np.isfinite(products)] = np.nan
        return products


def _numeric_index(schema: Schema, name: str) -> int:
    index = schema.index(name)
    if schema.features[index].type in UNORDERED_TYPES:
        raise ConfigError(f"Block ratio: column {name} must be a number (it is a {schema.features[index].type}).")
    return index
