"""Background rows for explanations: greedy k-medoids that represent the training rows.

Kaufman and Rousseeuw, "Finding Groups in Data" (1990), section 2.4, the BUILD phase, with the distance of Gower, "A General
Coefficient of Similarity", Biometrics 27 (1971) 857-871. Distances use ranks, so that an outlier attracts no medoid.
"""

import numpy as np

from housing.data.split import Rows
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

MAX_SAMPLE_ROWS = 300  # the distance matrix of 1,000 rows would take a tenth of a second of each run


def select_background(schema: Schema, matrix: Matrix, count: int, seed: int) -> Rows:
    """Return the indices of up to `count` distinct medoids of a matrix, shape (rows, features + components).

    Fewer are returned if the matrix has fewer distinct rows. `seed` draws the sample of a large matrix.
    """
    if len(matrix) == 0 or count < 1:
        raise ValueError(f"Cannot select {count} medoids of {len(matrix)} rows: both must be at least 1")
    sample = np.arange(len(matrix))
    if len(matrix) > MAX_SAMPLE_ROWS:
        sample = np.sort(np.random.default_rng(seed).choice(len(matrix), MAX_SAMPLE_ROWS, replace=False))
    return sample[_greedy_k_medoids(_distances(schema, matrix[sample]), count)]


def _greedy_k_medoids(distances: Matrix, count: int) -> list[int]:
    """Add the row that most reduces the total distance to the nearest medoid, `count` times."""
    chosen: list[int] = []
    nearest = np.full(len(distances), np.inf)
    while len(chosen) < count and nearest.any():
        best = int(np.argmin(np.minimum(distances, nearest).sum(axis=1)))
        chosen.append(best)
        nearest = np.minimum(nearest, distances[best])
    return chosen


def _distances(schema: Schema, matrix: Matrix) -> Matrix:
    """Return Gower's distance between all pairs of rows. Each column adds between 0 (equal) and 1 (maximum and minimum)."""
    total = np.zeros((len(matrix), len(matrix)))
    for column, values in zip(schema.features, matrix.T, strict=False):  # a text counts by its explained share
        is_missing = np.isnan(values)
        is_one_missing = is_missing[:, None] != is_missing
        known = np.where(is_missing, 0.0, _ranks(values) if column.is_continuous else values)
        difference = np.abs(known[:, None] - known) if column.is_continuous else (known[:, None] != known).astype(np.float64)
        total += np.where(is_one_missing, 1.0, difference)
    return total


def _ranks(values: Vector) -> Vector:
    """Return the rank of each value as a share from 0 to 1, equal for equal values."""
    ordered = np.sort(values[~np.isnan(values)])
    below, not_above = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + not_above) / (2 * max(len(ordered), 1))
