"""Fitting of a model: its features, its estimators and early stopping."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle.ensemble import Ensemble, Member
from housing.bundle.log_transform import LogTransform
from housing.core.errors import ConfigError
from housing.core.memory import trim_memory
from housing.core.validators import AT_LEAST_ONE, BOOLEAN, NON_NEGATIVE, choice, integer, optional
from housing.data.split import Rows
from housing.data.table import Table, weight_column
from housing.data.units import HELD_OUT_SHARE, Units
from housing.estimators.boosting import precision_of
from housing.estimators.specs import EstimatorSpec, estimator_specs
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.fitting.callbacks import OnRound, no_op
from housing.fitting.estimators import (
    AUTO,
    LOG,
    NONE,
    TRANSFORMS,
    FittedEstimator,
    FittedFeatures,
    Model,
    best_rounds,
    fit_estimator,
    fit_features,
    fits_on_chunks,
    require_weighted_fit,
)
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.member_selection import MemberSelection, select_members
from housing.fitting.teacher import Teacher
from housing.schema.column import Vector
from housing.scoring.folds import selection_folds
from housing.scoring.metrics import score
from housing.streaming.column_chunks import ColumnChunks


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
    selection_folds
        With `select_members`, the number of folds whose out-of-fold predictions decide; 1: only the validation rows.
    selection_folds_max_rows
        With more rows than this, the validation rows alone decide.
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
    selection_folds: int = 1
    selection_folds_max_rows: int = 0
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
        n_folds, max_rows = cfg.model.get("selection_folds", 1), cfg.model.get("selection_folds_max_rows", 0)
        integer(1).validate("model.selection_folds", n_folds)
        integer(0).validate("model.selection_folds_max_rows", max_rows)
        return cls(
            specs=tuple(estimator_specs(cfg)),
            applicability=applicability,
            n_threads=cfg.n_threads,
            transform=cfg.target.transform,
            min_skewness=min_skewness,
            select_members=selects,
            max_relative_rmse=limit,
            selection_folds=n_folds,
            selection_folds_max_rows=max_rows,
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
    training row is held out, or whole `units` if there are any.

    With `selection_folds`, the validation rows are the first fold, and the training rows are divided into the others. The out-
    of-fold predictions of all rows then select the members, among those that are close to the best on the validation rows, and
    boosting rounds are the mean of the folds. The returned model is that of the first fold.

    If there is a `first` fit, its boosting rounds, its members with their weights and its transform are taken, and no row is
    held out. With a teacher, the targets of training rows are those that it teaches; validation rows keep their own. Features
    that the `cache` has are not fitted again. With a teacher it is not used, because it keeps the targets too.

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
    parts = [rows] if validation is None else [rows, validation]
    settings = replace(settings, specs=_specs_to_fit(settings.specs, sum(map(len, parts)), first))
    with_transform = settings if first is None else replace(settings, transform=first.transform)
    transforms = transforms_to_fit(with_transform, table, np.concatenate(parts))
    with threadpool_limits(settings.n_threads) if settings.n_threads else nullcontext():  # it looks through all loaded libraries
        fitted = _fit_candidates(settings, _FitData(table, rows, validation, first, cache), transforms, on_round)
        models = [_assemble(settings, [candidates], transform) for transform, candidates in fitted.items()]
        rmse = {} if settings.transform != AUTO or validation is None else _rmse_by_transform(models, table, validation)
        best = min(models, key=lambda model: rmse.get(model.transform, 0.0))
        if best.selection.held_out_rmse:
            best = _select_on_folds(settings, best, fitted[best.transform], units, on_round)
    return replace(best, fit_seconds=time.perf_counter() - start, rmse_by_transform=rmse)


def _specs_to_fit(specs: tuple[EstimatorSpec, ...], n_rows: int, first: Model | None) -> tuple[EstimatorSpec, ...]:
    """Return the estimators that suit the number of rows, or those of the `first` fit, with their weights."""
    if first is None:
        return tuple(spec for spec in specs if spec.max_rows is None or n_rows <= spec.max_rows)
    weights = first.selection.weights
    return tuple(replace(spec, weight=weights[spec.name]) for spec in specs if spec.name in weights)


def transforms_to_fit(settings: FitSettings, table: Table, rows: Rows) -> list[str]:
    """Return the transforms of the target to fit. Raises ConfigError if a logarithm is required and does not exist."""
    if settings.transform == NONE:
        return [NONE]
    target = table.target[rows]
    too_low = rows[target <= 0]
    if settings.transform == LOG:
        if too_low.size:
            raise _too_low_for_log(settings, table, too_low)
        return [LOG]
    is_skewed = settings.min_skewness is None or _skewness(target) >= settings.min_skewness
    return [NONE, LOG] if is_skewed and not too_low.size else [NONE]


def _too_low_for_log(settings: FitSettings, table: Table, too_low: Rows) -> ConfigError:
    row, name = int(too_low.min()), table.schema.target.name
    where = name if settings.teacher is None else f"{name}, also in those that the teacher predicts"
    return ConfigError(
        f"target.transform=log needs values above 0 in {where} (got {table.target[row]:g} in row {row} of the rows with a"
        f" {name}, counted from 0; {len(too_low):,} rows in all). Use target.transform=none, or remove these rows."
    )


def _skewness(values: Vector) -> float:
    """Return the third standardised moment, or 0 for equal values."""
    deviations = values - values.mean()
    deviation = float(np.sqrt(np.mean(deviations**2)))
    return 0.0 if deviation == 0 else float(np.mean((deviations / deviation) ** 3))


@dataclass(frozen=True)
class _FitData:
    """Arguments of `fit` that fits of the target and of its logarithm share."""

    table: Table
    rows: Rows
    validation: Rows | None
    first: Model | None
    cache: FeatureCache | None


@dataclass(frozen=True)
class _FittedMember:
    """A member, its boosting rounds if early stopping chose them, and its predictions of validation rows if they are needed."""

    member: Member
    rounds: int | None
    held_out: Vector | None


@dataclass(frozen=True)
class _Candidates:
    """The fitted members among which a model selects, and the ensemble of all."""

    data: _FitData
    members: Sequence[_FittedMember]
    ensemble: Ensemble

    def take(self, indices: Sequence[int]) -> Self:
        """Return some of the candidates."""
        members = [self.members[index] for index in indices]
        return replace(self, members=members, ensemble=replace(self.ensemble, members=[member.member for member in members]))


def _fit_candidates(
    settings: FitSettings, data: _FitData, transforms: Sequence[str], on_round: OnRound
) -> dict[str, _Candidates]:
    """Fit the members on the target of each transform."""
    features: list[Features] = []
    fitted: dict[str, dict[str, _FittedMember]] = {transform: {} for transform in transforms}
    for key in dict.fromkeys(spec.features_key for spec in settings.specs):
        shared = replace(settings, specs=tuple(spec for spec in settings.specs if spec.features_key == key))
        features.append(_fit_members(shared, data, len(features), fitted, on_round))
        trim_memory()  # of the columns and of what the fits needed
    applicability = ApplicabilityDomain.from_config(data.table.schema, settings.applicability)
    if applicability is not None:
        applicability.fit(data.table.matrix[data.rows])
    candidates = {}
    for transform, members in fitted.items():
        ordered = [members[spec.name] for spec in settings.specs]
        ensemble = Ensemble(data.table.schema, features, [member.member for member in ordered], applicability)
        candidates[transform] = _Candidates(data, ordered, ensemble)
    return candidates


def _fit_members(
    settings: FitSettings, data: _FitData, index: int, fitted: dict[str, dict[str, _FittedMember]], on_round: OnRound
) -> Features:
    """Fit the features at an index and the estimators that share them, for each transform. Return the features.

    The columns of all rows take more memory than all else, so they are in memory during this call only.
    """
    columns = _fit_or_reuse_features(settings.specs, index, data)
    trim_memory()  # of the text of the table, and of arrays that the features no longer need
    for transform, members in fitted.items():
        rows = columns.with_log_target() if transform == LOG else columns
        members |= {spec.name: _fit_member(settings, spec, rows, data.first, on_round) for spec in settings.specs}
    return columns.features


def _fit_or_reuse_features(specs: Sequence[EstimatorSpec], index: int, data: _FitData) -> FittedFeatures:
    fit_anew = partial(fit_features, specs, index, data.table, data.rows, data.validation)
    if data.cache is None:
        return fit_anew()
    precision = precision_of(spec.create_estimator() for spec in specs).__name__
    key = f"{specs[0].features_key} {precision} {all(map(fits_on_chunks, specs))}"
    return replace(data.cache.get_or_fit(key, data.rows, data.validation, fit_anew), index=index)


def _fit_member(
    settings: FitSettings, spec: EstimatorSpec, rows: FittedFeatures, first: Model | None, on_round: OnRound
) -> _FittedMember:
    columns = None if spec.visible_blocks is None else rows.features.visible_columns(spec.visible_blocks)
    rows = rows.select(columns)
    rounds = None if first is None else first.best_rounds.get(spec.name)
    estimator = fit_estimator(spec, rows, rounds, settings.n_threads, on_round)
    is_compared = settings.select_members and first is None
    return _FittedMember(
        Member(estimator, rows.index, spec.region, columns, spec.weight),
        best_rounds(estimator) if spec.early_stopping_rounds else None,
        _predict(estimator, rows.validation[0]) if is_compared and rows.validation is not None else None,
    )


def _predict(estimator: FittedEstimator, columns: Any) -> Vector:
    return estimator.predict_chunks(columns) if isinstance(columns, ColumnChunks) else estimator.predict(columns)


def _select_on_folds(settings: FitSettings, best: Model, fitted: _Candidates, units: Units | None, on_round: OnRound) -> Model:
    """Select the members again, among those close to the best on the validation rows, by the predictions of all rows."""
    data, rmse = fitted.data, best.selection.held_out_rmse
    assert data.validation is not None  # nothing was selected without
    n_rows = len(data.rows) + len(data.validation)
    n_folds = 1 if n_rows > settings.selection_folds_max_rows or settings.teacher is not None else settings.selection_folds
    folds = selection_folds(n_folds, data.rows, data.validation, units)
    limit = min(rmse.values()) * (math.inf if settings.max_relative_rmse is None else settings.max_relative_rmse)
    close = [index for index, spec in enumerate(settings.specs) if rmse[spec.name] <= limit]
    settings = replace(settings, specs=tuple(settings.specs[index] for index in close))
    others = [
        _fit_candidates(settings, replace(data, rows=rows, validation=fold), [best.transform], on_round)[best.transform]
        for rows, fold in folds
    ]
    return _assemble(settings, [fitted.take(close), *others], best.transform) if others else best


def _assemble(settings: FitSettings, folds: Sequence[_Candidates], transform: str) -> Model:
    """Return the model of the first fold. If the settings say so, only the members are kept that are best on all folds."""
    data, ensemble = folds[0].data, folds[0].ensemble
    selection, rounds = MemberSelection({spec.name: spec.weight for spec in settings.specs}), {}
    for spec, *members in zip(settings.specs, *(fold.members for fold in folds), strict=True):
        if members[0].rounds is not None:
            rounds[spec.name] = round(float(np.mean([member.rounds for member in members])))
    predictions = [[member.held_out for member in fold.members if member.held_out is not None] for fold in folds]
    held_out = [fold.data.validation for fold in folds if fold.data.validation is not None]
    if held_out and predictions[0]:
        scored, predicted = (
            data.table.take(np.concatenate(held_out)),
            np.concatenate([np.stack(of_fold) for of_fold in predictions], axis=1),
        )
        ensemble, selection = select_members(
            ensemble, list(selection.weights), predicted, scored, settings.max_relative_rmse, log_target=transform == LOG
        )
    elif transform == LOG:
        ensemble.transform = _fit_transform(ensemble, data) if data.first is None else data.first.ensemble.transform
    return Model(ensemble, 0.0, selection, rounds)


def _fit_transform(ensemble: Ensemble, data: _FitData) -> LogTransform:
    """Return the transform whose predictions are unbiased on the validation rows."""
    assert data.validation is not None  # a fit of logarithms without a first fit holds rows out
    scored = data.table.take(data.validation)
    return LogTransform.fit(ensemble.predict_untransformed(scored.matrix), scored.target, scored.weight)


def _rmse_by_transform(models: list[Model], table: Table, validation: Rows) -> dict[str, float]:
    """Return the RMSE of models on the validation rows, in the target's unit."""
    scored = table.take(validation)
    return {model.transform: score(model.predict(scored.matrix), scored.target, scored.weight)["rmse"] for model in models}
