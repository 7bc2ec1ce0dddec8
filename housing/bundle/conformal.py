"""Conformal prediction intervals: quantiles of the error, scaled by a model of its size and calibrated on held-out rows.

Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, "Distribution-Free Predictive Inference for Regression", JASA 113
(2018) 1094-1111, sections 2.2 and 5.2, for the scale. Romano, Patterson and Candès, "Conformalized Quantile Regression", NeurIPS
2019, for the quantile models. Each bound is calibrated on its own side, so intervals may be asymmetric.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from housing.bundle.adaptation import Adaptation
from housing.bundle.error_estimate import ErrorEstimator
from housing.bundle.log_transform import MAX_LOG
from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

ERROR_ESTIMATE = "error_estimate"  # name of an array beside those of a calibration
MAX_LEVELS = 32  # of a request, whose line has at most 4,094 characters
MAX_CACHED_LEVELS = 64  # a correction sorts the calibration rows
MAX_SCORE = 1e3  # of a label: the logarithm of 0 is not finite, and one wrong value must not outweigh all others

ROUNDING = 1e-9  # (n + 1) * level may be slightly above the whole number that it stands for


class ErrorModel(Protocol):
    """A model of the error of a prediction: of the logarithm of its size, or of a quantile of its score."""

    def predict(self, columns: Matrix) -> Vector:
        """Return a value for each row, shape (rows,)."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of held-out rows. A score is the error (actual minus predicted), divided by its expected size.

    Attributes
    ----------
    scores
        Shape (rows,).
    weight
        Shape (rows,), or None if the rows have no weights.
    levels
        Levels of the quantile models, ascending, shape (models,). Empty: the scores of all rows have the same distribution.
    quantiles
        Out-of-fold predictions of the quantile models, shape (rows, models).
    """

    scores: Vector
    weight: Vector | None = None
    levels: Vector = field(default_factory=lambda: np.empty(0))
    quantiles: Matrix = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.scores)

    @property
    def max_coverage(self) -> float:
        """The largest coverage that n rows support: (n - 1) / (n + 1)."""
        return (len(self) - 1) / (len(self) + 1)

    def select(self, rows: NDArray[Any]) -> "Calibration":
        """Return the calibration by some of the rows."""
        weight = None if self.weight is None else self.weight[rows]
        return Calibration(self.scores[rows], weight, self.levels, self.quantiles[rows] if self.levels.size else self.quantiles)

    def models(self, level: float) -> list[tuple[int, float]]:
        """Return the quantile models that a level is interpolated from, with their shares. The outermost models extrapolate."""
        if not self.levels.size:
            return []
        position = float(np.interp(level, self.levels, np.arange(len(self.levels))))
        below, share = int(position), position % 1
        return [(below, 1 - share), *([(below + 1, share)] if share else [])]

    def correction(self, level: float) -> float:
        """Return what to add to a predicted quantile, so that a share `level` of new scores is below. Infinite: too few rows.

        A new row counts like the mean calibration row.
        """
        residuals = self.residuals(self.models(level))
        if level < 0.5:
            return -_upper_quantile(-residuals, self.weight, 1 - level)
        return _upper_quantile(residuals, self.weight, level)

    def covers(self, other: "Calibration", coverage: float) -> NDArray[np.bool_]:
        """Return which rows of another calibration are inside the intervals of this one."""
        lower, upper = (other.residuals(self.models(level)) - self.correction(level) for level in levels_of(coverage))
        return (lower >= 0) & (upper <= 0)

    def residuals(self, models: list[tuple[int, float]]) -> Vector:
        """Return the scores minus their predicted quantile."""
        return self.scores - sum((share * self.quantiles[:, model] for model, share in models), start=np.zeros(len(self)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, to be stored."""
        arrays = {"scores": self.scores, "weight": self.weight, "levels": self.levels, "quantiles": self.quantiles}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a calibration from the result of `to_arrays`."""
        return cls(arrays["scores"], arrays.get("weight"), arrays["levels"], arrays["quantiles"])


class Interval:
    """Calibrated quantiles and prediction intervals.

    Parameters
    ----------
    calibration
        Scores of held-out rows.
    error_model
        Model of the logarithm of the expected size of an error.
    quantile_models
        Models of the quantiles of the score, one for each level of the calibration.
    is_relative
        Whether an error is the one of the logarithm. Then bounds are a factor away from the prediction, and above 0.
    error_estimator
        How mean errors follow from the sizes of errors, or None if the run did not calibrate that.
    """

    def __init__(
        self,
        calibration: Calibration,
        error_model: ErrorModel,
        quantile_models: Sequence[ErrorModel] = (),
        *,
        is_relative: bool = False,
        error_estimator: ErrorEstimator | None = None,
    ) -> None:
        self.calibration, self.error_model, self.quantile_models = calibration, error_model, list(quantile_models)
        self.is_relative, self.error_estimator = is_relative, error_estimator
        self.adaptation: Adaptation | None = None
        self.adapt_level: Callable[[float], tuple[float, float]] | None = None
        self._correction = lru_cache(MAX_CACHED_LEVELS)(calibration.correction)

    @property
    def max_coverage(self) -> float:
        """The largest coverage that the calibration rows support."""
        return self.calibration.max_coverage

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all but the models, to be stored."""
        estimator = self.error_estimator
        return self.calibration.to_arrays() | ({} if estimator is None else {ERROR_ESTIMATE: estimator.to_array()})

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
        lower, upper = self._quantiles(schema, columns, predictions, levels_of(coverage))
        return lower, upper

    def quantiles(self, schema: Schema, columns: Matrix, predictions: Vector, levels: Sequence[float]) -> Matrix:
        """Return quantiles of the target, clipped to its bounds. The quantiles of a row ascend.

        Parameters
        ----------
        schema, columns, predictions
            As of `bounds`.
        levels
            Expected shares of targets below the quantiles, ascending.

        Returns
        -------
        quantiles
            Shape (levels, rows), in the target's unit.

        Raises
        ------
        ConfigError
            If the levels do not ascend, are too many, or are nearer to 0 or 1 than n calibration rows support: 1 / (n + 1).
        """
        self._require_levels(levels)
        return self._quantiles(schema, columns, predictions, levels)

    def adapted(self, adaptation: Adaptation) -> "Interval":
        """Return the same intervals, with quantiles that follow feedback."""
        interval = copy.copy(self)
        interval.adaptation = adaptation
        interval.adapt_level = lru_cache(MAX_CACHED_LEVELS)(partial(adaptation.adapt_level, len(self.calibration)))
        return interval

    def residuals(self, columns: Matrix, predictions: Vector, actual: Vector, levels: Sequence[float]) -> Matrix:
        """Return the scores of rows minus their calibrated quantiles, which no adaptation changes, shape (rows, levels)."""
        inputs = append_prediction(columns, predictions)
        with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of 0
            error = signed_error(predictions, actual, is_relative=self.is_relative)
        scores = np.clip(error / np.exp(self.error_model.predict(inputs)), -MAX_SCORE, MAX_SCORE)
        quantiles = [np.broadcast_to(quantile, scores.shape) for quantile in self._score_quantiles(inputs, levels)]
        return np.nan_to_num(scores, nan=-MAX_SCORE)[:, np.newaxis] - np.column_stack(quantiles)

    def mean_score_width(self, coverage: float) -> float:
        """Return the mean width of the intervals of the calibration rows, in units of scores."""
        calibration = self.calibration

        def calibrated(levels: Sequence[float]) -> list[Any]:
            return [
                float(np.mean(calibration.scores - calibration.residuals(calibration.models(level)))) + self._correction(level)
                for level in levels
            ]

        lower, upper = self._adapted_quantiles(calibrated, levels_of(coverage))
        return float(upper - lower)

    def error_sizes(self, columns: Matrix, predictions: Vector) -> Vector:
        """Return the size of the error of each row in the target's unit, up to a factor. Arguments are as those of `bounds`."""
        scales = np.exp(self.error_model.predict(append_prediction(columns, predictions)))
        return error_size(predictions, scales, is_relative=self.is_relative)

    def _require_levels(self, levels: Sequence[float]) -> None:
        if not 1 <= len(levels) <= MAX_LEVELS or list(levels) != sorted(set(levels)):
            raise ConfigError(f"quantiles must be 1 to {MAX_LEVELS} numbers that ascend (got {list(levels)!s:.80}).")
        n = len(self.calibration)
        for level in levels:
            if not 1 - ROUNDING <= (n + 1) * level <= n + ROUNDING:
                limits = f"at least {1 / (n + 1):.6g} and at most {n / (n + 1):.6g} with {n} calibration rows"
                raise ConfigError(f"quantiles must be {limits} (got {level:g}).")

    def _quantiles(self, schema: Schema, columns: Matrix, predictions: Vector, levels: Sequence[float]) -> Matrix:
        """Return quantiles at ascending levels. Where models of two levels cross, the larger value holds for both."""
        inputs = append_prediction(columns, predictions)
        scales = np.exp(self.error_model.predict(inputs))
        scores = self._adapted_quantiles(partial(self._score_quantiles, inputs), levels)
        target = schema.target
        raw = [self._shift(predictions, score * scales) for score in scores]
        bounds = (-np.inf if target.min is None else target.min, np.inf if target.max is None else target.max)
        return np.clip(np.maximum.accumulate(raw), *bounds)

    def _adapted_quantiles(self, calibrated: Callable[[Sequence[float]], list[Any]], levels: Sequence[float]) -> list[Any]:
        """Return quantiles of scores as feedback has changed them, given what returns the calibrated ones at some levels."""
        if self.adapt_level is None:
            return calibrated(levels)
        pairs = [self.adapt_level(level) for level in levels]
        quantiles = calibrated([used for used, _ in pairs])
        return [quantile + offset for quantile, (_, offset) in zip(quantiles, pairs, strict=True)]

    def _score_quantiles(self, inputs: Matrix, levels: Sequence[float]) -> list[Any]:
        """Return the calibrated quantiles of scores: numbers, or of shape (rows,) each if there are quantile models."""
        predict = lru_cache(None)(lambda model: self.quantile_models[model].predict(inputs))
        return [
            sum((share * predict(model) for model, share in self.calibration.models(level)), start=self._correction(level))
            for level in levels
        ]

    def _shift(self, predictions: Vector, error: Vector) -> Vector:
        return predictions * np.exp(np.clip(error, -MAX_LOG, MAX_LOG)) if self.is_relative else predictions + error


def error_size(predictions: Vector, scale: Vector, *, is_relative: bool) -> Vector:
    """Return the size of each error in the target's unit, given that of errors or of their logarithms."""
    return np.asarray(np.abs(predictions) * scale) if is_relative else scale


def signed_error(predictions: Vector, actual: Vector, *, is_relative: bool) -> Vector:
    """Return the actual target minus each prediction, or the difference of their logarithms, shape (rows,)."""
    if is_relative:
        return np.asarray(np.log(actual) - np.log(np.maximum(predictions, np.finfo(np.float64).tiny)))
    return actual - predictions


def levels_of(coverage: float) -> tuple[float, float]:
    """Return the levels of the two bounds of an interval."""
    return (1 - coverage) / 2, (1 + coverage) / 2


def _upper_quantile(values: Vector, weight: Vector | None, level: float) -> float:
    """Return the smallest value of sufficient rank, or infinity if there are too few."""
    order = np.argsort(values, kind="stable")
    ranks = np.arange(1, len(values) + 1) if weight is None else _ranks(weight[order])
    index = int(np.searchsorted(ranks, (len(values) + 1) * level - ROUNDING))
    return float(values[order[index]]) if index < len(values) else math.inf


def _ranks(weight: Vector) -> Vector:
    """Return the cumulative weights in units of their mean. The last is the number of rows, without rounding."""
    ranks = np.cumsum(weight)
    return np.asarray(ranks / ranks[-1] * len(weight))


def append_prediction(columns: Matrix, predictions: Vector) -> Matrix:
    """Return the input of the models of the error: the columns, then the predictions, shape (rows, names + 1)."""
    return np.column_stack([columns, predictions])
