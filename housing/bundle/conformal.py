"""Intervals around predictions: split conformal, scaled by a model of how far predictions are off.

Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, "Distribution-Free Predictive Inference for Regression", JASA 113
(2018) 1094-1111, sections 2.2 and 5.2.
"""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class ErrorModel(Protocol):
    """A model of the logarithm of how far a prediction is off."""

    def predict(self, columns: Matrix) -> Vector:
        """Give the logarithms, shape (rows,)."""


class Interval:
    """`arrays["scores"]`: the errors of rows that no estimator was fitted on, each divided by its scale, in order."""

    def __init__(self, arrays: dict[str, NDArray[Any]], error_model: ErrorModel) -> None:
        self.arrays, self.error_model = arrays, error_model

    @property
    def max_coverage(self) -> float:
        """The largest coverage that the number of calibration rows allows."""
        rows = len(self.arrays["scores"])
        return rows / (rows + 1)

    def bounds(self, schema: Schema, columns: Matrix, predicted: Vector, coverage: float) -> tuple[Vector, Vector]:
        """Give the lower and upper ends, within the target's bounds.

        Raises ConfigError for a coverage that is no share, or asks for more rows than calibrated the interval.
        """
        if not 0.0 < coverage <= self.max_coverage:
            raise ConfigError(f"coverage is {coverage:g}; allowed: above 0, up to {self.max_coverage:.6g}")
        scores = self.arrays["scores"]
        width = scores[math.ceil((len(scores) + 1) * coverage) - 1] * self.error_scales(columns, predicted)
        target = schema.target
        lower, upper = predicted - width, predicted + width
        bounds = (-np.inf if target.min is None else target.min, np.inf if target.max is None else target.max)
        return np.clip(lower, *bounds), np.clip(upper, *bounds)

    def error_scales(self, columns: Matrix, predicted: Vector) -> Vector:
        """Give how far each prediction is expected to be off."""
        return np.asarray(np.exp(self.error_model.predict(append_prediction(columns, predicted))))


def append_prediction(columns: Matrix, predicted: Vector) -> Matrix:
    """Give what the scale's model sees: the columns of the first features, and the prediction."""
    return np.column_stack([columns, predicted])
