"""Fitting of prediction intervals: models of the error, and scores of held-out rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from housing.bundle.conformal import Calibration, Interval, append_prediction, signed_error
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.data.units import Units
from housing.estimators.arguments import check_estimator
from housing.estimators.onnx_export import export_and_verify
from housing.schema.column import Column, Matrix, Vector
from housing.training.estimators import Model, require_weighted_fit, sample_weight
from housing.training.fitting import FitSettings, fit

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
    levels
        Levels of the quantile models, ascending. Empty: all scores have the same distribution.
    create_quantile_estimator
        Returns a new estimator of the quantile of the score at a level.
    """

    create_estimator: Callable[[], Any]
    folds: int = 5
    held_out: str = VALIDATION
    levels: tuple[float, ...] = ()
    create_quantile_estimator: Callable[[float], Any] | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.folds < 2:
            raise ConfigError(f"interval.folds must be 2 or more (got {self.folds})")
        if self.held_out not in (VALIDATION, OUT_OF_FOLD):
            raise ConfigError(f"interval.held_out must be {VALIDATION} or {OUT_OF_FOLD} (got {self.held_out!r})")
        if list(self.levels) != sorted(set(self.levels)) or not all(0 < level < 1 for level in self.levels):
            raise ConfigError(f"interval.quantiles.levels must ascend between 0 and 1 (got {list(self.levels)})")

    @classmethod
    def from_config(cls, interval: DictConfig) -> Self | None:
        """Read the settings, or return None if the config declares no intervals."""
        if interval.estimator is None:
            return None
        check_estimator("interval.estimator", interval.estimator)
        estimator, quantiles = partial(instantiate, interval.estimator), interval.quantiles
        if quantiles is None:
            return cls(estimator, interval.folds, interval.held_out)
        create = partial(_create_quantile_estimator, quantiles.estimator)
        return cls(estimator, interval.folds, interval.held_out, tuple(map(float, quantiles.levels)), create)

    def require_weighted_fit(self, weight: Column | None) -> None:
        """Raise ConfigError if the rows have weights and an estimator cannot be fitted with them."""
        require_weighted_fit("interval.estimator", self.create_estimator(), weight)
        for level in self.levels[:1]:
            assert self.create_quantile_estimator is not None
            require_weighted_fit("interval.quantiles.estimator", self.create_quantile_estimator(level), weight)


def _create_quantile_estimator(node: DictConfig, level: float) -> Any:
    return instantiate(DictConfig({**node, "quantile_alpha": level}))


@dataclass(frozen=True)
class HeldOut:
    """Rows with predictions by models that were not fitted on them.

    Attributes
    ----------
    inputs
        Inputs of the models of the error, shape (rows, columns + 1).
    """

    rows: Rows
    inputs: Matrix
    error: Vector
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
        If there are too few rows.
    """
    validation = _predict_held_out(model, table, parts.valid, parts.units)
    _require_rows(settings.folds, validation.rows, validation.units)
    held_out = validation
    if settings.held_out == OUT_OF_FOLD:
        held_out = _predict_out_of_fold(settings, fit_settings, model, table, parts, fit_rows)
    calibration, interval = _calibrate(settings, held_out, is_relative=model.ensemble.transform is not None)
    if held_out is validation:
        return interval, calibration
    position = np.searchsorted(held_out.rows, parts.valid)
    return interval, calibration.select(position)


def _require_rows(n_folds: int, rows: Rows, units: Units | None) -> None:
    if len(rows) < 2 * n_folds or (units is not None and units.count() < n_folds):
        of_units = "" if units is None else f" of {n_folds} {units.name}"
        n_units = "" if units is None else f" of {units.count()}"
        raise ConfigError(
            f"interval.folds={n_folds} needs at least {2 * n_folds} validation rows{of_units}"
            f" (got {len(rows)}{n_units}). Use more rows, fewer folds, or interval=none."
        )


def _predict_held_out(model: Model, table: Table, rows: Rows, units: Units | None) -> HeldOut:
    predicted, columns = model.ensemble.predict_with_columns(table.matrix[rows])
    error = signed_error(predicted, table.target[rows], is_relative=model.ensemble.transform is not None)
    return HeldOut(
        rows, append_prediction(columns, predicted), error, table.weight_of(rows), None if units is None else units.take(rows)
    )


def _predict_out_of_fold(
    settings: IntervalSettings, fit_settings: FitSettings, model: Model, table: Table, parts: Split, fit_rows: Rows
) -> HeldOut:
    """Fit once for each fold, with as many boosting rounds as the model, and predict its rows."""
    rows = np.union1d(fit_rows, parts.valid)
    folds = []
    units = None if parts.units is None else parts.units.take(rows)
    for others, fold in _folds(settings.folds, rows, units):
        fitted = fit(fit_settings, table, rows[others], first=model, units=parts.units)
        folds.append(_predict_held_out(fitted, table, rows[fold], None))
    order = np.argsort(np.concatenate([fold.rows for fold in folds]))
    inputs, error = np.concatenate([fold.inputs for fold in folds]), np.concatenate([fold.error for fold in folds])
    return HeldOut(rows, inputs[order], error[order], table.weight_of(rows), units)


def _calibrate(settings: IntervalSettings, held_out: HeldOut, *, is_relative: bool) -> tuple[Calibration, Interval]:
    """Fit the model of the size of the error, then the quantile models of the scores; all scores are out of fold."""
    size = np.abs(held_out.error)
    log_size = np.log(np.maximum(size, max(MIN_RELATIVE_ERROR * float(size.mean()), 1e-12)))
    out_of_fold, error_model = _cross_fit(settings.create_estimator, settings.folds, held_out, log_size)
    scores = held_out.error / np.exp(out_of_fold)
    quantiles, quantile_models = np.empty((len(scores) if settings.levels else 0, len(settings.levels))), []
    for index, level in enumerate(settings.levels):
        assert settings.create_quantile_estimator is not None
        create = partial(settings.create_quantile_estimator, level)
        quantiles[:, index], quantile_model = _cross_fit(create, settings.folds, held_out, scores)
        quantile_models.append(quantile_model)
    calibration = Calibration(scores, held_out.weight, np.array(settings.levels), quantiles)
    return calibration, Interval(calibration, error_model, quantile_models, is_relative=is_relative)


def _cross_fit(create: Callable[[], Any], n_folds: int, held_out: HeldOut, target: Vector) -> tuple[Vector, Any]:
    """Return out-of-fold predictions of a model of the error, and the exported model of all rows."""

    def fit_rows(rows: Rows) -> Any:
        estimator = create()
        weight = sample_weight(estimator, None if held_out.weight is None else held_out.weight[rows])
        return estimator.fit(held_out.inputs[rows], target[rows], **weight)

    predicted = np.empty(len(target))
    for others, fold in _folds(n_folds, held_out.rows, held_out.units):
        predicted[fold] = fit_rows(others).predict(held_out.inputs[fold])
    return predicted, export_and_verify(fit_rows(np.arange(len(target))), held_out.inputs, TOLERANCE)


def _folds(n_folds: int, rows: Rows, units: Units | None) -> Iterable[tuple[Rows, Rows]]:
    """Return folds that keep units together: a row of a customer says too much about the errors of the others."""
    from sklearn.model_selection import GroupKFold, KFold  # pylint: disable=import-outside-toplevel  # takes seconds to import

    if units is None:
        return KFold(n_folds, shuffle=True, random_state=0).split(rows)
    return GroupKFold(n_folds, shuffle=True, random_state=0).split(rows, groups=units.of_row)
