"""TODO docstring."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.bundle.ensemble import Ensemble
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Rows
from housing.data.table import Table
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.training.callbacks import OnRound
from housing.training.estimator_specs import EstimatorSpec

HOLDOUT_EVERY = 10  # of so many rows that are fitted on, one is kept back for early stopping where there are no others


@dataclass(frozen=True)
class FittedEstimator:
    """An estimator as its library made it."""

    estimator: Any

    def predict(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of its columns."""
        return np.asarray(self.estimator.predict(columns), dtype=np.float64).reshape(-1)


@dataclass(frozen=True)
class Model:
    """A fitted model, the seconds that took, and the rounds at which early stopping ended, by member."""

    ensemble: Ensemble
    fit_seconds: float
    best_rounds: dict[str, int] = field(default_factory=dict)

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.ensemble.predict(matrix)


@dataclass(frozen=True)
class _FittedFeatures:
    """Features after fitting, with what estimators that see them are fitted on."""

    features: Features
    index: int
    columns: Matrix
    target: Vector
    validation: tuple[Matrix, Vector] | None

    def select(self, columns: list[int] | None) -> "_FittedFeatures":
        """Give the same with some of the columns alone."""
        if columns is None:
            return self
        validation = None if self.validation is None else (self.validation[0][:, columns], self.validation[1])
        return replace(self, columns=self.columns[:, columns], validation=validation)


def _fit_features(spec: EstimatorSpec, index: int, table: Table, rows: Rows, validation: Rows | None) -> _FittedFeatures:
    """Fit features. Rows of the table are shown to estimators twice where features have a reach: as they are, and as if
    they were far from all others, so that estimators know what to do without what hangs on near rows.
    """
    features_config: Any = OmegaConf.to_container(spec.features, resolve=True)
    features = Features(table.schema, features_config, spec.nan_handling)
    columns, target = features.fit_transform(table.matrix[rows], table.target[rows]), table.target[rows]
    if features.applicability is not None:
        columns, target = np.vstack([columns, features.mask_local(columns)]), np.concatenate([target, target])
    others = None if validation is None else (features.transform(table.matrix[validation]), table.target[validation])
    return _FittedFeatures(features, index, columns, target, others)


def _fit_member(spec: EstimatorSpec, fitted_features: _FittedFeatures, rounds: int | None, on_round: OnRound) -> Any:
    """Fit one estimator. Raises ConfigError where its library refuses one of its parameters; rows were checked before."""
    try:
        return _fit_estimator(spec, instantiate(spec.estimator), fitted_features, rounds, on_round)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"model.estimator of {spec.name} cannot be fitted: {reason}") from error


def _fit_estimator(
    spec: EstimatorSpec, estimator: Any, fitted_features: _FittedFeatures, rounds: int | None, on_round: OnRound
) -> Any:
    if type(estimator).__module__.startswith("xgboost"):
        return _fit_boosting(spec, estimator, fitted_features, rounds, on_round)
    if spec.early_stopping_rounds:
        raise ConfigError(
            f"model.early_stopping is {spec.early_stopping_rounds}, and {type(estimator).__name__} has no rounds; allowed: null"
        )
    return estimator.fit(fitted_features.columns, fitted_features.target)


def _fit_boosting(
    spec: EstimatorSpec, estimator: Any, fitted_features: _FittedFeatures, rounds: int | None, on_round: OnRound
) -> Any:
    from housing.training.callbacks import round_callbacks  # pylint: disable=import-outside-toplevel  # XGBoost takes seconds to import

    if rounds is not None:
        estimator.set_params(n_estimators=rounds)
    validation = fitted_features.validation if spec.early_stopping_rounds and rounds is None else None
    estimator.set_params(callbacks=round_callbacks(spec.name, estimator.n_estimators, on_round))
    if validation is not None:
        estimator.set_params(early_stopping_rounds=spec.early_stopping_rounds)
    estimator.fit(
        fitted_features.columns, fitted_features.target, eval_set=None if validation is None else [validation], verbose=False
    )
    estimator.set_params(callbacks=None)  # a fitted estimator tells nobody
    return estimator


def _best_rounds(estimator: Any) -> int:
    return int(getattr(estimator, "best_iteration", estimator.n_estimators - 1)) + 1


def _fit_applicability(applicability_config: DictConfig | None, schema: Schema, matrix: Matrix) -> ApplicabilityDomain | None:
    reach = ApplicabilityDomain.from_config(schema, applicability_config)
    return None if reach is None else reach.fit(matrix)
