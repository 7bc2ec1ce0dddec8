"""The encoding: the last step before an estimator, which gives it only what it can take."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Column, Matrix
from housing.schema.table_schema import Schema

NAN_HANDLING = ("impute", "native")


class Encoder:
    """One-hot for categories (missing is a level of its own); missing numbers imputed and flagged, or kept as NaN.

    `nan_handling="impute"` puts the training median for a missing number and adds a flag for each nullable column: linear
    models and scikit-learn's trees need it, since their ONNX graphs are silently wrong for NaN. `nan_handling="native"`
    leaves NaN to an estimator that knows what to do with it.
    """

    def __init__(self, schema: Schema, visible: Sequence[int], derived: list[str], nan_handling: str) -> None:
        if nan_handling not in NAN_HANDLING:
            raise ConfigError(f"model.nan_handling is {nan_handling!r}; allowed: {', '.join(NAN_HANDLING)}")
        places = [(place, schema.features[place]) for place in visible]
        self.impute = nan_handling == "impute"
        self.numbers = [place for place, column in places if column.type != "category"]
        self.missing_flags = [place for place, column in places if self.impute and column.nullable and column.type != "category"]
        self.levels = [(place, level) for place, column in places for level in _levels(column)]
        self.names = [schema.features[place].name for place in self.numbers] + derived
        self.names += [f"{schema.features[place].name}_is_missing" for place in self.missing_flags]
        self.names += [
            f"{schema.features[place].name}={_level_name(schema.features[place], level)}" for place, level in self.levels
        ]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, derived: Sequence[Matrix]) -> Self:
        """Learn the medians of the numbers; 0 where a column has none."""
        if self.impute:
            columns = np.hstack([matrix[:, self.numbers], *derived])
            self.arrays["medians"] = np.array([median(column) for column in columns.T])
        return self

    def transform(self, matrix: Matrix, derived: Sequence[Matrix]) -> Matrix:
        """Give numbers, derived columns, missing flags, then levels."""
        parts = [matrix[:, self.numbers], *derived]
        if self.impute:
            numbers = np.concatenate(parts, axis=1)
            parts = [np.where(np.isnan(numbers), self.arrays["medians"], numbers)]
        if self.missing_flags:
            parts.append(np.isnan(matrix[:, self.missing_flags]).astype(np.float64))
        parts += [self._is_level(matrix[:, [place]], level) for place, level in self.levels]
        return np.concatenate(parts, axis=1)

    @staticmethod
    def _is_level(column: Matrix, level: float) -> Matrix:
        return (np.isnan(column) if np.isnan(level) else column == level).astype(np.float64)


def _levels(column: Column) -> list[float]:
    if column.type != "category":
        return []
    return [float(level) for level in range(len(column.categories))] + ([np.nan] if column.nullable else [])


def _level_name(column: Column, level: float) -> str:
    return "missing" if np.isnan(level) else column.categories[int(level)]


def median(column: NDArray[np.float64]) -> float:
    """Give the median of the numbers that are there; 0 where there is none."""
    present = column[~np.isnan(column)]
    return float(np.median(present)) if present.size else 0.0
