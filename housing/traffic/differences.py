"""Differences between two predictions of the same rows: exact sums, bins of each column, and a random sample of rows."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle.bundle import Bundle
from housing.schema.binning import MISSING
from housing.schema.column import Column, Matrix, Vector
from housing.schema.histogram_bins import bin_names

SAMPLE_ROWS = 10_000
N_SUMS = 4  # rows, differences, absolute differences, squared differences


@dataclass(frozen=True)
class Summary:
    """Differences of some rows: candidate minus logged prediction, in the target's unit."""

    rows: int
    mean: float
    mean_absolute: float
    rms: float

    @classmethod
    def from_sums(cls, sums: Vector) -> "Summary":
        """Return the summary of sums, shape (N_SUMS,)."""
        rows = int(sums[0])
        if not rows:
            return cls(0, math.nan, math.nan, math.nan)
        return cls(rows, float(sums[1]) / rows, float(sums[2]) / rows, math.sqrt(sums[3] / rows))


@dataclass(frozen=True)
class ColumnDifferences:
    """The differences by bin of a column.

    Attributes
    ----------
    bins
        The bins that have rows, by name.
    explained
        The share of the variance of the differences that lies between the bins: 1 if the bin of a row says how the predictions
        differ, 0 if it says nothing.
    """

    name: str
    bins: dict[str, Summary]
    explained: float


class Sample:
    """A uniform random sample of at most SAMPLE_ROWS rows of a stream: those with the lowest random keys."""

    def __init__(self, n_columns: int) -> None:
        self._random = np.random.default_rng(0)
        self._keys, self._rows = np.empty(0), np.empty((0, n_columns))

    def add(self, rows: Matrix) -> None:
        """Offer the next rows of the stream."""
        keys = self._random.random(len(rows))
        if len(self._keys) == SAMPLE_ROWS:
            is_low = keys < self._keys.max()
            keys, rows = keys[is_low], rows[is_low]
        self._keys, self._rows = np.concatenate([self._keys, keys]), np.concatenate([self._rows, rows])
        if len(self._keys) > SAMPLE_ROWS:
            kept = np.argpartition(self._keys, SAMPLE_ROWS)[:SAMPLE_ROWS]
            self._keys, self._rows = self._keys[kept], self._rows[kept]

    @property
    def rows(self) -> Matrix:
        """The sampled rows, shape (rows, columns)."""
        return self._rows


class Differences:
    """Adds up the differences of a stream of rows."""

    def __init__(self, bundle: Bundle) -> None:
        self._features, self._edges = bundle.schema.features, _edges(bundle)
        self._coordinates = bundle.schema.coordinates()
        self._by_column = [np.zeros((len(edges) + 2, N_SUMS)) for edges in self._edges]
        self._by_version: dict[str, Vector] = defaultdict(lambda: np.zeros(N_SUMS))
        self._sample = Sample(2 if self._coordinates is None else 4)
        self.largest = 0.0

    def add(self, version: str, matrix: Matrix, candidate: Vector, logged: Vector) -> None:
        """Add rows that a version answered with the `logged` predictions."""
        if len(matrix) == 0:
            return
        difference = candidate - logged
        terms = np.stack([np.ones(len(difference)), difference, np.abs(difference), np.square(difference)])
        self._by_version[version] += terms.sum(axis=1)
        self.largest = max(self.largest, float(terms[2].max()))
        for index, (edges, sums) in enumerate(zip(self._edges, self._by_column, strict=True)):
            values = matrix[:, index]
            bins = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
            sums += np.stack([np.bincount(bins, term, len(sums)) for term in terms], axis=1)
        places = np.empty((len(matrix), 0)) if self._coordinates is None else matrix[:, self._coordinates]
        self._sample.add(np.column_stack([logged, candidate, places]))

    @property
    def overall(self) -> Summary:
        """The differences of all rows."""
        return Summary.from_sums(sum(self._by_version.values(), np.zeros(N_SUMS)))

    def by_version(self) -> dict[str, Summary]:
        """Return the differences by the version that answered."""
        return {version: Summary.from_sums(sums) for version, sums in sorted(self._by_version.items())}

    def by_column(self) -> list[ColumnDifferences]:
        """Return the differences by column, the column that explains most of them first."""
        columns = [
            ColumnDifferences(column.name, _named(column, edges, sums), _explained(sums))
            for column, edges, sums in zip(self._features, self._edges, self._by_column, strict=True)
        ]
        return sorted(columns, key=lambda column: -column.explained)

    @property
    def sample(self) -> tuple[Vector, Vector, Matrix | None]:
        """Logged and candidate predictions of a random sample of rows, and their coordinates if the table has such."""
        rows = self._sample.rows
        return rows[:, 0], rows[:, 1], None if self._coordinates is None else rows[:, 2:]

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """Return quantiles of the absolute differences of the sample."""
        logged, candidate, _ = self.sample
        return np.quantile(np.abs(candidate - logged), levels).tolist() if len(logged) else [math.nan] * len(levels)


def _edges(bundle: Bundle) -> list[NDArray[np.float64]]:
    reference: dict[str, Any] = bundle.reference["columns"]
    return [np.array(reference[column.name]["edges"], dtype=np.float64) for column in bundle.schema.features]


def _named(column: Column, edges: Vector, sums: Matrix) -> dict[str, Summary]:
    names = [*_bin_names(column, edges), MISSING]
    return {name: Summary.from_sums(row) for name, row in zip(names, sums, strict=True) if row[0]}


def _bin_names(column: Column, edges: Vector) -> list[str]:
    if not column.is_continuous:
        return list(dict.fromkeys(bin_names(column))) or [MISSING]
    if len(edges) == 0:
        return ["all"]
    texts = [str(column.decode(edge)) if column.type == "date" else f"{edge:.4g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [f"up to {texts[0]}", *between, f"above {texts[-1]}"]


def _explained(sums: Matrix) -> float:
    rows, total, squares = sums[:, 0], sums[:, 1], sums[:, 3]
    n_rows = rows.sum()
    if not n_rows:
        return 0.0
    mean = total.sum() / n_rows
    variance = squares.sum() / n_rows - mean * mean
    filled = rows > 0
    between = float((rows[filled] * np.square(total[filled] / rows[filled] - mean)).sum() / n_rows)
    return min(between / variance, 1.0) if variance > 1e-12 * max(mean * mean, squares.sum() / n_rows) else 0.0
