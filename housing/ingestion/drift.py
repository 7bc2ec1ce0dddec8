"""Data drift: the population stability index (PSI) of new rows against the rows of a table, by column."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from omegaconf import DictConfig

from housing.data.table import Table
from housing.schema.column import Column, Vector
from housing.schema.histogram import bin_counts, column_histogram


@dataclass(frozen=True)
class DriftSettings:
    """Thresholds of the PSI.

    Attributes
    ----------
    significance
        Probability that a column without drift exceeds its chance threshold.
    """

    moderate: float = 0.1
    large: float = 0.25
    significance: float = 0.01

    @classmethod
    def from_config(cls, drift: DictConfig) -> Self:
        """Read the thresholds from `conf/ingest.yaml`."""
        return cls(drift.moderate, drift.large, drift.significance)


@dataclass(frozen=True)
class Drift:
    """Drift of one column.

    Attributes
    ----------
    psi_threshold
        The PSI that sampling noise alone rarely exceeds with this number of rows.
    reference, current
        The typical value of the present and of the new rows, as text.
    out_of_range
        Number of new rows below the minimum or above the maximum of the present rows.
    """

    column: str
    psi: float
    psi_threshold: float
    reference: str
    current: str
    out_of_range: int

    def level(self, settings: DriftSettings) -> str:
        """Return "none", "moderate" or "large". A PSI that chance explains is no drift."""
        if self.psi <= max(self.psi_threshold, settings.moderate):
            return "none"
        return "large" if self.psi > settings.large else "moderate"


@dataclass(frozen=True)
class ColumnReference:
    """The distribution of a column in the present rows, which can be updated without them.

    Attributes
    ----------
    edges
        Inner edges of the bins that monitoring uses: deciles or categories.
    counts
        Rows by bin. Missing values of a nullable column are a bin of their own.
    lowest, highest
        None if all values are missing.
    typical
        The typical value, as text.
    """

    edges: list[float]
    counts: list[float]
    n_rows: int
    lowest: float | None
    highest: float | None
    typical: str

    @classmethod
    def of(cls, column: Column, values: Vector) -> Self:
        """Return the distribution of values."""
        bins = column_histogram(column, values)
        counts = _bin_counts(column, values, np.array(bins["edges"]))
        return cls(bins["edges"], counts.tolist(), len(values), bins["lowest"], bins["highest"], _summary(column, values))

    def add(self, column: Column, values: Vector) -> Self:
        """Return the distribution with more rows. Bins and typical value stay as they are."""
        added = column_histogram(column, values)
        counts = np.array(self.counts) + _bin_counts(column, values, np.array(self.edges))
        ends = [
            [end for end in ends if end is not None]
            for ends in ((self.lowest, added["lowest"]), (self.highest, added["highest"]))
        ]
        lowest, highest = min(ends[0], default=None), max(ends[1], default=None)
        return replace(self, counts=counts.tolist(), n_rows=self.n_rows + len(values), lowest=lowest, highest=highest)


def reference_of(table: Table) -> list[ColumnReference]:
    """Return the distributions of the features and of the target."""
    return [ColumnReference.of(column, values) for column, values in _values_by_column(table)]


def extend_reference(reference: Sequence[ColumnReference], new: Table) -> list[ColumnReference]:
    """Return the distributions with the rows of a table, which is encoded as the others."""
    return [before.add(column, values) for before, (column, values) in zip(reference, _values_by_column(new), strict=True)]


def measure_drift(reference: Sequence[ColumnReference], new: Table, significance: float) -> list[Drift]:
    """Return the drift of each column, the target included. `new` is encoded as the rows of the reference."""
    columns = zip(reference, _values_by_column(new), strict=True)
    return [_column_drift(column, before, values, significance) for before, (column, values) in columns]


def _values_by_column(table: Table) -> list[tuple[Column, Vector]]:
    """Return the values that drift is measured by: of a text, the share that its components explain."""
    features = zip(table.schema.features, table.matrix.T, strict=False)  # components of texts follow the features
    return [*features, (table.schema.target, table.target)]


def _column_drift(column: Column, reference: ColumnReference, current: Vector, significance: float) -> Drift:
    from scipy.stats import chi2  # pylint: disable=import-outside-toplevel  # takes a second to import

    expected, observed = np.array(reference.counts), _bin_counts(column, current, np.array(reference.edges))
    # For samples of one population, PSI / (1/n + 1/m) has a chi-squared distribution.
    psi_threshold = float(chi2.ppf(1 - significance, max(len(expected) - 1, 1))) * (1 / reference.n_rows + 1 / len(current))
    lowest = np.inf if reference.lowest is None else reference.lowest
    highest = -np.inf if reference.highest is None else reference.highest
    out_of_range = int(((current < lowest) | (current > highest)).sum()) if column.is_continuous else 0
    typical = _summary(column, current)
    return Drift(column.name, psi(expected, observed), psi_threshold, reference.typical, typical, out_of_range)


def _bin_counts(column: Column, values: Vector, edges: Vector) -> Vector:
    """Count rows by bin. Missing values of a nullable column are a bin of their own."""
    missing = [np.isnan(values).sum()] if column.nullable else []
    return np.array([*bin_counts(values, edges), *missing], dtype=np.float64)


def psi(expected: Vector, observed: Vector) -> float:
    """Return the population stability index of two histograms. Half a row is added to each bin, so that it stays finite."""
    expected_share, observed_share = ((counts + 0.5) / (counts + 0.5).sum() for counts in (expected, observed))
    return float(np.sum((observed_share - expected_share) * np.log(observed_share / expected_share)))


def _summary(column: Column, values: Vector) -> str:
    """Return the typical value: the median of a number, the most frequent category."""
    present = values[~np.isnan(values)]
    missing = f", missing {np.isnan(values).mean():.0%}" if column.nullable else ""
    if not present.size:
        return "all missing"
    if column.is_continuous:
        middle = float(np.median(present))
        return f"median {column.decode(middle) if column.type == 'date' else f'{middle:.4g}'}{missing}"
    categories, counts = np.unique(present, return_counts=True)
    return f"{column.decode(categories[counts.argmax()])} {counts.max() / len(values):.0%}{missing}"
