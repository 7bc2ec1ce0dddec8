"""Which counters a row counts in: for each value that of its bin, and one more where all training rows were higher or lower."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix, Vector
from housing.schema.table_schema import Schema

MISSING = "missing"


UNCOUNTED = 0  # the place of a counter that the caller sets itself: what counts nowhere may count there


CounterIndices = NDArray[np.intp]


class Bin(NamedTuple):
    """A bin of a column, or of the prediction (None), and the share of the training rows in it."""

    column: str | None
    name: str
    share: float


class ReferenceColumn(NamedTuple):
    """A column, or the prediction, with what the bundle's reference says of it."""

    name: str | None
    column: Column
    reference: Mapping[str, Any]

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value of the training rows; where all were missing, every value is outside."""
        low, high = self.reference["lowest"], self.reference["highest"]
        return (np.inf, -np.inf) if low is None else (low, high)

    @property
    def levels(self) -> Sequence[str]:
        """Names of the levels, in the order of their numbers."""
        return self.column.categories or ("false", "true")

    def bins(self) -> list[Bin]:
        """Give the bins in order; the one of missing values is the last."""
        shares = self.reference["shares"]
        names = [f"{place:02d}" for place in range(len(shares))] if self.column.is_number else self.levels
        bins = [Bin(self.name, name, share) for name, share in zip(names, shares, strict=False)]
        return [*bins, Bin(self.name, MISSING, self.reference["missing"])] if self.column.nullable else bins


class Binning:
    """Counts rows and their predictions in counters that lie in a row: `first` others, each of `bins`, each of `ranged`."""

    def __init__(self, schema: Schema, reference: Mapping[str, Any], n_reserved: int) -> None:
        columns = [ReferenceColumn(column.name, column, reference["columns"][column.name]) for column in schema.features]
        every = [*columns, ReferenceColumn(None, schema.target, reference["prediction"])]
        self.bins = _merge_same_name(bin_ for known in every for bin_ in known.bins())
        self.numeric_columns = [column.name for column in schema.features if column.is_number]
        self._size = n_reserved + len(self.bins) + len(self.numeric_columns)
        places = {(bin_.column, bin_.name): place for place, bin_ in enumerate(self.bins, n_reserved)}
        outside = {name: place for place, name in enumerate(self.numeric_columns, n_reserved + len(self.bins))}
        is_number = np.array([column.is_number for column in schema.features])
        self._numeric_positions, self._categorical_positions = np.flatnonzero(is_number), np.flatnonzero(~is_number)
        self._numeric = _NumericCounters([known for known in every if known.column.is_number], places, outside)
        self._categorical = _CategoricalCounters([known for known in columns if not known.column.is_number], places)

    def count(self, matrix: Matrix, predictions: Vector) -> CounterIndices:
        """Give what rows and their predictions add to each counter. What stands at NOWHERE means nothing."""
        numbers = np.concatenate((matrix.take(self._numeric_positions, axis=1), predictions[:, None]), axis=1)
        places = self._numeric.counter_indices(numbers)
        if self._categorical_positions.size:
            places = np.concatenate((places, self._categorical.counter_indices(matrix.take(self._categorical_positions, axis=1))))
        return np.bincount(places, minlength=self._size)


def _merge_same_name(bins: Iterable[Bin]) -> list[Bin]:
    """Make one bin of two with the same name: a level may be called missing, too."""
    shares: dict[tuple[str | None, str], float] = defaultdict(float)
    for bin_ in bins:
        shares[bin_.column, bin_.name] += bin_.share
    return [Bin(column, name, share) for (column, name), share in shares.items()]


class _NumericCounters:
    """Where numbers count. Each column's line is cut at its inner edges and at the ends of the training rows."""

    def __init__(self, columns: Sequence[ReferenceColumn], indices: Mapping[Any, int], out_of_range: Mapping[Any, int]) -> None:
        cuts = [
            np.unique([*known.reference["edges"], np.nextafter(known.bounds[0], -np.inf), known.bounds[1]]) for known in columns
        ]
        width = max(map(len, cuts)) + 1  # infinity ends each line, so that nothing but NaN is at the left of no cut
        lines = [np.pad(cut, (0, width - len(cut)), constant_values=np.inf) for cut in cuts]
        self._cuts = np.stack(lines, axis=1)[:, None, :]  # (cuts, 1, columns): this order is the quick one
        self._last_segments = np.arange(len(columns)) * (width + 1) + width
        self._counters = np.array(
            [
                piece
                for known, line in zip(columns, lines, strict=True)
                for piece in [
                    *_segments(known, line, indices, out_of_range),
                    (indices.get((known.name, MISSING), UNCOUNTED), UNCOUNTED),
                ]
            ]
        )

    def counter_indices(self, numbers: Matrix) -> CounterIndices:
        """Give two counters for each number: of its bin, and of values outside or NOWHERE."""
        cuts_right_of_it = np.add.reduce((numbers <= self._cuts).view(np.int8), axis=0, dtype=np.int16)
        return self._counters.take(self._last_segments - cuts_right_of_it, axis=0).ravel()


def _segments(
    column: ReferenceColumn, line: Vector, indices: Mapping[Any, int], out_of_range: Mapping[Any, int]
) -> list[tuple[int, int]]:
    """Give the two counters of each piece of a line, which belongs to its right end."""
    low, high = column.bounds
    bins = np.searchsorted(column.reference["edges"], line, side="left")
    beyond = (line < low) | (line > high)
    return [
        (indices[column.name, f"{bin_:02d}"], out_of_range.get(column.name, UNCOUNTED) if is_beyond else UNCOUNTED)
        for bin_, is_beyond in zip(bins, beyond, strict=True)
    ]


class _CategoricalCounters:
    """Where categories and truth values count: each level is a bin."""

    def __init__(self, columns: Sequence[ReferenceColumn], indices: Mapping[Any, int]) -> None:
        levels = [[*known.levels, MISSING] for known in columns]
        ends = np.cumsum([len(names) for names in levels], dtype=np.intp)
        self._missing_segments = ends - 1
        self._first_segments = ends - [len(names) for names in levels]
        self._counters = np.array(
            [indices.get((known.name, name), UNCOUNTED) for known, names in zip(columns, levels, strict=True) for name in names],
            dtype=np.intp,
        )

    def counter_indices(self, levels: Matrix) -> CounterIndices:
        """Give the counter of each level."""
        pieces = np.where(np.isnan(levels), self._missing_segments, levels + self._first_segments)
        return self._counters.take(pieces.astype(np.intp)).ravel()
