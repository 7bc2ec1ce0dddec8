"""How new rows differ from those of a table, column by column: the population stability index (PSI)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from housing.data.table import Table
from housing.schema.column import Column, Vector
from housing.schema.histogram import bin_counts, histogram_reference


@dataclass(frozen=True)
class Drift:
    """How a column of new rows differs. `chance`: the PSI that chance alone hardly exceeds with so many rows."""

    column: str
    psi: float
    psi_threshold: float
    reference: str  # what is typical of the present rows
    current: str  # of the new ones
    out_of_range: int  # new rows below or above all present ones


def measure_drift(present: Table, new: Table, significance: float) -> list[Drift]:
    """Compare each column, the target among them, in the bins of the drift reference: deciles of the present rows, or levels.

    `risk` is how often rows that do not differ may exceed `chance`.
    """
    schema = present.schema
    known = histogram_reference(schema, present.matrix, present.target)
    pairs = [(column, present.matrix[:, place], new.matrix[:, place]) for place, column in enumerate(schema.features)]
    bins = [known["columns"][column.name] for column in schema.features]
    pairs.append((schema.target, present.target, new.target))
    bins.append(known["prediction"])
    return [_column_drift(*pair, one, significance) for pair, one in zip(pairs, bins, strict=True)]


def _column_drift(column: Column, reference: Vector, current: Vector, bins: dict[str, Any], significance: float) -> Drift:
    from scipy.stats import chi2  # pylint: disable=import-outside-toplevel  # a second that only this needs

    edges = np.array(bins["edges"], dtype=np.float64)
    counts = [_counts(column, numbers, edges) for numbers in (reference, current)]
    # for samples of one population, PSI / (1/n + 1/m) has a chi-squared distribution
    psi_threshold = float(chi2.ppf(1 - significance, max(len(counts[0]) - 1, 1))) * (1 / len(reference) + 1 / len(current))
    known = reference[~np.isnan(reference)]
    is_out_of_range = (current < known.min(initial=np.inf)) | (current > known.max(initial=-np.inf))
    out_of_range = int(is_out_of_range.sum()) if column.is_number else 0
    return Drift(column.name, psi(*counts), psi_threshold, _summary(column, reference), _summary(column, current), out_of_range)


def _counts(column: Column, numbers: Vector, edges: Vector) -> Vector:
    """Count rows in each bin; where values may be missing, those are a bin of their own."""
    missing = [np.isnan(numbers).sum()] if column.nullable else []
    return np.array([*bin_counts(numbers, edges), *missing], dtype=np.float64)


def psi(expected: Vector, observed: Vector) -> float:
    """Give the population stability index of counts in bins. Each has half a row more, so that an empty one is no infinity."""
    shares = [(counts + 0.5) / (counts + 0.5).sum() for counts in (expected, observed)]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _summary(column: Column, numbers: Vector) -> str:
    """Say what is typical: the median of numbers, the most frequent of levels."""
    there = numbers[~np.isnan(numbers)]
    missing = f", missing {np.isnan(numbers).mean():.0%}" if column.nullable else ""
    if not there.size:
        return "all missing"
    if column.is_number:
        return f"median {np.median(there):.4g}{missing}"
    levels, counts = np.unique(there, return_counts=True)
    return f"{column.decode(levels[counts.argmax()])} {counts.max() / len(numbers):.0%}{missing}"
