"""Rows that stand for a table: the background that a prediction is explained against.

Greedy k-medoids (the BUILD phase of Kaufman and Rousseeuw, "Finding Groups in Data", 1990, section 2.4) in the distance
of Gower, "A General Coefficient of Similarity", Biometrics 27 (1971) 857-871, taken over ranks: one enormous value of a
column then pulls no medoid to it.
"""

import numpy as np

from housing.data.split import Rows
from housing.schema.column import Matrix
from housing.schema.table_schema import Schema

MAX_SAMPLE_ROWS = 300  # rows at most between which all distances are computed: 1,000 took a tenth of a second of each run


def select_background(schema: Schema, matrix: Matrix, count: int, seed: int) -> Rows:
    """Give the places of up to `count` rows, no two alike, that are near to all others; fewer where fewer differ.

    Raises ValueError for a matrix without rows or a count below 1.
    """
    if len(matrix) == 0 or count < 1:
        raise ValueError(f"{count} medoids of {len(matrix)} rows; allowed: at least one of at least one")
    sampled = np.arange(len(matrix))
    if len(matrix) > MAX_SAMPLE_ROWS:
        sampled = np.sort(np.random.default_rng(seed).choice(len(matrix), MAX_SAMPLE_ROWS, replace=False))
    return sampled[_greedy_k_medoids(_distances(schema, matrix[sampled]), count)]


def _greedy_k_medoids(distances: Matrix, count: int) -> list[int]:
    """Pick, one after the other, the row that most shortens the way from all rows to the nearest picked one."""
    chosen: list[int] = []
    nearest = np.full(len(distances), np.inf)
    while len(chosen) < count and nearest.any():
        best = int(np.argmin(np.minimum(distances, nearest).sum(axis=1)))
        chosen.append(best)
        nearest = np.minimum(nearest, distances[best])
    return chosen


def _distances(schema: Schema, matrix: Matrix) -> Matrix:
    """Give the distance between any two rows, summed over columns: each adds 0 (the same) to 1 (the farthest apart)."""
    total = np.zeros((len(matrix), len(matrix)))
    for column, numbers in zip(schema.features, matrix.T, strict=True):
        missing = np.isnan(numbers)
        one_missing = missing[:, None] != missing
        known = np.where(missing, 0.0, _ranks(numbers) if column.is_number else numbers)
        apart = np.abs(known[:, None] - known) if column.is_number else (known[:, None] != known).astype(np.float64)
        total += np.where(one_missing, 1.0, apart)
    return total


def _ranks(numbers: Matrix) -> Matrix:
    """Give each number's rank as a share from 0 to 1, the same for the same number."""
    ordered = np.sort(numbers[~np.isnan(numbers)])
    below, not_above = (np.searchsorted(ordered, numbers, side) for side in ("left", "right"))
    return (below + not_above) / (2 * max(len(ordered), 1))
