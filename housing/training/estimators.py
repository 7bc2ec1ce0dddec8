"""Fitted estimators: features and one estimator of a model, fitted on training rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from housing.bundle.ensemble import Ensemble
from housing.core.errors import ConfigError, TargetError
from housing.data.split import Rows
from housing.data.table import Table
from housing.features.pipeline import Features
from housing.schema.column import Column, Matrix, Vector
from housing.training.callbacks import OnRound
from housing.training.estimator_specs import EstimatorSpec


@dataclass(frozen=True)
class FittedEstimator:
    """A fitted estimator of scikit-learn or XGBoost."""

    estimator: Any

    def predict(self, columns: Matrix) -> Vector:
        """Return a prediction for each row, shape (rows,)."""
        return np.asarray(self.estimator.predict(columns), dtype=np.float64).reshape(-1)


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes
    ----------
    best_rounds
        Boosting rounds at which early stopping ended, by estimator name.
    """

    ensemble: Ensemble
    fit_seconds: float
    best_rounds: Mapping[str, int] = field(default_factory=dict)

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
        Training rows, shape (rows, len(features.names)) and (rows,).
    weight
        How much each training row counts, shape (rows,), or None if all count alike.
    validation, validation_weight
        The same of the validation rows, or None.
    """

    features: Features
    index: int
    columns: Matrix
    target: Vector
    weight: Vector | None
    validation: tuple[Matrix, Vector] | None
    validation_weight: Vector | None

    def select(self, columns: list[int] | None) -> "FittedFeatures":
        """Return the matrices with some columns only; None is all."""
        if columns is None:
            return self
        validation = None if self.validation is None else (self.validation[0][:, columns], self.validation[1])
        return replace(self, columns=self.columns[:, columns], validation=validation)


def fit_features(spec: EstimatorSpec, index: int, table: Table, rows: Rows, validation: Rows | None) -> FittedFeatures:
    """Fit the features of an estimator.

    With an area of applicability, each training row appears twice: as it is, and with its local columns missing. So the estimator
    learns to predict far from all training rows as well.
    """
    features = Features(table.schema, spec.features, spec.nan_handling)
    target, weight = table.target[rows], table.weight_of(rows)
    columns = features.fit_transform(table.matrix[rows], target, weight)
    if features.applicability is not None:
        columns, target = np.vstack([columns, features.mask_local(columns)]), np.concatenate([target, target])
        weight = None if weight is None else np.concatenate([weight, weight])
    if validation is None:
        return FittedFeatures(features, index, columns, target, weight, None, None)
    validation_set = features.transform(table.matrix[validation]), table.target[validation]
    return FittedFeatures(features, index, columns, target, weight, validation_set, table.weight_of(validation))


def fit_estimator(spec: EstimatorSpec, data: FittedFeatures, rounds: int | None, on_round: OnRound) -> FittedEstimator:
    """Fit one estimator, with `rounds` boosting rounds if they are given.

    Raises
    ------
    TargetError
        If its library rejects a parameter. The rows were validated before.
    """
    estimator = spec.create_estimator()
    try:
        if type(estimator).__module__.startswith("xgboost"):
            return FittedEstimator(_fit_boosting(spec, estimator, data, rounds, on_round))
        if spec.early_stopping_rounds:
            raise ConfigError(
                f"model.early_stopping must be null (got {spec.early_stopping_rounds}):"
                f" {type(estimator).__name__} has no boosting rounds"
            )
        return FittedEstimator(estimator.fit(data.columns, data.target, **sample_weight(data.weight)))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise TargetError(f"model.estimator of {spec.name} cannot be fitted: {reason}") from error


def sample_weight(weight: Vector | None) -> dict[str, Vector]:
    """Return the argument that passes weights to an estimator's `fit`; nothing without weights."""
    return {} if weight is None else {"sample_weight": weight}


def require_weighted_fit(name: str, estimator: Any, weight: Column | None) -> None:
    """Raise ConfigError if a table has weights and the estimator of the config key `name` cannot use them."""
    if weight is None:
        return
    from sklearn.utils.validation import has_fit_parameter  # pylint: disable=import-outside-toplevel  # takes seconds to import

    if not has_fit_parameter(estimator, "sample_weight"):
        raise ConfigError(
            f"{name} must accept weights, because column {weight.name} has the role weight (got {type(estimator).__name__},"
            f" whose fit has no sample_weight). Use another estimator, or declare {weight.name}: {{role: ignore}}."
        )


def _fit_boosting(spec: EstimatorSpec, estimator: Any, data: FittedFeatures, rounds: int | None, on_round: OnRound) -> Any:
    from housing.training.round_reporter import RoundReporter  # pylint: disable=import-outside-toplevel  # imports XGBoost

    if rounds is not None:
        estimator.set_params(n_estimators=rounds)
    n_rounds = estimator.n_estimators
    reporter = RoundReporter(lambda done, score: on_round(spec.name, done, n_rounds, score))
    estimator.set_params(callbacks=[reporter])
    validation = data.validation if spec.early_stopping_rounds and rounds is None else None
    if validation is not None:
        estimator.set_params(early_stopping_rounds=spec.early_stopping_rounds)
    validation_weight = None if validation is None or data.validation_weight is None else [data.validation_weight]
    estimator.fit(
        data.columns,
        data.target,
        sample_weight=data.weight,
        eval_set=None if validation is None else [validation],
        sample_weight_eval_set=validation_weight,
        verbose=False,
    )
    estimator.set_params(callbacks=None)  # a stored estimator holds no reference to the reporter
    return estimator


def best_rounds(fitted: FittedEstimator) -> int:
    """Return the number of boosting rounds with the best validation score, or all rounds without early stopping."""
    estimator = fitted.estimator
    return int(getattr(estimator, "best_iteration", estimator.n_estimators - 1)) + 1


def export_boosters(model: Model) -> dict[int, bytes]:
    """Return the XGBoost models among the members in XGBoost's own format, by member index."""
    estimators = [member.estimator for member in model.ensemble.members]
    return {
        index: _booster_bytes(fitted.estimator)
        for index, fitted in enumerate(estimators)
        if isinstance(fitted, FittedEstimator) and hasattr(fitted.estimator, "get_booster")
    }


def _booster_bytes(estimator: Any) -> bytes:
    booster = estimator.get_booster()
    best_iteration = getattr(estimator, "best_iteration", None)  # an attribute only after early stopping
    return bytes((booster if best_iteration is None else booster[: best_iteration + 1]).save_raw("ubj"))
