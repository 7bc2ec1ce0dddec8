"""Data drift: the population stability index (PSI) of new rows against the rows of a table, by column."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from housing.data.table import Table
from housing.schema.column import Column, Vector
from housing.schema.histogram import bin_counts, histogram_reference


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


def measure_drift(present: Table, new: Table, significance: float) -> list[Drift]:
    """Return the drift of each column, the target included, in the bins that monitoring uses: deciles or categories."""
    schema, new = present.schema, new.with_levels(present.schema.levels)
    reference = histogram_reference(schema, present.matrix, present.target)
    drifts = [
        _column_drift(column, before, after, reference["columns"][column.name], significance)
        for column, before, after in zip(schema.features, present.matrix.T, new.matrix.T, strict=True)
    ]
    return [*drifts, _column_drift(schema.target, present.target, new.target, reference["prediction"], significance)]


def _column_drift(column: Column, reference: Vector, current: Vector, bins: dict[str, Any], significance: float) -> Drift:
    from scipy.stats import chi2  # pylint: disable=import-outside-toplevel  # takes a second to import

    edges = np.array(bins["edges"], dtype=np.float64)
    counts = [_bin_counts(column, values, edges) for values in (reference, current)]
    # For samples of one population, PSI / (1/n + 1/m) has a chi-squared distribution.
    psi_threshold = float(chi2.ppf(1 - significance, max(len(counts[0]) - 1, 1))) * (1 / len(reference) + 1 / len(current))
    known = reference[~np.isnan(reference)]
    is_out_of_range = (current < known.min(initial=np.inf)) | (current > known.max(initial=-np.inf))
    out_of_range = int(is_out_of_range.sum()) if column.is_continuous else 0
    return Drift(column.name, psi(*counts), psi_threshold, _summary(column, reference), _summary(column, current), out_of_range)


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
        return f"median {f'{middle:.4g}' if column.is_number else column.decode(middle)}{missing}"
    categories, counts = np.unique(present, return_counts=True)
    return f"{column.decode(categories[counts.argmax()])} {counts.max() / len(values):.0%}{missing}"
