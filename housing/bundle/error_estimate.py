"""Estimated errors: how large the errors of predictions are on average, before their true values are known.

Direct loss estimation: a model of the loss, fitted on held-out rows, predicts the loss of each new row. The model of the size of
errors, which prediction intervals have anyway, does that: losses are proportional to the size and to its square.
"""

import math
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import BundleError
from housing.schema.column import Vector


@dataclass(frozen=True)
class Estimate:
    """A mean loss with its standard error."""

    value: float
    standard_error: float

    def root(self) -> "Estimate":
        """Return the square root, with the standard error that follows from it."""
        root = math.sqrt(self.value)
        return Estimate(root, self.standard_error / (2 * root) if root else 0.0)


@dataclass(frozen=True)
class LossCalibration:
    """How the loss of a row depends on its shape: the size of its error, or the square of the size.

    Attributes
    ----------
    factor
        Expected loss of a row, divided by its shape.
    mean
        Mean loss of the held-out rows.
    row_variance
        Variance of the loss of a row, in units of the square of its expected loss.
    model_variance
        Variance of the ratio of realised to expected mean loss, from one group of many rows to another.
    """

    factor: float
    mean: float
    row_variance: float
    model_variance: float

    def estimate(self, shape: Vector, correction: "Correction | None" = None) -> Estimate:
        """Return the mean loss of rows, with the ratio that feedback has shown, if there is any."""
        expected = self.factor * shape
        mean, ratio, model_variance = float(expected.mean()), 1.0, self.model_variance
        if correction is not None:
            ratio, model_variance = correction.apply(self)
        variance_of_rows = self.row_variance * float(np.square(expected).sum()) / len(expected) ** 2
        return Estimate(ratio * mean, math.sqrt(ratio**2 * variance_of_rows + mean**2 * model_variance))


@dataclass(frozen=True)
class Correction:
    """Sums over rows whose true values are known: from them follows the ratio of realised to expected loss.

    Attributes
    ----------
    realised, expected, squared
        Sums of losses, of expected losses and of their squares.
    """

    realised: float = 0.0
    expected: float = 0.0
    squared: float = 0.0

    def add(self, realised: Vector, expected: Vector, keep: float) -> "Correction":
        """Return the sums with new rows. A share `keep` of the previous sums stays."""
        sums = float(realised.sum()), float(expected.sum()), float(np.square(expected).sum())
        return Correction(*(keep * old + new for old, new in zip(astuple(self), sums, strict=True)))

    def apply(self, calibration: LossCalibration) -> tuple[float, float]:
        """Return the ratio, shrunk towards 1 as far as few rows demand, and the variance that it leaves."""
        if not self.expected:
            return 1.0, calibration.model_variance
        variance = calibration.row_variance * self.squared / self.expected**2
        total = calibration.model_variance + variance  # 0 if no held-out row had an error
        weight = calibration.model_variance / total if total else 0.0
        return 1 + weight * (self.realised / self.expected - 1), (1 - weight) * calibration.model_variance


@dataclass(frozen=True)
class ErrorEstimator:
    """Calibrations of the absolute and of the squared error."""

    absolute: LossCalibration
    squared: LossCalibration

    def to_array(self) -> NDArray[np.float64]:
        """Return the numbers, to be stored: shape (2, 4)."""
        return np.array([astuple(self.absolute), astuple(self.squared)], dtype=np.float64)

    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Self:
        """Rebuild the estimator from the result of `to_array`. Raises BundleError if the numbers are no such result."""
        if array.shape != (2, 4) or array.dtype != np.float64 or not (np.isfinite(array).all() and (array >= 0).all()):
            raise BundleError("The calibration of estimated errors must be 2 x 4 finite numbers that are not negative.")
        absolute, squared = (LossCalibration(*map(float, row)) for row in array)
        return cls(absolute, squared)
