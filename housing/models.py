"""Config to fitted model: its members, their features, early stopping, cross-validation."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.config import make
from housing.data import Table
from housing.ensemble import EVERYWHERE, Ensemble, Member
from housing.errors import ConfigError
from housing.features import Features
from housing.features.reach import Reach
from housing.schema import Matrix, Schema, Vector
from housing.scores import score
from housing.split import Rows, Split

WATCHED = 10  # of so many rows that are fitted on, one is kept back for early stopping where there are no others

AfterFold = Callable[[int, int, dict[str, float]], None]  # number of the fold from 1, folds, scores so far
AfterRound = Callable[[str, int, int, float | None], None]  # name of the member, rounds so far, all rounds, score if watched


def silent(*_: Any) -> None:
    """Tell nobody."""


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
class Asked:
    """One estimator that a config asks for."""

    name: str
    estimator: DictConfig
    features: DictConfig
    missing: str
    where: str
    sees: list[str] | None  # blocks of the features, by label; all where there is none
    stopping: int | None


def asked(cfg: DictConfig) -> list[Asked]:
    """Give the estimators of a config: its model, or each member of it as often as `copies` says, with seeds of their own."""
    if "members" not in cfg.model:
        return list(_copies(cfg.model.name, {"model": cfg.model}, cfg))
    return [one for name, member in cfg.model.members.items() for one in _copies(str(name), member, cfg)]


def _copies(name: str, member: Mapping[str, Any], cfg: DictConfig) -> Iterator[Asked]:
    copies, model = member.get("copies", 1), member["model"]
    if not isinstance(copies, int) or copies < 1:
        raise ConfigError(f"member {name}: copies is {copies}; allowed: whole numbers above 0")
    if copies > 1 and model.estimator.get("random_state") is None:
        raise ConfigError(f"member {name} has {copies} copies and its estimator no random_state to differ in; allowed: copies=1")
    for copy in range(copies):
        estimator: Any = OmegaConf.to_container(model.estimator, resolve=True)
        if copy:
            estimator["random_state"] += copy
        yield Asked(
            name if copies == 1 else f"{name} {copy}",
            OmegaConf.create(estimator),
            member.get("features") or cfg.features,
            model.missing,
            member.get("where", EVERYWHERE),
            member.get("sees"),
            model.get("early_stopping"),
        )


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


def fit(
    cfg: DictConfig,
    table: Table,
    rows: Rows,
    watched: Rows | None = None,
    rounds: Mapping[str, int] | None = None,
    after_round: AfterRound = silent,
) -> Model:
    """Fit the model of a config on some rows of a table.

    Early stopping looks at the `watched` rows; without them at a tenth of the rows that are then not fitted on; not at all
    where `rounds` says how many there are.
    """
    start = time.perf_counter()
    wanted = asked(cfg)
    if watched is None and rounds is None and any(one.stopping for one in wanted):
        watched, rows = rows[::WATCHED], np.delete(rows, np.s_[::WATCHED])
    learned: dict[str, _Learned] = {}
    members, ended = [], {}
    with threadpool_limits(cfg.threads or None):
        for one in wanted:
            seen = f"{OmegaConf.to_container(one.features, resolve=True)} {one.missing}"
            if seen not in learned:
                learned[seen] = _learn(one, len(learned), table, rows, watched)
            columns = None if one.sees is None else learned[seen].features.seen(one.sees)
            estimator = _fit_one(one, learned[seen].only(columns), (rounds or {}).get(one.name), after_round)
            if one.stopping:
                ended[one.name] = _rounds(estimator)
            members.append(Member(Fitted(estimator), learned[seen].place, one.where, columns))
        reach = _reach(cfg.model.get("reach"), table.schema, table.matrix[rows])
    ensemble = Ensemble(table.schema, [each.features for each in learned.values()], members, reach)
    return Model(ensemble, time.perf_counter() - start, ended)


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
    from housing.rounds import told  # pylint: disable=import-outside-toplevel  # XGBoost takes seconds to import

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


def cross_validate(cfg: DictConfig, table: Table, parts: Split, after_fold: AfterFold = silent) -> dict[str, float]:
    """Score predictions for all rows but the test rows, each made by a model that was fitted on the other folds.

    `after_fold` is told the scores over the folds so far, and may raise to give up.
    """
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    groups = None if cfg.evaluation.groups is None else make(cfg.evaluation.groups, table)[rows]
    try:
        folds = list(make(cfg.evaluation.folds).split(rows, groups=groups))
    except ValueError as error:  # more folds than there are rows or groups
        raise ConfigError(f"evaluation={cfg.evaluation.name}: {error}") from error
    predicted, actual = np.full(len(rows), np.nan), table.target[rows]
    for number, (others, fold) in enumerate(folds, start=1):
        predicted[fold] = fit(cfg, table, rows[others]).predict(table.matrix[rows[fold]])
        done = ~np.isnan(predicted)
        after_fold(number, len(folds), score(predicted[done], actual[done]))
    return score(predicted, actual)
