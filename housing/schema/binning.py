"""Histograms of served rows: which counters a row increases, by the bins of the training data."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix, Vector
from housing.schema.histogram_bins import bin_names
from housing.schema.table_schema import Schema

MISSING = "missing"
UNCOUNTED = 0  # index of a counter that the caller sets itself, so values without a counter may be added there


CounterIndices = NDArray[np.intp]


class Bin(NamedTuple):
    """A bin of a column, or of the prediction (None), and the share of the training rows in it."""

    column: str | None
    name: str
    share: float


class ReferenceColumn(NamedTuple):
    """A column, or the prediction (None), with its reference of the bundle."""

    name: str | None
    column: Column
    reference: Mapping[str, Any]

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of the training rows; if all were missing, every value is out of range."""
        low, high = self.reference["lowest"], self.reference["highest"]
        return (np.inf, -np.inf) if low is None else (low, high)

    @property
    def levels(self) -> Sequence[str]:
        """Names of the bins of the levels, in the order of their codes."""
        return bin_names(self.column)

    def bins(self) -> list[Bin]:
        """Return the bins in order; the bin of missing values is the last."""
        shares = self.reference["shares"]
        names = [f"{index:02d}" for index in range(len(shares))] if self.column.is_continuous else dict.fromkeys(self.levels)
        bins = [Bin(self.name, name, share) for name, share in zip(names, shares, strict=False)]
        return [*bins, Bin(self.name, MISSING, self.reference["missing"])] if self.column.nullable else bins


class Binning:
    """Counts rows and predictions in a vector of counters: `n_reserved` of the caller, `bins`, then `numeric_columns`."""

    def __init__(self, schema: Schema, reference: Mapping[str, Any], n_reserved: int) -> None:
        columns = [ReferenceColumn(column.name, column, reference["columns"][column.name]) for column in schema.features]
        all_columns = [*columns, ReferenceColumn(None, schema.target, reference["prediction"])]
        self.bins = _merge_same_name(bin_ for column in all_columns for bin_ in column.bins())
        self.numeric_columns = [column.name for column in schema.features if column.is_continuous]
        self._size = n_reserved + len(self.bins) + len(self.numeric_columns)
        indices = {(bin_.column, bin_.name): index for index, bin_ in enumerate(self.bins, n_reserved)}
        out_of_range = {name: index for index, name in enumerate(self.numeric_columns, n_reserved + len(self.bins))}
        is_number = np.array([column.is_continuous for column in schema.features])
        self._numeric_positions, self._categorical_positions = np.flatnonzero(is_number), np.flatnonzero(~is_number)
        self._numeric = _NumericCounters([column for column in all_columns if column.column.is_continuous], indices, out_of_range)
        self._categorical = _CategoricalCounters([column for column in columns if not column.column.is_continuous], indices)

    def count(self, matrix: Matrix, predictions: Vector) -> CounterIndices:
        """Return the increments of all counters. The value at UNCOUNTED has no meaning."""
        numbers = np.concatenate((matrix.T.take(self._numeric_positions, axis=0), predictions[None]))
        indices = self._numeric.counter_indices(numbers)
        if self._categorical_positions.size:
            levels = matrix.take(self._categorical_positions, axis=1)
            indices = np.concatenate((indices, self._categorical.counter_indices(levels)))
        return np.bincount(indices, minlength=self._size)


def _merge_same_name(bins: Iterable[Bin]) -> list[Bin]:
    """Merge bins of the same name: a category may be called "missing", too."""
    shares: dict[tuple[str | None, str], float] = defaultdict(float)
    for bin_ in bins:
        shares[bin_.column, bin_.name] += bin_.share
    return [Bin(column, name, share) for (column, name), share in shares.items()]


class _NumericCounters:
    """Counters of numbers. The number line of each column is cut at the inner edges of its bins and at its training range."""

    def __init__(self, columns: Sequence[ReferenceColumn], indices: Mapping[Any, int], out_of_range: Mapping[Any, int]) -> None:
        cuts = [
            np.unique([*column.reference["edges"], np.nextafter(column.bounds[0], -np.inf), column.bounds[1]])
            for column in columns
        ]
        width = max(map(len, cuts)) + 1  # infinity ends each line, so only NaN is left of no cut
        lines = [np.pad(cut, (0, width - len(cut)), constant_values=np.inf) for cut in cuts]
        self._cuts = np.stack(lines, axis=1)[:, :, None]  # (cuts, columns, 1): the fastest order, since rows are contiguous
        self._last_segments = (np.arange(len(columns)) * (width + 1) + width)[:, None]
        self._counters = np.array(
            [
                segment
                for column, line in zip(columns, lines, strict=True)
                for segment in [
                    *_segments(column, line, indices, out_of_range),
                    (indices.get((column.name, MISSING), UNCOUNTED), UNCOUNTED),
                ]
            ]
        )

    def counter_indices(self, numbers: Matrix) -> CounterIndices:
        """Return two counters for each number, that of its bin, and that of values out of range or UNCOUNTED."""
        cuts_to_the_right = np.add.reduce((numbers <= self._cuts).view(np.int8), axis=0, dtype=np.int16)
        return self._counters.take((self._last_segments - cuts_to_the_right).ravel(), axis=0).ravel()


def _segments(
    column: ReferenceColumn, line: Vector, indices: Mapping[Any, int], out_of_range: Mapping[Any, int]
) -> list[tuple[int, int]]:
    """Return the two counters of each segment of a line; a segment includes its right end."""
    low, high = column.bounds
    bins = np.searchsorted(column.reference["edges"], line, side="left")
    beyond = (line < low) | (line > high)
    return [
        (indices[column.name, f"{bin_:02d}"], out_of_range.get(column.name, UNCOUNTED) if is_beyond else UNCOUNTED)
        for bin_, is_beyond in zip(bins, beyond, strict=True)
    ]


class _CategoricalCounters:
    """Counters of categories and booleans: each level is a bin."""

    def __init__(self, columns: Sequence[ReferenceColumn], indices: Mapping[Any, int]) -> None:
        levels = [[*column.levels, MISSING] for column in columns]
        ends = np.cumsum([len(names) for names in levels], dtype=np.intp)
        self._missing_segments = ends - 1
        self._first_segments = ends - [len(names) for names in levels]
        self._counters = np.array(
            [
                indices.get((column.name, name), UNCOUNTED)
                for column, names in zip(columns, levels, strict=True)
                for name in names
            ],
            dtype=np.intp,
        )

    def counter_indices(self, levels: Matrix) -> CounterIndices:
        """Return the counter of each level."""
        segments = np.where(np.isnan(levels), self._missing_segments, levels + self._first_segments)
        return self._counters.take(segments.astype(np.intp)).ravel()
