"""Associations with the target in a sample of rows, and columns that give the target away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from housing.data.read_options import ReadOptions
from housing.description.cells import date_seconds, parse_number
from housing.description.decisions import Decision, Decisions
from housing.description.profile import ColumnProfile, FileProfile
from housing.schema.column import Matrix, Vector
from housing.schema.dates import ISO_DATE
from housing.schema.written_numbers import parse_written_number

EXACT = 1e-9  # share of the target's variance that an exact relation leaves open
CLOSE = 0.96  # linear correlation above which a column is suspected
MIN_ROWS = 30
SIGNIFICANT = 1e-3  # of the largest contribution


@dataclass(frozen=True)
class Association:
    """How closely a column goes with the target in the sample: 0 not at all, 1 exactly.

    For numbers it is the absolute rank correlation, for others the correlation ratio. Texts, of which nearly each is a level of
    its own, have none.
    """

    name: str
    strength: float


def _numbers_of(column: ColumnProfile, options: ReadOptions) -> Vector:
    """Return the numbers of the sampled cells, shape (rows,); NaN for other cells."""
    parsed = (parse_number(cell, options) for cell in column.sample)
    return np.array([np.nan if number is None else number for number in parsed], dtype=np.float64)


def values_of(column: ColumnProfile, decision: Decision, options: ReadOptions) -> Vector:
    """Return the sampled cells of a number or a date as numbers, shape (rows,); NaN for other cells."""
    if decision.is_date:
        values = [date_seconds(cell, str(decision.attributes.get("format", ISO_DATE))) for cell in column.sample]
    elif "parse" in decision.attributes:
        values = [parse_written_number(cell, str(decision.attributes["parse"])) for cell in column.sample]
    else:
        return _numbers_of(column, options)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def measure(profile: FileProfile, decisions: Decisions, target: str) -> list[Association]:
    """Return the association of each feature with the target, the closest first."""
    actual = values_of(profile.column(target), decisions.column(target), decisions.options)
    measured = [
        Association(decision.name, _strength(profile.column(decision.name), decision, decisions.options, actual))
        for decision in decisions.columns
        if decision.is_feature and not decision.is_text
    ]
    return sorted(measured, key=lambda association: -association.strength)


def _strength(column: ColumnProfile, decision: Decision, options: ReadOptions, actual: Vector) -> float:
    if decision.is_number or decision.is_date:
        return abs(rank_correlation(values_of(column, decision, options), actual))
    return _correlation_ratio(column.sample, actual)


def rank_correlation(first: Vector, second: Vector) -> float:
    """Return Spearman's correlation of the rows in which both numbers are known."""
    complete = ~np.isnan(first) & ~np.isnan(second)
    return _correlation(_ranks(first[complete]), _ranks(second[complete]))


def _ranks(numbers: Vector) -> Vector:
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[inverse], dtype=np.float64)


def _correlation(first: Vector, second: Vector) -> float:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    with np.errstate(all="ignore"):  # numbers near 0 underflow: they correlate with nothing
        correlation = float(np.corrcoef(first, second)[0, 1])
    return correlation if np.isfinite(correlation) else 0.0


def _correlation_ratio(cells: Sequence[str], actual: Vector) -> float:
    """Return the root of the share of the target's variance between the levels."""
    present = ~np.isnan(actual)
    values = actual[present]
    if not values.size or np.ptp(values) == 0:
        return 0.0
    _, inverse = np.unique(np.array(cells)[present], return_inverse=True)
    counts, sums = np.bincount(inverse), np.bincount(inverse, values)
    between = float((counts * (sums / counts - values.mean()) ** 2).sum())
    return float(np.sqrt(between / ((values - values.mean()) ** 2).sum()))


def without_leaks(profile: FileProfile, decisions: Decisions, target: str) -> tuple[Decisions, list[str]]:
    """Leave out the columns that give the target away: those that equal it, have a correlation of 1, or whose sum equals it.

    Returns
    -------
    decisions
        With the new ones.
    warnings
        Of columns that are kept, although they or other relations are suspicious.
    """
    actual = values_of(profile.column(target), decisions.column(target), decisions.options)
    for factors in _exact_relations(profile, decisions, actual):
        if len(factors) > 1 and not _is_sum(factors):
            return decisions, [f"{target!r} is exactly a sum of multiples of {_listed(factors)}. Is all of that known before?"]
        text = f"a sum and difference of {_listed(factors)}" if len(factors) > 1 else f"a multiple of {_listed(factors)}"
        ignored = [
            decisions.column(name).ignored(f"{name!r} gives the target away ({target!r} is {text}), so it is left out.")
            for name in factors
        ]
        changed = decisions.replaced(ignored)
        if not any(column.is_feature for column in changed.columns):
            return decisions, [f"{target!r} is exactly {text}. Is that known before?"]
        decisions = changed
    same_order = [association.name for association in measure(profile, decisions, target) if association.strength > 1 - EXACT]
    if len(actual) >= MIN_ROWS and sum(column.is_feature for column in decisions.columns) > len(same_order):
        reason = "gives the target away (same order), so it is left out."
        decisions = decisions.replaced([decisions.column(name).ignored(f"{name!r} {reason}") for name in same_order])
    return decisions, list(_suspicions(profile, decisions, actual))


def _suspicions(profile: FileProfile, decisions: Decisions, actual: Vector) -> Iterator[str]:
    for column in decisions.columns:
        if column.is_feature and column.is_number:
            numbers = values_of(profile.column(column.name), column, decisions.options)
            complete = ~np.isnan(numbers) & ~np.isnan(actual)
            correlation = _correlation(numbers[complete], actual[complete])
            if abs(correlation) >= CLOSE and complete.sum() >= MIN_ROWS:
                yield f"{column.name!r} nearly gives the target away (correlation {correlation:.3f}). Is it known before?"


def _exact_relations(profile: FileProfile, decisions: Decisions, actual: Vector) -> Iterator[dict[str, float]]:
    """Yield columns of which the target is an exact linear combination, with their factors."""
    columns = {column.name: column for column in decisions.columns if column.is_feature and column.is_number}
    names = list(columns)
    while names:
        matrix = np.column_stack([values_of(profile.column(name), columns[name], decisions.options) for name in names])
        factors = _solve(matrix, actual, names)
        if not factors:
            return
        yield factors
        names = [name for name in names if name not in factors]


def _solve(matrix: Matrix, actual: Vector, names: Sequence[str]) -> dict[str, float]:
    complete = ~np.isnan(matrix).any(axis=1) & ~np.isnan(actual)
    matrix, values = matrix[complete], actual[complete]
    if len(values) < max(MIN_ROWS, 3 * matrix.shape[1]) or np.ptp(values) == 0:
        return {}
    centred, deviations = matrix - matrix.mean(axis=0), values - values.mean()
    scales = np.where(centred.std(axis=0) > 0, centred.std(axis=0), 1)
    contributions: NDArray[np.float64] = np.linalg.lstsq(centred / scales, deviations, rcond=1e-10)[0]
    if ((deviations - centred / scales @ contributions) ** 2).sum() > EXACT * (deviations**2).sum():
        return {}
    significant = np.abs(contributions) > SIGNIFICANT * np.abs(contributions).max()
    return {names[index]: float(contributions[index] / scales[index]) for index in np.flatnonzero(significant).tolist()}


def _is_sum(factors: Mapping[str, float]) -> bool:
    """Return whether all factors are the same number or its opposite."""
    sizes = np.abs(list(factors.values()))
    return bool(np.ptp(sizes) < SIGNIFICANT * sizes.max())


def _listed(names: Mapping[str, float]) -> str:
    return ", ".join(map(repr, names))
