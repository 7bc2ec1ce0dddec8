"""A run without its tracking: fit on training rows, score on validation rows, make the bundle."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.bundle.conformal import Interval, append_prediction
from housing.bundle.ensemble import Ensemble, Member
from housing.core.config import instantiate
from housing.core.environment import commit, libraries
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.schema.column import Matrix, Vector
from housing.schema.histogram import histogram_reference
from housing.training import cross_validation, fitting
from housing.training.background import select_background
from housing.training.callbacks import OnFold, OnRound, no_op
from housing.training.estimators import FittedEstimator, Model
from housing.training.holdout import HoldoutPredictions, export_boosters
from housing.training.metrics import measure_cost, round_metrics, score
from housing.training.onnx_export import export_and_verify

MIN_RELATIVE_ERROR = 0.3  # of the mean error: no prediction is expected to be off by less


OnFit = Callable[[HoldoutPredictions], None]


def build(
    cfg: DictConfig,
    table: Table,
    parts: Split,
    run_id: str,
    on_fold: OnFold = no_op,
    on_round: OnRound = no_op,
    on_fit: OnFit = no_op,
) -> tuple[Bundle, dict[str, float]]:
    """Fit on the training rows and give the bundle with the metrics that runs are compared by; tracks nothing.

    With `refit` the bundle is of a second fit, on training and validation rows together, with as many rounds of boosting
    as the first took. `after_fit` is told what the figures of the run need.
    """
    scores = {} if cfg.evaluation.folds is None else cross_validation.cross_validate(cfg, table, parts, on_fold)
    model = fitting.fit(cfg, table, parts.train, parts.valid, on_round=on_round)
    predicted = model.predict(table.matrix[parts.valid])
    metrics = {**(scores or score(predicted, table.target[parts.valid])), "fit_seconds": model.fit_seconds}
    no_interval = cfg.interval.estimator is None
    interval, scales = (None, None) if no_interval else _fit_interval(cfg.interval, model, table, parts.valid)
    fit_rows = parts.train
    if cfg.refit:
        fit_rows = np.sort(np.concatenate([parts.train, parts.valid]))
        model = fitting.fit(cfg, table, fit_rows, rounds=model.best_rounds, on_round=on_round)
        metrics["refit_seconds"] = model.fit_seconds
    on_fit(HoldoutPredictions(parts.valid, predicted, scales, export_boosters(model)))
    bundle = build_bundle(model, table, fit_rows, parts.valid, cfg.parity_tolerance)
    bundle.interval = interval
    known = table.matrix[fit_rows]
    bundle.background = known[select_background(table.schema, known, cfg.n_background_rows, cfg.seed)]
    bundle.select_golden_rows(table.matrix[parts.valid], cfg.n_golden_rows)
    metrics |= measure_cost(bundle, table.matrix[parts.valid])
    bundle.card = model_card(cfg, table, parts, run_id, metrics)
    return bundle, metrics


def build_bundle(model: Model, table: Table, fit_rows: Rows, check_rows: Rows, parity_tolerance: float) -> Bundle:
    """Convert a fitted model, and prove the conversion on every one of some rows.

    Raises HousingError where a converted estimator differs by more than `parity` standard deviations of the target.
    """
    ensemble, tolerance = model.ensemble, parity_tolerance * _target_scale(table.target[fit_rows])
    columns = [features.transform(table.matrix[check_rows]) for features in ensemble.features]
    members = [_export_member(member, columns[member.features], tolerance) for member in ensemble.members]
    bundle = Bundle(
        Ensemble(table.schema, ensemble.features, members, ensemble.applicability),
        reference={},
        card={},
        golden={},
        background=table.matrix[:0],
    )
    bundle.reference = histogram_reference(table.schema, table.matrix[fit_rows], bundle.predict(table.matrix[fit_rows]))
    return bundle


def _target_scale(target: Vector) -> float:
    """Give the standard deviation; of a target that is the same everywhere its size, for it too is rounded."""
    return float(target.std() if np.ptp(target) else np.abs(target[0]))


def _export_member(member: Member, columns: Matrix, tolerance: float) -> Member:
    assert isinstance(member.estimator, FittedEstimator)
    visible_columns = columns if member.columns is None else columns[:, member.columns]
    return replace(member, estimator=export_and_verify(member.estimator.estimator, visible_columns, tolerance))


def _fit_interval(cfg: DictConfig, model: Model, table: Table, rows: Rows) -> tuple[Interval, Vector]:
    """Learn how far predictions are off, on rows that the model was not fitted on; and give that for each, out of fold."""
    from sklearn.model_selection import KFold  # pylint: disable=import-outside-toplevel  # seconds that only fitting needs

    if cfg.folds < 2:
        raise ConfigError(f"interval.folds is {cfg.folds}; allowed: 2 and more")
    if len(rows) < 2 * cfg.folds:
        raise ConfigError(f"interval: {len(rows)} validation rows for {cfg.folds} folds; allowed: interval=none, or more rows")
    predicted, columns = model.ensemble.predict_with_columns(table.matrix[rows])
    seen, off = append_prediction(columns, predicted), np.abs(table.target[rows] - predicted)
    logs = np.log(np.maximum(off, max(MIN_RELATIVE_ERROR * float(off.mean()), 1e-12)))
    scales = np.empty(len(rows))
    for others, fold in KFold(cfg.folds, shuffle=True, random_state=0).split(rows):
        scales[fold] = instantiate(cfg.estimator).fit(seen[others], logs[others]).predict(seen[fold])
    graph = export_and_verify(instantiate(cfg.estimator).fit(seen, logs), seen, tolerance=1e-3)
    return Interval({"scores": np.sort(off / np.exp(scales))}, graph), np.exp(scales)


def model_card(cfg: DictConfig, table: Table, parts: Split, run_id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Give what the run knew: the model's name, its metrics, its data, its code."""
    return {
        "model": cfg.model.name,
        "features": cfg.features.name,
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": round_metrics(metrics),
        "data": {"name": cfg.data.name, "fingerprint": table.fingerprint, "rows": len(table)},
        "rows": {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)},
        "fitted_on": "train and valid" if cfg.refit else "train",
        "split": parts.fingerprint(),
        "code": dict(zip(("commit", "dirty"), commit(), strict=True)),
        "libraries": libraries(),
        "tags": dict(cfg.tags),
    }
