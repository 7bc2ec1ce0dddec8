"""A run without its tracking: fit on training rows, score on validation rows, make the bundle."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.bundle.conformal import Interval, with_prediction
from housing.bundle.ensemble import Ensemble, Member
from housing.core.config import make
from housing.core.environment import commit, libraries
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.schema.column import Matrix, Vector
from housing.schema.histogram import reference
from housing.training import cross_validation, fitting
from housing.training.background import medoids
from housing.training.callbacks import AfterFold, AfterRound, silent
from housing.training.estimators import Fitted, Model
from housing.training.holdout import Evidence, native_trees
from housing.training.metrics import cost, rounded, score
from housing.training.onnx_export import converted

FLOOR = 0.3  # of the mean error: no prediction is expected to be off by less


AfterFit = Callable[[Evidence], None]


def build(
    cfg: DictConfig,
    table: Table,
    parts: Split,
    run_id: str,
    after_fold: AfterFold = silent,
    after_round: AfterRound = silent,
    after_fit: AfterFit = silent,
) -> tuple[Bundle, dict[str, float]]:
    """Fit on the training rows and give the bundle with the metrics that runs are compared by; tracks nothing.

    With `refit` the bundle is of a second fit, on training and validation rows together, with as many rounds of boosting
    as the first took. `after_fit` is told what the figures of the run need.
    """
    scores = {} if cfg.evaluation.folds is None else cross_validation.cross_validate(cfg, table, parts, after_fold)
    model = fitting.fit(cfg, table, parts.train, parts.valid, after_round=after_round)
    predicted = model.predict(table.matrix[parts.valid])
    metrics = {**(scores or score(predicted, table.target[parts.valid])), "fit_seconds": model.seconds}
    no_interval = cfg.interval.estimator is None
    interval, scales = (None, None) if no_interval else _fit_interval(cfg.interval, model, table, parts.valid)
    fitted_on = parts.train
    if cfg.refit:
        fitted_on = np.sort(np.concatenate([parts.train, parts.valid]))
        model = fitting.fit(cfg, table, fitted_on, rounds=model.rounds, after_round=after_round)
        metrics["refit_seconds"] = model.seconds
    after_fit(Evidence(parts.valid, predicted, scales, native_trees(model)))
    bundle = to_bundle(model, table, fitted_on, parts.valid, cfg.parity)
    bundle.interval = interval
    known = table.matrix[fitted_on]
    bundle.background = known[medoids(table.schema, known, cfg.background_rows, cfg.seed)]
    bundle.pick_golden(table.matrix[parts.valid], cfg.golden_rows)
    metrics |= cost(bundle, table.matrix[parts.valid])
    bundle.card = card(cfg, table, parts, run_id, metrics)
    return bundle, metrics


def to_bundle(model: Model, table: Table, fitted_on: Rows, proven_on: Rows, parity: float) -> Bundle:
    """Convert a fitted model, and prove the conversion on every one of some rows.

    Raises HousingError where a converted estimator differs by more than `parity` standard deviations of the target.
    """
    ensemble, allowed = model.ensemble, parity * _spread(table.target[fitted_on])
    columns = [features.transform(table.matrix[proven_on]) for features in ensemble.features]
    members = [_converted(member, columns[member.features], allowed) for member in ensemble.members]
    bundle = Bundle(
        Ensemble(table.schema, ensemble.features, members, ensemble.reach),
        reference={},
        card={},
        golden={},
        background=table.matrix[:0],
    )
    bundle.reference = reference(table.schema, table.matrix[fitted_on], bundle.predict(table.matrix[fitted_on]))
    return bundle


def _spread(target: Vector) -> float:
    """Give the standard deviation; of a target that is the same everywhere its size, for it too is rounded."""
    return float(target.std() if np.ptp(target) else np.abs(target[0]))


def _converted(member: Member, columns: Matrix, allowed: float) -> Member:
    assert isinstance(member.estimator, Fitted)
    seen = columns if member.columns is None else columns[:, member.columns]
    return replace(member, estimator=converted(member.estimator.estimator, seen, allowed))


def _fit_interval(cfg: DictConfig, model: Model, table: Table, rows: Rows) -> tuple[Interval, Vector]:
    """Learn how far predictions are off, on rows that the model was not fitted on; and give that for each, out of fold."""
    from sklearn.model_selection import KFold  # pylint: disable=import-outside-toplevel  # seconds that only fitting needs

    if cfg.folds < 2:
        raise ConfigError(f"interval.folds is {cfg.folds}; allowed: 2 and more")
    if len(rows) < 2 * cfg.folds:
        raise ConfigError(f"interval: {len(rows)} validation rows for {cfg.folds} folds; allowed: interval=none, or more rows")
    predicted, columns = model.ensemble.predict_with_columns(table.matrix[rows])
    seen, off = with_prediction(columns, predicted), np.abs(table.target[rows] - predicted)
    logs = np.log(np.maximum(off, max(FLOOR * float(off.mean()), 1e-12)))
    scales = np.empty(len(rows))
    for others, fold in KFold(cfg.folds, shuffle=True, random_state=0).split(rows):
        scales[fold] = make(cfg.estimator).fit(seen[others], logs[others]).predict(seen[fold])
    graph = converted(make(cfg.estimator).fit(seen, logs), seen, allowed=1e-3)
    return Interval({"scores": np.sort(off / np.exp(scales))}, graph), np.exp(scales)


def card(cfg: DictConfig, table: Table, parts: Split, run_id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Give what the run knew: the model's name, its metrics, its data, its code."""
    return {
        "model": cfg.model.name,
        "features": cfg.features.name,
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": rounded(metrics),
        "data": {"name": cfg.data.name, "fingerprint": table.fingerprint, "rows": len(table)},
        "rows": {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)},
        "fitted_on": "train and valid" if cfg.refit else "train",
        "split": parts.fingerprint(),
        "code": dict(zip(("commit", "dirty"), commit(), strict=True)),
        "libraries": libraries(),
        "tags": dict(cfg.tags),
    }
