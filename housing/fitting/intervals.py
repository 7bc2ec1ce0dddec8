"""Fitting of prediction intervals: models of the error, and scores of held-out rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from housing.bundle.conformal import Calibration, Interval, append_prediction, error_size, signed_error
from housing.bundle.ensemble import CHUNK
from housing.bundle.error_estimate import ErrorEstimator
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.data.units import Units
from housing.estimators.arguments import check_estimator
from housing.estimators.onnx_export import export_and_verify
from housing.fitting.error_calibration import fit_error_estimator
from housing.fitting.estimators import Model, require_weighted_fit, sample_weight
from housing.fitting.fitting import FitSettings, fit
from housing.schema.column import Column, Matrix, Vector
from housing.scoring.folds import shuffled_folds

MIN_RELATIVE_ERROR = 0.3  # of the mean error: the expected error of a row is never assumed to be smaller
TOLERANCE = 1e-3  # largest difference between a model of the error and its ONNX graph
VALIDATION, OUT_OF_FOLD = "validation", "out_of_fold"


@dataclass(frozen=True)
class IntervalSettings:
    """The models of the error, as one file of `conf/interval` declares them.

    Attributes
    ----------
    create_estimator
        Returns a new estimator of the logarithm of the absolute error.
    folds
        Number of folds of the held-out rows, 2 or more.
    held_out
        The rows that calibrate: "validation", or "out_of_fold" for all fitted rows, predicted by as many fits as there are folds.
    quantiles
        By level, ascending: returns a new estimator of this quantile of the score. Empty: all scores have the same distribution.
    """

    create_estimator: Callable[[], Any]
    folds: int = 5
    held_out: str = VALIDATION
    quantiles: Mapping[float, Callable[[], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.folds < 2:
            raise ConfigError(f"interval.folds must be 2 or more (got {self.folds})")
        if self.held_out not in (VALIDATION, OUT_OF_FOLD):
            raise ConfigError(f"interval.held_out must be {VALIDATION} or {OUT_OF_FOLD} (got {self.held_out!r})")

    @classmethod
    def from_config(cls, interval: DictConfig) -> Self | None:
        """Read the settings, or return None if the config declares no intervals."""
        if interval.estimator is None:
            return None
        check_estimator("interval.estimator", interval.estimator)
        quantiles = {} if interval.quantiles is None else _quantile_estimators(interval.quantiles)
        return cls(partial(instantiate, interval.estimator), interval.folds, interval.held_out, quantiles)

    def require_weighted_fit(self, weight: Column | None) -> None:
        """Raise ConfigError if the rows have weights and an estimator cannot be fitted with them."""
        require_weighted_fit("interval.estimator", self.create_estimator(), weight)
        for create_estimator in self.quantiles.values():
            require_weighted_fit("interval.quantiles.estimator", create_estimator(), weight)


def _quantile_estimators(quantiles: DictConfig) -> dict[float, Callable[[], Any]]:
    """Return by level what creates its estimator. Raises ConfigError or TargetError if a level or an argument is invalid."""
    levels = [float(level) for level in quantiles.levels]
    if not levels or levels != sorted(set(levels)) or not all(0 < level < 1 for level in levels):
        raise ConfigError(f"interval.quantiles.levels must be numbers that ascend between 0 and 1 (got {levels})")
    nodes = {level: DictConfig({**quantiles.estimator, "quantile_alpha": level}) for level in levels}
    check_estimator("interval.quantiles.estimator", nodes[levels[0]])
    return {level: partial(instantiate, node) for level, node in nodes.items()}


@dataclass(frozen=True)
class HeldOut:
    """Rows with predictions by models that were not fitted on them.

    Attributes
    ----------
    inputs
        Inputs of the models of the error, shape (rows, columns + 1).
    actual
        The target of each row.
    is_relative
        Whether the errors are those of the logarithm.
    """

    rows: Rows
    inputs: Matrix
    actual: Vector
    error: Vector
    is_relative: bool
    weight: Vector | None
    units: Units | None


def fit_interval(
    settings: IntervalSettings, fit_settings: FitSettings, model: Model, table: Table, parts: Split, fit_rows: Rows
) -> tuple[Interval, Calibration]:
    """Fit the models of the error on rows that the model was not fitted on.

    Parameters
    ----------
    settings
        The models of the error.
    fit_settings
        How the model is fitted, for the fits on folds.
    model
        The fit on the training rows.
    table, parts
        The table and its split.
    fit_rows
        The rows that the bundle is fitted on.

    Returns
    -------
    interval, calibration
        The intervals, and the calibration of the validation rows, for reports.

    Raises
    ------
    ConfigError
        If there are too few rows, or if fits on folds would learn from rows after those that they predict.
    """
    if settings.held_out == OUT_OF_FOLD and parts.units is not None and parts.units.times is not None:
        raise ConfigError(
            f"interval.held_out={OUT_OF_FOLD} needs rows without an order in time: with split=time, a fit on folds would know"
            f" the future. Use interval=scaled, or interval.held_out={VALIDATION}."
        )
    _require_rows(settings.folds, parts)
    if settings.held_out == VALIDATION:
        interval = _fit_models(settings, _predict_held_out(model, table, parts, parts.valid))
        return interval, interval.calibration
    interval = _fit_models(settings, _predict_out_of_fold(settings.folds, fit_settings, model, table, parts, fit_rows))
    return interval, interval.calibration.select(np.searchsorted(np.union1d(fit_rows, parts.valid), parts.valid))


def _require_rows(n_folds: int, parts: Split) -> None:
    rows, units = parts.valid, parts.units_of(parts.valid)
    if len(rows) < 2 * n_folds or (units is not None and units.count() < n_folds):
        of_units = "" if units is None else f" of {n_folds} {units.name}"
        n_units = "" if units is None else f" of {units.count()}"
        raise ConfigError(
            f"interval.folds={n_folds} needs at least {2 * n_folds} validation rows{of_units}"
            f" (got {len(rows)}{n_units}). Use more rows, fewer folds, or interval=none."
        )


def _predict_held_out(model: Model, table: Table, parts: Split, rows: Rows) -> HeldOut:
    matrix = table.matrix[rows][:]  # in memory, if the table is not
    inputs = np.empty((len(matrix), len(model.ensemble.features[0].names) + 1))
    for start in range(0, len(matrix), CHUNK):
        part = slice(start, start + CHUNK)
        predicted, columns = model.ensemble.predict_with_columns(matrix[part])
        inputs[part] = append_prediction(columns, predicted)
    is_relative = model.ensemble.transform is not None
    actual = table.target[rows]
    error = signed_error(inputs[:, -1], actual, is_relative=is_relative)
    return HeldOut(rows, inputs, actual, error, is_relative, table.weight_of(rows), parts.units_of(rows))


def _predict_out_of_fold(
    n_folds: int, fit_settings: FitSettings, model: Model, table: Table, parts: Split, fit_rows: Rows
) -> HeldOut:
    """Fit once for each fold, with the boosting rounds and the transform of the model, and predict the fold's rows."""
    rows = np.union1d(fit_rows, parts.valid)
    folds = [
        _predict_held_out(fit(fit_settings, table, rows[others], first=model, units=parts.units), table, parts, rows[fold])
        for others, fold in shuffled_folds(n_folds, rows, parts.units_of(rows))
    ]
    order = np.argsort(np.concatenate([fold.rows for fold in folds]))
    inputs, error = np.concatenate([fold.inputs for fold in folds]), np.concatenate([fold.error for fold in folds])
    actual = np.concatenate([fold.actual for fold in folds])
    return replace(
        folds[0],
        rows=rows,
        inputs=inputs[order],
        actual=actual[order],
        error=error[order],
        weight=table.weight_of(rows),
        units=parts.units_of(rows),
    )


def _fit_models(settings: IntervalSettings, held_out: HeldOut) -> Interval:
    """Fit the model of the size of the error, then the quantile models of the scores; all scores are out of fold."""
    size = np.abs(held_out.error)
    log_size = np.log(np.maximum(size, max(MIN_RELATIVE_ERROR * float(size.mean()), 1e-12)))
    out_of_fold, error_model = _cross_fit(settings.create_estimator, settings.folds, held_out, log_size)
    scores = held_out.error / np.exp(out_of_fold)
    fitted = [_cross_fit(create, settings.folds, held_out, scores) for create in settings.quantiles.values()]
    calibration = Calibration(scores, held_out.weight)
    estimator = _calibrate_estimated_errors(held_out, np.exp(out_of_fold))
    if fitted:
        quantiles = np.column_stack([predicted for predicted, _ in fitted])
        calibration = replace(calibration, levels=np.array(list(settings.quantiles)), quantiles=quantiles)
    models = [model for _, model in fitted]
    return Interval(calibration, error_model, models, is_relative=held_out.is_relative, error_estimator=estimator)


def _calibrate_estimated_errors(held_out: HeldOut, scale: Vector) -> ErrorEstimator:
    predicted = held_out.inputs[:, -1]
    size = error_size(predicted, scale, is_relative=held_out.is_relative)
    return fit_error_estimator(held_out.inputs, size, held_out.actual - predicted, held_out.weight)


def _cross_fit(create: Callable[[], Any], n_folds: int, held_out: HeldOut, target: Vector) -> tuple[Vector, Any]:
    """Return out-of-fold predictions of a model of the error, and the exported model of all rows."""

    def fit_rows(rows: Rows) -> Any:
        estimator = create()
        weight = sample_weight(estimator, None if held_out.weight is None else held_out.weight[rows])
        return estimator.fit(held_out.inputs[rows], target[rows], **weight)

    predicted = np.empty(len(target))
    for others, fold in shuffled_folds(n_folds, held_out.rows, held_out.units):
        predicted[fold] = fit_rows(others).predict(held_out.inputs[fold])
    return predicted, export_and_verify(fit_rows(np.arange(len(target))), held_out.inputs, TOLERANCE)
