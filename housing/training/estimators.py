"""TODO docstring."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.bundle.ensemble import Ensemble
from housing.core.config import make
from housing.core.errors import ConfigError
from housing.data.split import Rows
from housing.data.table import Table
from housing.features.applicability import Reach
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.training.callbacks import AfterRound
from housing.training.estimator_specs import Asked

WATCHED = 10  # of so many rows that are fitted on, one is kept back for early stopping where there are no others


@dataclass(frozen=True)
class Fitted:
    """An estimator as its library made it."""

    estimator: Any

    def estimate(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of its columns."""
        return np.asarray(self.estimator.predict(columns), dtype=np.float64).reshape(-1)


@dataclass(frozen=True)
class Model:
    """A fitted model, the seconds that took, and the rounds at which early stopping ended, by member."""

    ensemble: Ensemble
    seconds: float
    rounds: dict[str, int] = field(default_factory=dict)

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.ensemble.predict(matrix)


@dataclass(frozen=True)
class _Learned:
    """Features after fitting, with what estimators that see them are fitted on."""

    features: Features
    place: int
    columns: Matrix
    target: Vector
    watched: tuple[Matrix, Vector] | None

    def only(self, columns: list[int] | None) -> "_Learned":
        """Give the same with some of the columns alone."""
        if columns is None:
            return self
        watched = None if self.watched is None else (self.watched[0][:, columns], self.watched[1])
        return replace(self, columns=self.columns[:, columns], watched=watched)


def _learn(one: Asked, place: int, table: Table, rows: Rows, watched: Rows | None) -> _Learned:
    """Fit features. Rows of the table are shown to estimators twice where features have a reach: as they are, and as if
    they were far from all others, so that estimators know what to do without what hangs on near rows.
    """
    declared: Any = OmegaConf.to_container(one.features, resolve=True)
    features = Features(table.schema, declared, one.missing)
    columns, target = features.fit_transform(table.matrix[rows], table.target[rows]), table.target[rows]
    if features.reach is not None:
        columns, target = np.vstack([columns, features.away(columns)]), np.concatenate([target, target])
    others = None if watched is None else (features.transform(table.matrix[watched]), table.target[watched])
    return _Learned(features, place, columns, target, others)


def _fit_one(one: Asked, learned: _Learned, rounds: int | None, after_round: AfterRound) -> Any:
    """Fit one estimator. Raises ConfigError where its library refuses one of its parameters; rows were checked before."""
    try:
        return _fit_estimator(one, make(one.estimator), learned, rounds, after_round)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"model.estimator of {one.name} cannot be fitted: {reason}") from error


def _fit_estimator(one: Asked, estimator: Any, learned: _Learned, rounds: int | None, after_round: AfterRound) -> Any:
    if type(estimator).__module__.startswith("xgboost"):
        return _fit_rounds(one, estimator, learned, rounds, after_round)
    if one.stopping:
        raise ConfigError(f"model.early_stopping is {one.stopping}, and {type(estimator).__name__} has no rounds; allowed: null")
    return estimator.fit(learned.columns, learned.target)


def _fit_rounds(one: Asked, estimator: Any, learned: _Learned, rounds: int | None, after_round: AfterRound) -> Any:
    from housing.training.callbacks import told  # pylint: disable=import-outside-toplevel  # XGBoost takes seconds to import

    if rounds is not None:
        estimator.set_params(n_estimators=rounds)
    watched = learned.watched if one.stopping and rounds is None else None
    estimator.set_params(callbacks=told(one.name, estimator.n_estimators, after_round))
    if watched is not None:
        estimator.set_params(early_stopping_rounds=one.stopping)
    estimator.fit(learned.columns, learned.target, eval_set=None if watched is None else [watched], verbose=False)
    estimator.set_params(callbacks=None)  # a fitted estimator tells nobody
    return estimator


def _rounds(estimator: Any) -> int:
    return int(getattr(estimator, "best_iteration", estimator.n_estimators - 1)) + 1


def _reach(declared: DictConfig | None, schema: Schema, matrix: Matrix) -> Reach | None:
    reach = Reach.declared(schema, declared)
    return None if reach is None else reach.fit(matrix)
