"""Metrics that runs are compared by: scores of predictions, and their cost."""

import time
from collections.abc import Mapping

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector

RANKING_METRICS = ("rmse", "mae")  # scores that are a mean over rows; lower is better
SCORES = (*RANKING_METRICS, "r2")  # of every run
HIGHER_IS_BETTER = ("r2",)
COST_METRICS = ("fit_seconds", "latency_us", "model_bytes")  # lower is better
N_TIMED_ROWS = 50


def as_loss(metric: str, value: float) -> float:
    """Return a value of a metric such that lower is better."""
    return -value if metric in HIGHER_IS_BETTER else value


def require_ranking_metric(metric: str) -> None:
    """Raise ConfigError if models cannot be compared by a metric row by row."""
    if metric not in RANKING_METRICS:
        raise ConfigError(f"metric must be {' or '.join(RANKING_METRICS)} (got {metric!r})")


def score(predicted: Vector, actual: Vector, weight: Vector | None) -> dict[str, float]:
    """Return `rmse` and `mae` in the target's unit, and `r2`. The `r2` of a constant target is 0.

    A row of `weight` 2 counts like the row twice. None: all rows count alike.
    """
    error, counts = predicted - actual, 1.0 if weight is None else weight
    total_variance = float((counts * np.square(actual - np.average(actual, weights=weight))).sum())
    return {
        "rmse": float(np.sqrt(np.average(np.square(error), weights=weight))),
        "mae": float(np.average(np.abs(error), weights=weight)),
        "r2": 1.0 - float((counts * np.square(error)).sum()) / total_variance if total_variance else 0.0,
    }


def measure_cost(bundle: Bundle, matrix: Matrix) -> dict[str, float]:
    """Measure the bundle in this process.

    Returns `latency_us` (median of one row, microseconds of processor time), `rows_per_second` (all rows in one call, by
    processor time) and `model_bytes`.
    """
    rows = [matrix[[index % len(matrix)]] for index in range(N_TIMED_ROWS)]
    return {
        "latency_us": 1e6 * float(np.median([_predict_seconds(bundle, row) for row in rows])),
        "rows_per_second": len(matrix) / _predict_seconds(bundle, matrix),
        "model_bytes": float(bundle.size_bytes()),
    }


def _predict_seconds(bundle: Bundle, matrix: Matrix) -> float:
    """Return the processor time, which other processes on a busy machine do not change."""
    start = time.process_time()
    bundle.predict(matrix)
    return max(time.process_time() - start, 1e-9)


def round_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics with six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
