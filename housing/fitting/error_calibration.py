"""Calibration of estimated errors on held-out rows, with the spread of realised over estimated error under shift."""

import numpy as np

from housing.bundle.error_estimate import ErrorEstimator, LossCalibration
from housing.schema.column import Matrix, Vector

TILTS = (-1.5, -0.75, 0.75, 1.5)  # exponents: the largest weigh the rows at one end of a column 20 times those at the other
MAX_COLUMNS = 40  # along which rows are shifted, spread over all columns
MAX_ROWS = 20_000  # that are shifted: the weights of 160 shifts are in memory at once
MIN_SIZE = 1e-12


def fit_error_estimator(inputs: Matrix, size: Vector, error: Vector, weight: Vector | None) -> ErrorEstimator:
    """Calibrate estimated errors.

    Parameters
    ----------
    inputs
        Held-out rows, shape (rows, columns).
    size
        Size of the error of each row, predicted by models that were not fitted on the row, shape (rows,).
    error
        Actual target minus prediction, shape (rows,).
    weight
        How much each row counts, or None if all count alike.
    """
    rows = slice(None, None, -(-len(size) // MAX_ROWS))
    weights = np.ones(len(size)) if weight is None else weight
    inputs, size, error, weights = inputs[rows], size[rows], error[rows], weights[rows]
    tilted = _tilted_weights(inputs, weights)
    losses = ((np.abs(error), size), (np.square(error), np.square(size)))
    absolute, squared = (_calibrate(loss, np.maximum(shape, MIN_SIZE), weights, tilted) for loss, shape in losses)
    return ErrorEstimator(absolute, squared)


def _calibrate(loss: Vector, shape: Vector, weight: Vector, tilted: Matrix) -> LossCalibration:
    factor = float((weight @ loss) / (weight @ shape))
    expected = factor * shape
    row_variance = float(weight @ np.square(loss - expected)) / max(float(weight @ np.square(expected)), MIN_SIZE**2)
    total = np.maximum(tilted @ expected, MIN_SIZE)
    difference = (tilted @ (loss - expected)) / total
    by_chance = row_variance * (np.square(tilted) @ np.square(expected)) / np.square(total)
    shift_variance = max(float(np.mean(np.square(difference) - by_chance)), 0.0)
    # of the factor, which held-out rows decide: a new group of many rows differs from them by chance
    level_variance = row_variance * float(np.square(weight * expected).sum()) / max(float(weight @ expected) ** 2, MIN_SIZE**2)
    return LossCalibration(factor, float((weight @ loss) / weight.sum()), row_variance, shift_variance + level_variance)


def _tilted_weights(inputs: Matrix, weight: Vector) -> Matrix:
    """Return weights of the rows for each shift of a column up or down, shape (shifts, rows)."""
    n_rows, n_columns = inputs.shape
    chosen = np.unique(np.linspace(0, n_columns - 1, min(n_columns, MAX_COLUMNS)).astype(int))
    ranks = np.argsort(np.argsort(inputs[:, chosen], axis=0, kind="stable"), axis=0) / max(n_rows - 1, 1) * 2 - 1
    return np.concatenate([weight * np.exp(tilt * ranks.T) for tilt in TILTS])
