"""How far a difference of two models may be chance: both are scored on the same resampled rows, again and again.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993): the percentile interval, of paired differences.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector

BATCH_SIZE = 4_000_000  # rows that are drawn in one step: 64 MB


@dataclass(frozen=True)
class PairedDifference:
    """By how much a challenger's score is above a champion's on the same rows; below 0 it is better."""

    rows: int
    challenger_score: float
    champion_score: float
    difference: float  # mine - theirs, in the target's unit
    lower: float  # one-sided: the difference is above this with the certainty that was asked for
    upper: float  # and below this

    @property
    def is_better(self) -> bool:
        """Whether the challenger is better for certain."""
        return self.upper < 0

    @property
    def is_worse(self) -> bool:
        """Whether the challenger is worse for certain."""
        return self.lower > 0


def paired_bootstrap(
    challenger_error: Vector, champion_error: Vector, metric: str, confidence: float, n_resamples: int, seed: int
) -> PairedDifference:
    """Compare the errors of two models on the same rows by their RMSE or MAE (`metric`).

    `certainty` is one-sided: of `resamples` draws of as many rows, that share lies above `low`, and below `high`.
    """
    losses = np.stack([_loss(challenger_error, metric), _loss(champion_error, metric)])
    my_score, their_score = compute_score(challenger_error, metric), compute_score(champion_error, metric)
    drawn = _loss_to_score(_resampled_means(losses, n_resamples, seed), metric)
    low, high = np.quantile(drawn[0] - drawn[1], (1 - confidence, confidence)).tolist()
    return PairedDifference(losses.shape[1], my_score, their_score, my_score - their_score, low, high)


def compute_score(error: Vector, metric: str) -> float:
    """Give the RMSE or MAE of errors."""
    return float(_loss_to_score(_loss(error, metric).mean(), metric))


def _loss(error: Vector, metric: str) -> Vector:
    return np.square(error) if metric == "rmse" else np.abs(error)


def _loss_to_score(means: Any, metric: str) -> Any:
    return np.sqrt(means) if metric == "rmse" else means


def _resampled_means(losses: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Give the means of resampled rows, shape (models, resamples); each resample is one draw for all models."""
    random, rows = np.random.default_rng(seed), losses.shape[1]
    step = max(1, BATCH_SIZE // rows)
    counts = [min(step, n_resamples - done) for done in range(0, n_resamples, step)]
    draws = (random.integers(rows, size=(count, rows)) for count in counts)
    return np.concatenate([np.stack([loss[draw].mean(axis=1) for loss in losses]) for draw in draws], axis=1)
