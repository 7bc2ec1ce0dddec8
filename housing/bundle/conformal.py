"""Conformal prediction intervals: split conformal, scaled by a model of the size of errors.

Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, "Distribution-Free Predictive Inference for Regression", JASA 113
(2018) 1094-1111, sections 2.2 and 5.2.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from housing.bundle.log_transform import MAX_LOG
from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class ErrorModel(Protocol):
    """A model of the logarithm of the absolute error of a prediction."""

    def predict(self, columns: Matrix) -> Vector:
        """Return the logarithms, shape (rows,)."""


class Interval:
    """Calibrated prediction intervals.

    Parameters
    ----------
    arrays
        `scores`, shape (calibration rows,): sorted absolute errors of held-out rows, each divided by its expected size. If the
        rows have weights, `ranks` of the same shape: the cumulative weights of the sorted scores in units of their mean.
    error_model
        Model of the expected size of an error.
    is_relative
        Whether an error is the one of the logarithm. Then bounds are a factor away from the prediction, and above 0.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], error_model: ErrorModel, *, is_relative: bool = False) -> None:
        self.arrays, self.error_model, self.is_relative = arrays, error_model, is_relative

    @property
    def max_coverage(self) -> float:
        """The largest coverage that n calibration rows support: n / (n + 1)."""
        rows = len(self.arrays["scores"])
        return rows / (rows + 1)

    def bounds(self, schema: Schema, columns: Matrix, predictions: Vector, coverage: float) -> tuple[Vector, Vector]:
        """Return lower and upper bounds, clipped to the bounds of the target.

        Parameters
        ----------
        schema
            The columns of the table.
        columns
            Columns of the ensemble's first features, shape (rows, names).
        predictions
            Shape (rows,), in the target's unit.
        coverage
            Expected share of targets within their intervals.

        Returns
        -------
        lower, upper
            Both of shape (rows,), in the target's unit.

        Raises
        ------
        ConfigError
            If the coverage is not above 0 and at most `max_coverage`.
        """
        if not 0.0 < coverage <= self.max_coverage:
            raise ConfigError(f"coverage must be above 0 and at most {self.max_coverage:.6g} (got {coverage:g}).")
        width = score_quantile(self.arrays, coverage) * self.error_scales(columns, predictions)
        target = schema.target
        if self.is_relative:
            factor = np.exp(np.minimum(width, MAX_LOG))
            lower, upper = predictions / factor, predictions * factor
        else:
            lower, upper = predictions - width, predictions + width
        bounds = (-np.inf if target.min is None else target.min, np.inf if target.max is None else target.max)
        return np.clip(lower, *bounds), np.clip(upper, *bounds)

    def error_scales(self, columns: Matrix, predictions: Vector) -> Vector:
        """Return the expected size of the error of each prediction, shape (rows,), in the target's unit or of the logarithm."""
        return np.asarray(np.exp(self.error_model.predict(append_prediction(columns, predictions))))


def absolute_error(predictions: Vector, actual: Vector, *, is_relative: bool) -> Vector:
    """Return the absolute error of each prediction, or of its logarithm, shape (rows,)."""
    if is_relative:
        return np.abs(np.log(np.maximum(predictions, np.finfo(np.float64).tiny)) - np.log(actual))
    return np.abs(predictions - actual)


def calibrate(scores: Vector, weight: Vector | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an interval from the scores of calibration rows, in any order."""
    if weight is None:
        return {"scores": np.sort(scores)}
    order = np.argsort(scores, kind="stable")
    return {"scores": scores[order], "ranks": _ranks(weight[order])}


def _ranks(weight: Vector) -> Vector:
    """Return the cumulative weights in units of their mean. The last is the number of rows, without rounding."""
    ranks = np.cumsum(weight)
    return np.asarray(ranks / ranks[-1] * len(weight))


def score_quantile(arrays: Mapping[str, NDArray[Any]], coverage: float) -> float:
    """Return the smallest score of sufficient rank, or infinity if there are too few for the coverage.

    A new row counts like the mean calibration row.
    """
    scores = arrays["scores"]
    rank = (len(scores) + 1) * coverage
    index = int(np.searchsorted(arrays["ranks"], rank)) if "ranks" in arrays else math.ceil(rank) - 1
    return float(scores[index]) if index < len(scores) else math.inf


def append_prediction(columns: Matrix, predictions: Vector) -> Matrix:
    """Return the input of the error model: the columns, then the predictions, shape (rows, names + 1)."""
    return np.column_stack([columns, predictions])
