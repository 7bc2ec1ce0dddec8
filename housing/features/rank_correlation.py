"""Spearman rank correlation between columns and the target."""

import numpy as np

from housing.schema.column import Matrix, Vector


def rank_correlations(columns: Matrix, target: Vector) -> Vector:
    """Return the absolute Spearman correlation of each column with the target, shape (columns,).

    Rows with a missing value (NaN) in a column do not count for that column. A constant column has correlation 0.
    """
    return np.array([_rank_correlation(column, target) for column in columns.T], dtype=np.float64)


def _rank_correlation(column: Vector, target: Vector) -> float:
    present = ~np.isnan(column)
    if present.sum() < 2:
        return 0.0
    covariance = np.cov(_ranks(column[present]), _ranks(target[present]))
    scale = float(np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return abs(float(covariance[0, 1])) / scale if scale else 0.0


def _ranks(values: Vector) -> Vector:
    """Return ranks from 1; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])
