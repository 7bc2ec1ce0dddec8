"""What runs are compared by: scores of predictions, and the cost of making them."""

import time
from collections.abc import Mapping

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector

TIMED_ROWS = 50


RANKING_METRICS = ("rmse", "mae")  # scores of which less is better


COST_METRICS = ("fit_seconds", "latency_us", "model_bytes")  # less is better there too


def require_ranking_metric(metric: str) -> None:
    """Raise ConfigError for a metric that runs cannot be ranked by."""
    if metric not in RANKING_METRICS:
        raise ConfigError(f"metric is {metric!r}; allowed: {', '.join(RANKING_METRICS)}")


def score(predicted: Vector, actual: Vector) -> dict[str, float]:
    """Give root mean squared error and mean absolute error (in the target's unit), and the share of variance explained."""
    error = predicted - actual
    total_variance = float(np.square(actual - actual.mean()).sum())
    return {
        "rmse": float(np.sqrt(np.mean(np.square(error)))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.square(error).sum()) / total_variance if total_variance else 0.0,
    }


def measure_cost(bundle: Bundle, matrix: Matrix) -> dict[str, float]:
    """Measure a bundle in this process: microseconds for one row (median), rows per second in one call, bytes."""
    rows = [matrix[[row % len(matrix)]] for row in range(TIMED_ROWS)]
    single = [_predict_seconds(bundle, row) for row in rows]
    return {
        "latency_us": 1e6 * float(np.median(single)),
        "rows_per_second": len(matrix) / _predict_seconds(bundle, matrix),
        "model_bytes": float(bundle.size_bytes()),
    }


def _predict_seconds(bundle: Bundle, matrix: Matrix) -> float:
    start = time.perf_counter()
    bundle.predict(matrix)
    return time.perf_counter() - start


def round_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Give metrics as a card shows them: six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
