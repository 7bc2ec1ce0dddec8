"""Encoding: the last step before an estimator, from columns with categories and gaps to plain numbers."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Column, Matrix
from housing.schema.table_schema import Schema

NAN_HANDLING = ("impute", "native")


class Encoder:
    """One-hot encoding of categories and imputation of missing numbers.

    A missing category is a level of its own.

    Parameters
    ----------
    schema
        The columns of the table.
    visible
        Indices of the feature columns that the estimator receives.
    derived
        Names of the columns that blocks add.
    nan_handling
        "impute" replaces a missing number by the training median and adds a flag per nullable column. Linear models and
        scikit-learn's trees need it: their ONNX graphs are silently wrong for NaN. "native" passes NaN to the estimator.

    Attributes
    ----------
    names
        Names of the encoded columns.
    arrays
        Fitted state: `medians`, shape (numbers + derived,), if `nan_handling` is "impute".
    """

    def __init__(self, schema: Schema, visible: Sequence[int], derived: list[str], nan_handling: str) -> None:
        if nan_handling not in NAN_HANDLING:
            raise ConfigError(f"model.nan_handling must be {' or '.join(NAN_HANDLING)} (got {nan_handling!r}).")
        columns = [(index, schema.features[index]) for index in visible]
        self.impute = nan_handling == "impute"
        self.numbers = [index for index, column in columns if column.type != "category"]
        self.missing_flags = [index for index in self.numbers if self.impute and schema.features[index].nullable]
        self.levels = [(index, level) for index, column in columns for level in _levels(column)]
        self.names = [schema.features[index].name for index in self.numbers] + derived
        self.names += [f"{schema.features[index].name}_is_missing" for index in self.missing_flags]
        self.names += [f"{column.name}={_level_name(column, level)}" for _, column in columns for level in _levels(column)]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, matrix: Matrix, derived: Sequence[Matrix]) -> Self:
        """Learn the medians of numbers and derived columns; 0 for a column without any value."""
        if self.impute:
            columns = np.hstack([matrix[:, self.numbers], *derived])
            self.arrays["medians"] = np.array([median(column) for column in columns.T])
        return self

    def transform(self, matrix: Matrix, derived: Sequence[Matrix]) -> Matrix:
        """Return the encoded columns, shape (rows, names): numbers, derived columns, missing flags, then levels."""
        parts = [matrix[:, self.numbers], *derived]
        if self.impute:
            numbers = np.concatenate(parts, axis=1)
            parts = [np.where(np.isnan(numbers), self.arrays["medians"], numbers)]
        if self.missing_flags:
            parts.append(np.isnan(matrix[:, self.missing_flags]).astype(np.float64))
        parts += [self._is_level(matrix[:, [index]], level) for index, level in self.levels]
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
    """Return the median of the values that are not NaN, or 0 if there are none."""
    present = column[~np.isnan(column)]
    return float(np.median(present)) if present.size else 0.0
