"""Bootstrap intervals of an error metric and of the paired difference of two models.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1-26; Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993). All intervals are percentile intervals.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector

BATCH_SIZE = 4_000_000  # resampled rows in memory at once: 64 MB


@dataclass(frozen=True)
class PairedDifference:
    """Challenger score minus champion score on the same rows. Negative means that the challenger is better.

    Attributes
    ----------
    difference
        The difference of the two scores, in the target's unit.
    lower, upper
        One-sided confidence bounds of the difference.
    """

    rows: int
    challenger_score: float
    champion_score: float
    difference: float
    lower: float
    upper: float

    @property
    def is_better(self) -> bool:
        """Whether the challenger is significantly better."""
        return self.upper < 0

    @property
    def is_worse(self) -> bool:
        """Whether the challenger is significantly worse."""
        return self.lower > 0


def paired_bootstrap(
    challenger_error: Vector, champion_error: Vector, metric: str, confidence: float, n_resamples: int, seed: int
) -> PairedDifference:
    """Compare the errors of two models on the same rows by their RMSE or MAE (`metric`).

    Each resample draws the same rows for both models, so that errors they share cancel out. `confidence` is one-sided: that
    share of the resampled differences lies above `lower`, and the same share lies below `upper`.
    """
    losses = np.stack([_loss(challenger_error, metric), _loss(champion_error, metric)])
    challenger_score, champion_score = compute_score(challenger_error, metric), compute_score(champion_error, metric)
    resampled = _loss_to_score(_resampled_means(losses, n_resamples, seed), metric)
    lower, upper = np.quantile(resampled[0] - resampled[1], (1 - confidence, confidence)).tolist()
    return PairedDifference(losses.shape[1], challenger_score, champion_score, challenger_score - champion_score, lower, upper)


def bootstrap_interval(error: Vector, metric: str, confidence: float, n_resamples: int, seed: int) -> tuple[float, float]:
    """Return the two-sided bootstrap interval of the RMSE or MAE (`metric`), which holds the share `confidence` of resamples."""
    resampled = _loss_to_score(_resampled_means(_loss(error, metric)[None], n_resamples, seed), metric)
    lower, upper = np.quantile(resampled[0], ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    return lower, upper


def compute_score(error: Vector, metric: str) -> float:
    """Return the RMSE or MAE (`metric`) of errors."""
    return float(_loss_to_score(_loss(error, metric).mean(), metric))


def _loss(error: Vector, metric: str) -> Vector:
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
