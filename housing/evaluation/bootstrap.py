"""Bootstrap interval of an error metric.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1-26; Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993). All intervals are percentile intervals.
"""

from typing import Any

import numpy as np

from housing.data.units import Units
from housing.schema.column import Vector

MIN_UNITS = 30  # the percentile interval of fewer units is too narrow: it is not computed
BATCH_SIZE = 4_000_000  # resampled units in memory at once: 64 MB


def bootstrap_interval(
    error: Vector,
    metric: str,
    confidence: float,
    n_resamples: int,
    seed: int,
    units: Units | None = None,
    weight: Vector | None = None,
) -> tuple[float, float] | None:
    """Return the two-sided bootstrap interval of the RMSE or MAE (`metric`), or None for fewer than `MIN_UNITS` units.

    Units are drawn with all their rows and with equal probability; each resample is scored with the weights of its rows. None:
    each row is a unit, and all rows count alike.
    """
    weight = np.ones(len(error)) if weight is None else weight
    losses = weight * compute_loss(error, metric)
    sums, sizes = (losses, weight) if units is None else (units.sum(losses), units.sum(weight))
    if len(sums) < MIN_UNITS:
        return None
    resampled = _loss_to_score(_resampled_means(sums, sizes, n_resamples, seed), metric)
    lower, upper = np.quantile(resampled, ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    return lower, upper


def compute_score(error: Vector, metric: str) -> float:
    """Return the RMSE or MAE (`metric`) of errors."""
    return float(_loss_to_score(compute_loss(error, metric).mean(), metric))


def weigh_error(error: Vector, metric: str, weight: Vector | None) -> Vector:
    """Return errors whose plain RMSE or MAE (`metric`) is the weighted one of `error`."""
    if weight is None:
        return error
    share = weight / weight.mean()
    return error * (np.sqrt(share) if metric == "rmse" else share)


def compute_loss(error: Vector, metric: str) -> Vector:
    """Return the loss of each row: the squared error for `rmse`, else the absolute error."""
    return np.square(error) if metric == "rmse" else np.abs(error)


def _loss_to_score(mean_loss: Any, metric: str) -> Any:
    return np.sqrt(mean_loss) if metric == "rmse" else mean_loss


def _resampled_means(sums: Vector, sizes: Vector, n_resamples: int, seed: int) -> Vector:
    """Return the mean losses of resampled units, shape (resamples,). A unit has a sum of losses and a number of rows."""
    random, n_units = np.random.default_rng(seed), len(sums)
    batch = max(1, BATCH_SIZE // n_units)
    counts = [min(batch, n_resamples - start) for start in range(0, n_resamples, batch)]
    samples = (random.integers(n_units, size=(count, n_units)) for count in counts)
    return np.concatenate([sums[sample].sum(axis=1) / sizes[sample].sum(axis=1) for sample in samples])
