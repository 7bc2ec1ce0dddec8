"""Building of a bundle: fit on training rows, score on validation rows, export and verify."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.bundle.ensemble import Ensemble, Member
from housing.bundle.onnx_model import OnnxModel
from housing.core.environment import commit, libraries
from housing.data.selected_rows import select_rows
from housing.data.split import Rows, Split
from housing.data.table import Table, weight_column
from housing.estimators.onnx_export import export, verify_export
from housing.features.pipeline import Features
from housing.fitting.callbacks import OnFit, OnFold, OnRound, no_op
from housing.fitting.encoding_choice import EncodingChoice, choose_encoding
from housing.fitting.estimators import AUTO, LOG, FittedEstimator, Model, export_boosters
from housing.fitting.fitting import FitSettings, fit
from housing.fitting.intervals import IntervalSettings, fit_interval
from housing.fitting.member_selection import MemberSelection
from housing.schema.column import Matrix, Vector
from housing.schema.histogram import histogram_reference
from housing.schema.table_schema import Schema, without_audits
from housing.scoring.holdout import HoldoutPredictions
from housing.scoring.metrics import measure_cost, round_metrics
from housing.scoring.ranking_metric import RankingMetric
from housing.training.background import select_background
from housing.training.contributions import MAX_ROWS, mean_contributions
from housing.training.cross_validation import CrossValidationSettings, cross_validate
from housing.training.distillation import Distillation, compare_with_teacher

N_SAMPLE_ROWS = 1000
VERIFIED_AT_ONCE = 100_000  # rows, since an ONNX Runtime session is made for each part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSettings:
    """Settings of the bundle of a run.

    Attributes
    ----------
    n_sample_rows
        Size of the random sample of training rows in the bundle; 0 stores none.
    names
        Names of the model, the features and the table, for the model card.
    metric
        The score of the run, by which its encoding is chosen.
    refit
        Whether the bundle comes from a second fit, on training and validation rows together.
    parity_tolerance
        Largest difference between estimator and exported model, in standard deviations of the target.
    """

    fit: FitSettings
    names: Mapping[str, str]
    cross_validation: CrossValidationSettings | None = None
    metric: RankingMetric = field(default_factory=RankingMetric)
    interval: IntervalSettings | None = None
    refit: bool = True
    seed: int = 0
    parity_tolerance: float = 1e-4
    n_background_rows: int = 16
    n_sample_rows: int = N_SAMPLE_ROWS
    n_golden_rows: int = 16
    tags: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings from the config of a run."""
        return cls(
            fit=FitSettings.from_config(cfg),
            names={"model": cfg.model.name, "features": cfg.features.name, "data": cfg.data.name},
            cross_validation=CrossValidationSettings.from_config(cfg.evaluation),
            metric=RankingMetric.from_config(cfg),
            interval=IntervalSettings.from_config(cfg.interval),
            refit=cfg.refit,
            seed=cfg.seed,
            parity_tolerance=cfg.parity_tolerance,
            n_background_rows=cfg.n_background_rows,
            n_sample_rows=cfg.get("n_sample_rows", N_SAMPLE_ROWS),
            n_golden_rows=cfg.n_golden_rows,
            tags=dict(cfg.tags),
        )


def build(
    settings: BuildSettings,
    table: Table,
    parts: Split,
    run_id: str,
    on_fold: OnFold = no_op,
    on_round: OnRound = no_op,
    on_fit: OnFit = no_op,
) -> tuple[Bundle, dict[str, float]]:
    """Fit, score and export a model. Return the bundle, and the metrics that runs are compared by.

    Scores come from cross-validation if the settings have folds, else from the validation rows. A refit takes as many boosting
    rounds as early stopping chose in the first fit. `on_fit` receives the held-out predictions. Test rows are not used.
    """
    fit_rows = np.sort(np.concatenate([parts.train, parts.valid])) if settings.refit else parts.train
    table = table.learn(fit_rows)
    if settings.interval is not None:
        settings.interval.require_weighted_fit(weight_column(table.schema))
    metrics, encoding = {}, choose_encoding(settings.fit, table, parts, settings.metric)
    if settings.cross_validation is not None:
        metrics = cross_validate(settings.cross_validation, encoding.settings, settings.metric, table, parts, on_fold)
    model = fit(encoding.settings, table, parts.train, parts.valid, on_round=on_round, units=parts.units)
    _report_transform(settings.fit, model)
    _report_selection(model.selection)
    first, predicted = model, model.predict(table.matrix[parts.valid])
    metrics = metrics or settings.metric.score(predicted, table.target[parts.valid], table.weight_of(parts.valid))
    metrics["fit_seconds"] = model.fit_seconds
    distillation = _compare_with_teacher(settings, table, parts, predicted)
    metrics |= {} if distillation is None else distillation.metrics
    checked = table.bounded(np.arange(len(parts.valid)))  # positions among the validation rows
    check_rows = parts.valid[checked]
    interval, calibration = None, None
    if settings.interval is not None:
        interval, calibration = fit_interval(
            settings.interval, encoding.settings, model, table, replace(parts, valid=check_rows), fit_rows
        )
    if settings.refit:
        model = first = first.without_features()
        model = fit(encoding.settings, table, fit_rows, first=first, on_round=on_round, units=parts.units)
        metrics["refit_seconds"] = model.fit_seconds
    on_fit(HoldoutPredictions(check_rows, predicted[checked], calibration, export_boosters(model)))
    bundle = build_bundle(model, table, fit_rows, check_rows, settings.parity_tolerance)
    bundle.interval = interval
    _describe_rows(settings, bundle, select_rows(table.matrix, fit_rows), predicted)
    check_matrix = table.matrix[check_rows][:]  # in memory, if the table is not
    _select_golden_rows(settings, bundle, table.take(check_rows[_is_accepted(table.schema, check_matrix)]))
    metrics |= measure_cost(bundle, check_matrix)
    bundle.card = model_card(settings, table, parts, run_id, metrics, encoding, first, distillation)
    return bundle, metrics


def _describe_rows(settings: BuildSettings, bundle: Bundle, matrix: Matrix, predicted: Vector) -> None:
    """Add to a bundle the distribution of its rows and of held-out predictions, representative rows, and contributions."""
    # A model predicts its own training rows too well: compared with those, the predictions of new rows would seem to drift.
    bundle.reference = histogram_reference(bundle.schema, matrix, predicted)
    bundle.background = matrix[select_background(bundle.schema, matrix, settings.n_background_rows, settings.seed)]
    rows = matrix[_draw_rows(len(matrix), max(settings.n_sample_rows, MAX_ROWS), settings.seed)]
    bundle.sample = rows[: settings.n_sample_rows] if settings.n_sample_rows else None
    bundle.reference["contributions"] = mean_contributions(bundle, rows[:MAX_ROWS])


def _draw_rows(size: int, count: int, seed: int) -> Rows:
    """Return up to `count` random indices, in random order."""
    return np.random.default_rng(seed).permutation(size)[:count]


def _select_golden_rows(settings: BuildSettings, bundle: Bundle, candidates: Table) -> None:
    bundle.select_golden_rows(candidates.matrix, settings.n_golden_rows, candidates.texts)


def _compare_with_teacher(settings: BuildSettings, table: Table, parts: Split, predicted: Vector) -> Distillation | None:
    """Compare predictions of the validation rows with those of the teacher, if the model has one, and log the result."""
    if settings.fit.teacher is None:
        return None
    distillation = compare_with_teacher(settings.fit.teacher, settings.metric, table, parts.train, parts.valid, student=predicted)
    log.info("%s", distillation.describe(settings.metric.name))
    return distillation


def _report_transform(settings: FitSettings, model: Model) -> None:
    """Log which transform `target.transform=auto` chose, and why."""
    if settings.transform == AUTO:
        scores = " and ".join(f"{rmse:.6g} with {transform}" for transform, rmse in model.rmse_by_transform.items())
        skewed = "" if settings.min_skewness is None else f" with a skewness of at least {settings.min_skewness:g}"
        without_log = "" if LOG in model.rmse_by_transform else f"; log needs targets above 0{skewed}"
        log.info("target.transform=auto chose %s: the RMSE on validation rows is %s%s.", model.transform, scores, without_log)


def _report_selection(selection: MemberSelection) -> None:
    """Log which members a fit selected, and the RMSE of each candidate."""
    if selection.held_out_rmse:
        candidates = ", ".join(f"{name} {rmse:.6g}" for name, rmse in selection.held_out_rmse.items())
        weights = describe_weights(selection.weights)
        log.info("Members, selected by RMSE on %s held-out rows: %s (%s).", f"{selection.n_rows:,}", weights, candidates)


def describe_weights(weights: Mapping[str, float]) -> str:
    """Return the members of a model with their shares of the weighted mean, as a text."""
    total = sum(weights.values())
    return " + ".join(f"{weight / total:.0%} {name}" for name, weight in weights.items())


def build_bundle(model: Model, table: Table, fit_rows: Rows, check_rows: Rows, parity_tolerance: float) -> Bundle:
    """Export a fitted model, and verify the exported model on every row of `check_rows`.

    Raises
    ------
    HousingError
        If a prediction differs by more than `parity_tolerance` standard deviations of the target.
    """
    ensemble, target = model.ensemble, table.target[fit_rows]
    tolerance = parity_tolerance * _target_scale(target if ensemble.transform is None else np.log(target))
    members = [_export_member(member, ensemble.features) for member in ensemble.members]
    for start in range(0, len(check_rows), VERIFIED_AT_ONCE):
        matrix = table.matrix[check_rows[start : start + VERIFIED_AT_ONCE]][:]
        columns = [features.transform(matrix) for features in ensemble.features]
        for fitted, exported in zip(ensemble.members, members, strict=True):
            _verify_member(fitted, exported, columns[fitted.features], tolerance, start)
    return Bundle(
        Ensemble(without_audits(table.schema), ensemble.features, members, ensemble.applicability, ensemble.transform),
        reference={},
        card={},
        golden={},
        background=table.matrix[:0],
    )


def _is_accepted(schema: Schema, matrix: Matrix) -> NDArray[np.bool_]:
    """Return which rows have no unseen value in a column that refuses such values."""
    limits = [len(column.categories) if column.categories and column.unseen == "refuse" else np.inf for column in schema.features]
    accepted: NDArray[np.bool_] = np.logical_not((matrix[:, : len(limits)] >= np.array(limits)).any(axis=1))
    return accepted


def _target_scale(target: Vector) -> float:
    """Return the standard deviation, or the magnitude of a constant target, which float32 rounds as well."""
    return float(target.std() if np.ptp(target) else np.abs(target[0]))


def _export_member(member: Member, pipelines: Sequence[Features]) -> Member:
    assert isinstance(member.estimator, FittedEstimator)
    n_columns = len(pipelines[member.features].names if member.columns is None else member.columns)
    return replace(member, estimator=export(member.estimator.estimator, n_columns))


def _verify_member(fitted: Member, exported: Member, columns: Matrix, tolerance: float, first_row: int) -> None:
    assert isinstance(fitted.estimator, FittedEstimator) and isinstance(exported.estimator, OnnxModel)
    visible_columns = columns if fitted.columns is None else columns[:, fitted.columns]
    verify_export(fitted.estimator.estimator, exported.estimator, visible_columns, tolerance, first_row)


def model_card(
    settings: BuildSettings,
    table: Table,
    parts: Split,
    run_id: str,
    metrics: Mapping[str, float],
    encoding: EncodingChoice,
    first: Model,
    distillation: Distillation | None,
) -> dict[str, Any]:
    """Return the model card: the model's name, its metrics, its data and its code. `first` is the fit on the training rows."""
    weight = weight_column(table.schema)
    return {
        "model": settings.names["model"],
        "features": settings.names["features"],
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "encoding": {"method": encoding.method, settings.metric.name: round_metrics(encoding.scores)},
        "members": {"weights": first.selection.weights, "held_out_rmse": round_metrics(first.selection.held_out_rmse)},
        "metrics": round_metrics(metrics),
        "distillation": None if distillation is None else distillation.to_card(),
        "target": {"transform": first.transform, "validation_rmse": round_metrics(first.rmse_by_transform)},
        "data": {
            "name": settings.names["data"],
            "fingerprint": table.fingerprint,
            "rows": len(table),
            "weight": None if weight is None else weight.name,
        },
        "rows": {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)},
        "fitted_on": "train and valid" if settings.refit else "train",
        "split": parts.fingerprint(),
        "code": dict(zip(("commit", "dirty"), commit(), strict=True)),
        "libraries": libraries(),
        "tags": dict(settings.tags),
    }
