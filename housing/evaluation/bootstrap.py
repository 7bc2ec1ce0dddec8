"""Bootstrap interval of an error metric.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1-26; Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993). All intervals are percentile intervals.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector

MIN_ROWS = 30  # the percentile interval of fewer rows is too narrow: it is not computed
BATCH_SIZE = 4_000_000  # resampled rows in memory at once: 64 MB


def bootstrap_interval(error: Vector, metric: str, confidence: float, n_resamples: int, seed: int) -> tuple[float, float] | None:
    """Return the two-sided bootstrap interval of the RMSE or MAE (`metric`), or None for fewer than `MIN_ROWS` rows."""
    if len(error) < MIN_ROWS:
        return None
    resampled = _loss_to_score(_resampled_means(compute_loss(error, metric)[None], n_resamples, seed), metric)
    lower, upper = np.quantile(resampled[0], ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    return lower, upper


def compute_score(error: Vector, metric: str) -> float:
    """Return the RMSE or MAE (`metric`) of errors."""
    return float(_loss_to_score(compute_loss(error, metric).mean(), metric))


def compute_loss(error: Vector, metric: str) -> Vector:
    """Return the loss of each row: the squared error for `rmse`, else the absolute error."""
    return np.square(error) if metric == "rmse" else np.abs(error)


def _loss_to_score(mean_loss: Any, metric: str) -> Any:
    return np.sqrt(mean_loss) if metric == "rmse" else mean_loss


def _resampled_means(losses: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean losses of resampled rows, shape (models, resamples). A resample has the same rows for all models."""
    random, n_rows = np.random.default_rng(seed), losses.shape[1]
    batch = max(1, BATCH_SIZE // n_rows)
    counts = [min(batch, n_resamples - start) for start in range(0, n_resamples, batch)]
    samples = (random.integers(n_rows, size=(count, n_rows)) for count in counts)
    return np.concatenate([np.stack([loss[sample].mean(axis=1) for loss in losses]) for sample in samples], axis=1)
