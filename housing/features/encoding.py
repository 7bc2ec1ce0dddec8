"""Encoding: the last step before an estimator, from columns with categories and gaps to plain numbers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.date_parts import date_part_names, date_parts
from housing.features.level_encodings import AUTO, ONE_HOT, CategoryEncoding, positions
from housing.schema.column import Column, Matrix, Vector
from housing.schema.table_schema import Schema

NAN_HANDLING = ("impute", "native")
CHUNK = 8192  # rows that are encoded at once, so that float64 columns of all rows are never in memory beside those of float32


class Encoder:
    """Encoding of categories and imputation of missing numbers.

    A category with few levels is one-hot encoded, and a missing value is a level of its own. A category with many levels becomes
    a few numbers of the level, such as its smoothed mean target, out of fold for training rows. A date becomes its parts, a text
    its components.

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
    encoding
        What counts as many levels, and what becomes of them.

    Attributes
    ----------
    names
        Names of the encoded columns: numbers, components of texts, parts of dates, derived columns, missing flags, levels,
        numbers of levels.
    arrays
        Fitted state: `medians`, shape (numbers + components + date parts + derived,), if `nan_handling` is "impute". For each
        category with many levels `level_values_<index>`, shape (levels + 2, numbers of a level).
    """

    def __init__(
        self, schema: Schema, visible: Sequence[int], derived: list[str], nan_handling: str, encoding: CategoryEncoding
    ) -> None:
        if nan_handling not in NAN_HANDLING:
            raise ConfigError(f"model.nan_handling must be {' or '.join(NAN_HANDLING)} (got {nan_handling!r}).")
        columns = [(index, schema.features[index]) for index in visible]
        self.impute = nan_handling == "impute"
        texts = [(index, column) for index, column in columns if column.is_free_text]
        self.numbers = [index for index, column in columns if column.type not in ("category", "date", "text")]
        self.dates = [(index, column.format) for index, column in columns if column.type == "date"]
        numeric = [*self.numbers, *(index for index, _ in texts), *(index for index, _ in self.dates)]
        self.missing_flags = [index for index in numeric if self.impute and schema.features[index].nullable]
        self.encoding, self.many_levels = encoding, _find_many_levels(columns, encoding)
        self._n_levels = np.array([len(schema.features[index].categories) for index in self.many_levels])
        levels = [(index, level) for index, column in columns if index not in self.many_levels for level in _levels(column)]
        self._level_columns, self._level_codes = [index for index, _ in levels], np.array([level for _, level in levels])
        self._is_missing_level = np.isnan(self._level_codes)
        self.names = [schema.features[index].name for index in self.numbers]
        self.names += [f"{column.name}_component_{number}" for _, column in texts for number in range(column.components)]
        self.numbers += [place for index, _ in texts for place in schema.texts.components[index]]
        self.names += [
            name for _, column in columns if column.type == "date" for name in date_part_names(column.name, column.format)
        ]
        self.names += derived
        self.names += [f"{schema.features[index].name}_is_missing" for index in self.missing_flags]
        self.names += [_level_name(schema.features[index], level) for index, level in levels]
        self.names += [f"{schema.features[index].name}_{suffix}" for index in self.many_levels for suffix in encoding.suffixes]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit_transform(
        self,
        matrix: Matrix,
        target: Vector,
        derived: Callable[[slice], list[Matrix]],
        weight: Vector | None = None,
        precision: type[np.floating[Any]] = np.float64,
    ) -> NDArray[Any]:
        """Fit on training rows, and return their encoded columns in a precision, shape (rows, names).

        Learn the medians of numbers and derived columns, 0 for a column without any value, and the numbers of levels. `derived`
        returns the derived columns of a slice of the rows.
        """
        if self.impute:
            whole = derived(slice(None))
            derived = partial(_select, whole)
            columns = np.hstack([matrix[:, self.numbers], *self._date_parts(matrix), *whole]).T
            medians = map(median, columns) if weight is None else (weighted_median(column, weight) for column in columns)
            self.arrays["medians"] = np.array(list(medians))
        weight = np.ones(len(target)) if weight is None else weight
        encoded = []
        for index, n_levels in zip(self.many_levels, self._n_levels.tolist(), strict=True):
            self.arrays[f"level_values_{index}"] = self.encoding.level_values(matrix[:, index], target, weight, n_levels)
            encoded.append(self.encoding.out_of_fold_values(matrix[:, index], target, weight, n_levels))
        if precision is np.float64:  # in one piece: the order in memory decides how the sums of linear models are rounded
            return np.concatenate([*self._parts(matrix, derived(slice(None))), *encoded], axis=1)
        columns = np.empty((len(matrix), len(self.names)), dtype=precision)
        for start in range(0, len(matrix), CHUNK):
            rows = slice(start, start + CHUNK)
            parts = [*self._parts(matrix[rows], derived(rows)), *(values[rows] for values in encoded)]
            columns[rows] = in_precision(np.concatenate(parts, axis=1), precision)
        return columns

    def transform(self, matrix: Matrix, derived: Sequence[Matrix]) -> Matrix:
        """Return the encoded columns of new rows, shape (rows, names)."""
        parts = self._parts(matrix, derived)
        if self.many_levels:
            index = positions(matrix[:, self.many_levels], self._n_levels)
            values = [self.arrays[f"level_values_{column}"] for column in self.many_levels]
            parts += [of_column[index[:, position]] for position, of_column in enumerate(values)]
        return np.concatenate(parts, axis=1)

    def n_levels(self, index: int) -> int:
        """Return the number of levels of a category with many levels, by its index among the features."""
        return int(self._n_levels[self.many_levels.index(index)])

    def _date_parts(self, matrix: Matrix) -> list[Matrix]:
        return [date_parts(matrix[:, index], date_format) for index, date_format in self.dates]

    def _parts(self, matrix: Matrix, derived: Sequence[Matrix]) -> list[Matrix]:
        parts = [matrix[:, self.numbers], *self._date_parts(matrix), *derived]
        if self.impute:
            numbers = np.concatenate(parts, axis=1)
            parts = [np.where(np.isnan(numbers), self.arrays["medians"], numbers)]
        if self.missing_flags:
            parts.append(np.isnan(matrix[:, self.missing_flags]).astype(np.float64))
        if self._level_columns:
            values = matrix[:, self._level_columns]
            parts.append(((values == self._level_codes) | (np.isnan(values) & self._is_missing_level)).astype(np.float64))
        return parts


def _select(blocks: Sequence[Matrix], rows: slice) -> list[Matrix]:
    return [block[rows] for block in blocks]


def in_precision(columns: NDArray[Any], precision: type[np.floating[Any]]) -> NDArray[Any]:
    """Return columns in a precision, without a copy if they have it. Numbers above those of float32 become infinite."""
    with np.errstate(over="ignore"):
        return columns.astype(precision, copy=False)


def _find_many_levels(columns: Sequence[tuple[int, Column]], encoding: CategoryEncoding) -> list[int]:
    """Return the indices of the categories that the encoding's method applies to. Raises ConfigError if it is not chosen yet."""
    many = [index for index, column in columns if column.type == "category" and encoding.has_many(len(column.categories))]
    if many and encoding.method == AUTO:
        raise ConfigError("features.encoding.method is auto, which training replaces by the best method before it fits features.")
    return [] if encoding.method == ONE_HOT else many


def _levels(column: Column) -> list[float]:
    if column.type != "category":
        return []
    return [float(level) for level in range(len(column.categories))] + ([np.nan] if column.nullable else [])


def _level_name(column: Column, level: float) -> str:
    return f"{column.name}={'missing' if np.isnan(level) else column.categories[int(level)]}"


def median(column: NDArray[np.float64]) -> float:
    """Return the median of the values that are not NaN, or 0 if there are none."""
    present = column[~np.isnan(column)]
    return float(np.median(present)) if present.size else 0.0


def weighted_median(column: NDArray[np.float64], weight: Vector) -> float:
    """Return the `median` of a column in which each value occurs as often as its weight says."""
    present = ~np.isnan(column)
    if not present.any():
        return 0.0
    order = np.argsort(column[present], kind="stable")
    values, ends = column[present][order], np.cumsum(weight[present][order])
    middle = [values[np.searchsorted(ends, ends[-1] / 2, side)] for side in ("left", "right")]
    return float(np.mean(middle))
