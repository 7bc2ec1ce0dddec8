"""Fitting of a model: its features, its estimators and early stopping."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle.ensemble import Ensemble, Member
from housing.bundle.log_transform import LogTransform
from housing.core.errors import ConfigError
from housing.core.validators import AT_LEAST_ONE, BOOLEAN, NON_NEGATIVE, choice, optional
from housing.data.split import Rows
from housing.data.table import Table, weight_column
from housing.data.units import HELD_OUT_SHARE, Units
from housing.estimators.boosting import precision_of
from housing.estimators.specs import EstimatorSpec, estimator_specs
from housing.features.applicability import ApplicabilityDomain
from housing.schema.column import Vector
from housing.training.callbacks import OnRound, no_op
from housing.training.estimators import (
    AUTO,
    LOG,
    NONE,
    TRANSFORMS,
    FittedFeatures,
    Model,
    best_rounds,
    fit_estimator,
    fit_features,
    require_weighted_fit,
)
from housing.training.feature_cache import FeatureCache
from housing.training.member_selection import MemberSelection, select_members
from housing.training.metrics import score
from housing.training.teacher import Teacher


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes
    ----------
    applicability
        Parameters of the area of applicability that blends estimators of different regions, or None.
    n_threads
        0 is every core.
    transform
        Of the target: "none", "log", or "auto" for the one with the lower RMSE on held-out rows.
    min_skewness
        With "auto", the logarithm is fitted only if the skewness of the target is at least this; None: always.
    select_members
        Whether to keep only the estimators, with weights, whose weighted mean has the lowest RMSE on held-out rows.
    max_relative_rmse
        With `select_members`, an estimator is left out if its own RMSE is above this multiple of the lowest; None: never.
    teacher
        The model whose predictions are fitted instead of the targets of the training rows, or None.
    """

    specs: tuple[EstimatorSpec, ...]
    applicability: Mapping[str, Any] | None = None
    n_threads: int = 0
    transform: str = NONE
    min_skewness: float | None = None
    select_members: bool = False
    max_relative_rmse: float | None = None
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.select_members and self.applicability is not None:
            raise ConfigError(
                "model.select_members=true needs model.applicability=null: members of different regions are not compared."
            )

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings from the config of a run."""
        node = cfg.model.get("applicability")
        applicability: Any = None if node is None else OmegaConf.to_container(node, resolve=True)
        choice(*TRANSFORMS).validate("target.transform", cfg.target.transform)
        min_skewness = cfg.target.min_skewness
        optional(NON_NEGATIVE).validate("target.min_skewness", min_skewness)
        selects = cfg.model.get("select_members", False)
        BOOLEAN.validate("model.select_members", selects)
        limit = cfg.model.get("max_relative_rmse")
        optional(AT_LEAST_ONE).validate("model.max_relative_rmse", limit)
        return cls(
            specs=tuple(estimator_specs(cfg)),
            applicability=applicability,
            n_threads=cfg.n_threads,
            transform=cfg.target.transform,
            min_skewness=min_skewness,
            select_members=selects,
            max_relative_rmse=limit,
            teacher=Teacher.from_config(cfg.model),
        )

    @property
    def uses_early_stopping(self) -> bool:
        """Whether the number of boosting rounds depends on validation rows."""
        return any(spec.early_stopping_rounds for spec in self.specs)

    @property
    def needs_validation(self) -> bool:
        """Whether a fit depends on validation rows: for its boosting rounds, its members, or the transform of the target."""
        return self.uses_early_stopping or self.select_members or self.transform != NONE


def fit(
    settings: FitSettings,
    table: Table,
    rows: Rows,
    validation: Rows | None = None,
    first: Model | None = None,
    on_round: OnRound = no_op,
    units: Units | None = None,
    cache: FeatureCache | None = None,
) -> Model:
    """Fit a model on some rows of a table.

    Early stopping, the selection of members and the transform of the target use the `validation` rows. Without them, every tenth
    training row is held out, or whole `units` if there are any. If there is a `first` fit, its boosting rounds, its members with
    their weights and its transform are taken, and no row is held out. With a teacher, the targets of training rows are those that
    it teaches; validation rows keep their own. Features that the `cache` has are not fitted again. With a teacher it is not used,
    because it keeps the targets too.

    Raises
    ------
    ConfigError
        If a target is not above 0, and its logarithm is to be fitted.
    """
    start = time.perf_counter()
    for spec in settings.specs:
        require_weighted_fit(f"model.estimator of {spec.name}", spec.create_estimator(), weight_column(table.schema))
    if validation is None and first is None and settings.needs_validation:
        held_out = np.arange(len(rows)) % HELD_OUT_SHARE == 0 if units is None else units.hold_out(rows)
        validation, rows = rows[held_out], rows[~held_out]
    if settings.teacher is not None:
        table, cache = settings.teacher.teach(table, rows, units), None
    known = rows if validation is None else np.concatenate([rows, validation])
    settings = replace(settings, specs=_specs_to_fit(settings.specs, len(known), first))
    transforms = transforms_to_fit(settings if first is None else replace(settings, transform=first.transform), table, known)
    with threadpool_limits(settings.n_threads or None):
        data = _prepare(settings, table, rows, validation, cache)
        models = [_fit_model(settings, data, transform, first, on_round) for transform in transforms]
    rmse = {} if settings.transform != AUTO or validation is None else _rmse_by_transform(models, table, validation)
    best = min(models, key=lambda model: rmse.get(model.transform, 0.0))
    return replace(best, fit_seconds=time.perf_counter() - start, rmse_by_transform=rmse)


def _specs_to_fit(specs: tuple[EstimatorSpec, ...], n_rows: int, first: Model | None) -> tuple[EstimatorSpec, ...]:
    """Return the estimators that suit the number of rows, or those of the `first` fit, with their weights."""
    if first is None:
        return tuple(spec for spec in specs if spec.max_rows is None or n_rows <= spec.max_rows)
    weights = first.selection.weights
    return tuple(replace(spec, weight=weights[spec.name]) for spec in specs if spec.name in weights)


def transforms_to_fit(settings: FitSettings, table: Table, rows: Rows) -> list[str]:
    """Return the transforms of the target to fit. Raises ConfigError if a logarithm is required and does not exist."""
    too_low = rows[table.target[rows] <= 0]
    if settings.transform == LOG and too_low.size:
        row, name = int(too_low.min()), table.schema.target.name
        where = name if settings.teacher is None else f"{name}, also in those that the teacher predicts"
        raise ConfigError(
            f"target.transform=log needs values above 0 in {where} (got {table.target[row]:g} in row {row} of the rows with a"
            f" {name}, counted from 0; {len(too_low):,} rows in all). Use target.transform=none, or remove these rows."
        )
    if settings.transform != AUTO:
        return [settings.transform]
    is_skewed = settings.min_skewness is None or _skewness(table.target[rows]) >= settings.min_skewness
    return [NONE, LOG] if is_skewed and not too_low.size else [NONE]


def _skewness(values: Vector) -> float:
    """Return the third standardised moment, or 0 for equal values."""
    deviations = values - values.mean()
    deviation = float(np.sqrt(np.mean(deviations**2)))
    return 0.0 if deviation == 0 else float(np.mean((deviations / deviation) ** 3))


@dataclass(frozen=True)
class _FitData:
    """The data that fits of a target and of its logarithm share.

    Attributes
    ----------
    features
        Fitted features by key. Estimators that can share features do.
    """

    table: Table
    validation: Rows | None
    features: Mapping[str, FittedFeatures]
    applicability: ApplicabilityDomain | None


def _prepare(settings: FitSettings, table: Table, rows: Rows, validation: Rows | None, cache: FeatureCache | None) -> _FitData:
    """Fit the features and the area of applicability, which do not depend on the transform of the target."""
    features: dict[str, FittedFeatures] = {}
    for spec in settings.specs:
        if spec.features_key not in features:
            shared = [other for other in settings.specs if other.features_key == spec.features_key]
            features[spec.features_key] = _fit_or_reuse_features(shared, len(features), table, rows, validation, cache)
    applicability = ApplicabilityDomain.from_config(table.schema, settings.applicability)
    if applicability is not None:
        applicability.fit(table.matrix[rows])
    return _FitData(table, validation, features, applicability)


def _fit_or_reuse_features(
    specs: Sequence[EstimatorSpec], index: int, table: Table, rows: Rows, validation: Rows | None, cache: FeatureCache | None
) -> FittedFeatures:
    fit_anew = partial(fit_features, specs, index, table, rows, validation)
    if cache is None:
        return fit_anew()
    key = f"{specs[0].features_key} {precision_of(spec.create_estimator() for spec in specs).__name__}"
    return replace(cache.get_or_fit(key, rows, validation, fit_anew), index=index)


def _fit_model(settings: FitSettings, data: _FitData, transform: str, first: Model | None, on_round: OnRound) -> Model:
    """Fit the estimators on the target, or on its logarithm."""
    members, rounds_by_name, held_out = [], {}, []
    selects = settings.select_members and first is None
    rounds: Mapping[str, int] = {} if first is None else first.best_rounds
    for spec in settings.specs:
        fitted = data.features[spec.features_key]
        columns = None if spec.visible_blocks is None else fitted.features.visible_columns(spec.visible_blocks)
        rows = (fitted.with_log_target() if transform == LOG else fitted).select(columns)
        estimator = fit_estimator(spec, rows, rounds.get(spec.name), settings.n_threads, on_round)
        if spec.early_stopping_rounds:
            rounds_by_name[spec.name] = best_rounds(estimator)
        members.append(Member(estimator, fitted.index, spec.region, columns, spec.weight))
        if selects and rows.validation is not None:
            held_out.append(estimator.predict(rows.validation[0]))
    pipelines = [fitted.features for fitted in data.features.values()]
    ensemble = Ensemble(data.table.schema, pipelines, members, data.applicability)
    selection = MemberSelection({spec.name: spec.weight for spec in settings.specs})
    if held_out and data.validation is not None:
        scored = data.table.take(data.validation)
        ensemble, selection = select_members(
            ensemble, list(selection.weights), np.stack(held_out), scored, settings.max_relative_rmse, log_target=transform == LOG
        )
    if transform == LOG:
        ensemble.transform = _fit_transform(ensemble, data) if first is None else first.ensemble.transform
    return Model(ensemble, 0.0, selection, rounds_by_name)


def _fit_transform(ensemble: Ensemble, data: _FitData) -> LogTransform:
    """Return the transform whose predictions are unbiased on the validation rows."""
    assert data.validation is not None  # a fit of logarithms without a first fit holds rows out
    scored = data.table.take(data.validation)
    return LogTransform.fit(ensemble.predict_untransformed(scored.matrix), scored.target, scored.weight)


def _rmse_by_transform(models: list[Model], table: Table, validation: Rows) -> dict[str, float]:
    """Return the RMSE of models on the validation rows, in the target's unit."""
    scored = table.take(validation)
    return {model.transform: score(model.predict(scored.matrix), scored.target, scored.weight)["rmse"] for model in models}
