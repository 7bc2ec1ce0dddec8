"""Fitted estimators: features and one estimator of a model, fitted on training rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle.ensemble import Ensemble
from housing.core.errors import ConfigError, TargetError
from housing.data.selected_rows import select_rows
from housing.data.split import Rows
from housing.data.table import Table
from housing.estimators.boosting import (
    BoostingFit,
    as_fitted,
    boosting_of,
    fit_boosting,
    precision_of,
    report_rounds,
)
from housing.estimators.specs import EstimatorSpec
from housing.estimators.tree_export import booster_bytes
from housing.estimators.weighted_rows import WeightedRows
from housing.features.pipeline import Features
from housing.fitting.callbacks import OnRound
from housing.fitting.member_selection import MemberSelection
from housing.schema.column import Column, Matrix, Vector
from housing.streaming.column_chunks import ColumnChunks, are_row_features, fit_in_chunks
from housing.streaming.streamed_table import StreamedTable

LIBRARY_ERRORS = ("CatBoostError", "LightGBMError")  # of libraries that may not be installed
NONE, LOG, AUTO = "none", "log", "auto"
TRANSFORMS = (NONE, LOG, AUTO)  # of the target
MAX_ROWS_AS_ARRAY = 100_000  # the columns of more training rows are computed while XGBoost reads them, if they allow that
CHUNK_ROWS = 20_000  # of which the columns are computed at once


@dataclass(frozen=True)
class FittedEstimator:
    """A fitted estimator with scikit-learn's interface."""

    estimator: Any

    def predict(self, columns: Matrix) -> Vector:
        """Return a prediction for each row, shape (rows,)."""
        return np.asarray(self.estimator.predict(as_fitted(self.estimator, columns)), dtype=np.float64).reshape(-1)

    def predict_chunks(self, columns: Iterable[NDArray[Any]]) -> Vector:
        """Return a prediction for each row of consecutive chunks, shape (rows,)."""
        return np.concatenate([self.predict(chunk) for chunk in columns])


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes
    ----------
    best_rounds
        Boosting rounds at which early stopping ended, by estimator name; their mean if there are several folds.
    rmse_by_transform
        RMSE on the validation rows of the models that `target.transform=auto` fitted, by transform; otherwise empty.
    selection
        The members with their weights.
    """

    ensemble: Ensemble
    fit_seconds: float
    selection: MemberSelection
    best_rounds: Mapping[str, int] = field(default_factory=dict)
    rmse_by_transform: Mapping[str, float] = field(default_factory=dict)

    def without_features(self) -> "Model":
        """Return what a refit takes over, without the state of the features, which grows with the rows."""
        return replace(self, ensemble=replace(self.ensemble, features=[]))

    @property
    def transform(self) -> str:
        """The transform of the target."""
        return NONE if self.ensemble.transform is None else LOG

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.ensemble.predict(matrix)


@dataclass(frozen=True)
class FittedFeatures:
    """Fitted features, with the matrices that estimators are fitted on.

    Attributes
    ----------
    index
        Position among the features of the ensemble.
    columns, target
        Training rows, shape (rows, len(features.names)) and (rows,). Columns that only boosted trees receive are float32. Those
        of many rows may be `ColumnChunks`, and the target `SelectedRows`: a slice of it is an array.
    weight
        How much each training row counts, shape (rows,), or None if all count alike.
    masked
        With an area of applicability, each training row counts twice: as it is, and with these columns missing, which are the
        local ones. So the estimator learns to predict far from all training rows as well. None: it counts once.
    validation, validation_weight
        The columns, targets and weights of the validation rows, or None.
    """

    features: Features
    index: int
    columns: NDArray[Any]
    target: Vector
    weight: Vector | None
    masked: list[int] | None
    validation: tuple[NDArray[Any], Vector] | None
    validation_weight: Vector | None

    def with_log_target(self) -> "FittedFeatures":
        """Return the matrices with the logarithm of the target. Columns that depend on targets stay in the target's unit."""
        validation = None if self.validation is None else (self.validation[0], np.log(self.validation[1][:]))
        return replace(self, target=np.log(self.target[:]), validation=validation)

    def select(self, columns: list[int] | None) -> "FittedFeatures":
        """Return the matrices with some columns only; None is all."""
        if columns is None:
            return self
        validation = None if self.validation is None else (self.validation[0][:, columns], self.validation[1])
        masked = None if self.masked is None else [index for index, column in enumerate(columns) if column in self.masked]
        return replace(self, columns=self.columns[:, columns], masked=masked, validation=validation)

    def training_rows(self, estimator: Any) -> WeightedRows:
        """Return the training rows in the precision of an estimator."""
        return WeightedRows(as_fitted(estimator, self.columns), self.target, self.weight, self.masked)


def fit_features(specs: Sequence[EstimatorSpec], index: int, table: Table, rows: Rows, validation: Rows | None) -> FittedFeatures:
    """Fit the features that estimators share."""
    features = Features(table.schema, specs[0].features, specs[0].nan_handling)
    if isinstance(table, StreamedTable):
        return _fit_features_in_chunks(features, index, table, rows, validation, table.settings.chunk_rows, table.fit)
    if len(rows) > MAX_ROWS_AS_ARRAY and are_row_features(features) and all(map(fits_on_chunks, specs)):
        return _fit_features_in_chunks(features, index, table, rows, validation, CHUNK_ROWS)
    precision = precision_of(spec.create_estimator() for spec in specs)
    target, weight = table.target[rows], table.weight_of(rows)
    columns = features.fit_transform(select_rows(table.matrix, rows), target, weight, precision)
    masked = None if features.applicability is None else features.local_columns
    if validation is None:
        return FittedFeatures(features, index, columns, target, weight, masked, None, None)
    validation_set = features.transform_in_precision(select_rows(table.matrix, validation), precision), table.target[validation]
    return FittedFeatures(features, index, columns, target, weight, masked, validation_set, table.weight_of(validation))


def fits_on_chunks(spec: EstimatorSpec) -> bool:
    """Return whether an estimator fits the same model on chunks of rows as on one array."""
    estimator = spec.create_estimator()
    if not type(estimator).__module__.startswith("xgboost."):
        return False
    from housing.estimators.xgboost_chunks import can_fit  # pylint: disable=import-outside-toplevel  # XGBoost takes seconds

    return can_fit(estimator)


def _fit_features_in_chunks(
    features: Features,
    index: int,
    table: Table,
    rows: Rows,
    validation: Rows | None,
    chunk_rows: int,
    fit: Callable[..., None] | None = None,
) -> FittedFeatures:
    """Fit features whose columns are computed while an estimator reads them, and never in memory at once."""
    target, weight = select_rows(table.target, rows), table.weight_of(rows)
    chunks = fit_in_chunks(features, select_rows(table.matrix, rows), target, weight, chunk_rows)
    columns: Any = replace(chunks, fit=fit)
    if validation is None:
        return FittedFeatures(features, index, columns, target, weight, None, None, None)
    validation_columns: Any = ColumnChunks(features, select_rows(table.matrix, validation), chunk_rows)
    validation_set = validation_columns, select_rows(table.target, validation)
    return FittedFeatures(features, index, columns, target, weight, None, validation_set, table.weight_of(validation))


def fit_estimator(
    spec: EstimatorSpec, data: FittedFeatures, rounds: int | None, n_threads: int, on_round: OnRound
) -> FittedEstimator:
    """Fit one estimator, with `rounds` boosting rounds if they are given.

    Raises
    ------
    TargetError
        If its library rejects a parameter. The rows were validated before.
    """
    estimator = spec.create_estimator()
    try:
        columns: object = data.columns
        if isinstance(columns, ColumnChunks):
            _fit_on_chunks(spec, estimator, data, columns, rounds, on_round)
            return FittedEstimator(estimator)
        if boosting_of(estimator) is not None:
            settings = _boosting_fit(spec, estimator, data, rounds, n_threads)
            fit_boosting(estimator, settings, rounds, partial(on_round, spec.name))
            return FittedEstimator(estimator)
        if spec.early_stopping_rounds:
            raise ConfigError(
                f"model.early_stopping must be null (got {spec.early_stopping_rounds}):"
                f" {type(estimator).__name__} has no boosting rounds"
            )
        rows = data.training_rows(estimator).with_copies()
        return FittedEstimator(estimator.fit(rows.columns, rows.target, **sample_weight(estimator, rows.weight)))
    except Exception as error:
        if not isinstance(error, ValueError) and type(error).__name__ not in LIBRARY_ERRORS:
            raise
        reason = " ".join(str(error).split())
        raise TargetError(f"model.estimator of {spec.name} cannot be fitted: {reason}") from error


def _fit_on_chunks(
    spec: EstimatorSpec, estimator: Any, data: FittedFeatures, columns: ColumnChunks, rounds: int | None, on_round: OnRound
) -> None:
    # pylint: disable=import-outside-toplevel  # XGBoost takes seconds to import
    from housing.estimators.round_reporter import RoundReporter
    from housing.estimators.xgboost_chunks import ChunkedRows, fit_on_chunks, require_histogram_xgboost

    require_histogram_xgboost(spec.name, estimator)
    validation = None
    if data.validation is not None and spec.early_stopping_rounds and rounds is None:
        validation = ChunkedRows(*data.validation, data.validation_weight)
    report = report_rounds(estimator, rounds, partial(on_round, spec.name))
    training = ChunkedRows(columns, data.target, data.weight)
    fit = columns.fit or fit_on_chunks
    fit(estimator, training, validation, spec.early_stopping_rounds or 0, RoundReporter(report))


def _boosting_fit(spec: EstimatorSpec, estimator: Any, data: FittedFeatures, rounds: int | None, n_threads: int) -> BoostingFit:
    training, validation = data.training_rows(estimator), None
    if data.validation is not None and spec.early_stopping_rounds and rounds is None:
        columns, target = data.validation
        validation = WeightedRows(as_fitted(estimator, columns), target, data.validation_weight)
    return BoostingFit(training, validation, spec.early_stopping_rounds or 0, n_threads)


def sample_weight(estimator: Any, weight: Vector | None) -> dict[str, Vector]:
    """Return the argument that passes weights to an estimator's `fit`, or to that of a pipeline's last step, if any."""
    if weight is None:
        return {}
    steps = getattr(estimator, "steps", None)
    return {"sample_weight" if steps is None else f"{steps[-1][0]}__sample_weight": weight}


def require_weighted_fit(name: str, estimator: Any, weight: Column | None) -> None:
    """Raise ConfigError if a table has weights and the estimator of the config key `name` cannot use them."""
    if weight is None:
        return
    from sklearn.utils.validation import has_fit_parameter  # pylint: disable=import-outside-toplevel  # takes seconds to import

    steps = getattr(estimator, "steps", None)
    regressor = estimator if steps is None else steps[-1][1]
    if not has_fit_parameter(regressor, "sample_weight"):
        raise ConfigError(
            f"{name} must accept weights, because column {weight.name} has the role weight (got {type(regressor).__name__},"
            f" whose fit has no sample_weight). Use another estimator, or declare {weight.name}: {{role: ignore}}."
        )


def best_rounds(fitted: FittedEstimator) -> int:
    """Return the number of boosting rounds with the best validation score, or all rounds without early stopping."""
    boosting = boosting_of(fitted.estimator)
    assert boosting is not None
    return boosting.best_rounds(fitted.estimator)


def export_boosters(model: Model) -> dict[int, bytes]:
    """Return the XGBoost models among the members in XGBoost's own format, by member index."""
    estimators = [member.estimator for member in model.ensemble.members]
    return {
        index: booster_bytes(fitted.estimator)
        for index, fitted in enumerate(estimators)
        if isinstance(fitted, FittedEstimator) and hasattr(fitted.estimator, "get_booster")
    }
