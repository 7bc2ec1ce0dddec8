"""Tracked quantiles: they cover as much as requested while scores drift, also if labels are late, and recover from a shock."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from housing.feedback.quantile_tracker import LEVELS, QuantileTracker
from housing.schema.column import Vector

N_ROWS, BLOCK = 10_000, 50
PROGRESS = np.arange(N_ROWS) / N_ROWS
DRIFTS: dict[str, Callable[[Vector], Vector]] = {
    "none": lambda scores: scores,
    "growing errors": lambda scores: scores * (1 + 1.5 * PROGRESS),
    "shrinking errors": lambda scores: scores / (1 + 1.5 * PROGRESS),
    "a growing bias": lambda scores: scores + 2 * PROGRESS,
}


def covered(scores: Vector, calibration: Vector, delay: int) -> NDArray[np.bool_]:
    """Return which scores are below the tracked quantile of each level, shape (rows, levels)."""
    levels = np.array(LEVELS)
    quantiles = np.quantile(calibration, levels)
    tracker, below = QuantileTracker(levels, float(calibration.std())), []
    for start in range(0, N_ROWS, BLOCK):
        known = slice(max(start - BLOCK - delay, 0), max(start - delay, 0))
        tracker.learn(scores[known, np.newaxis] - quantiles, np.arange(N_ROWS, dtype=np.float64)[known])
        tracker.publish(start)
        used = np.interp(tracker.used_levels, levels, quantiles + tracker.offsets)
        below.append(scores[start : start + BLOCK, np.newaxis] <= used)
    return np.concatenate(below)


def central(below: NDArray[np.bool_], lower: float, upper: float) -> NDArray[np.bool_]:
    """Return which rows are between two levels."""
    return below[:, LEVELS.index(upper)] & ~below[:, LEVELS.index(lower)]


@pytest.mark.parametrize("delay", [0, 1000])
@pytest.mark.parametrize("drift", DRIFTS)
def test_coverage_holds_while_scores_drift(drift: str, delay: int) -> None:
    rng = np.random.default_rng(3)
    scores, calibration = rng.standard_t(6, N_ROWS), rng.standard_t(6, 3000)
    below = covered(DRIFTS[drift](scores), calibration, delay)
    for lower, upper in ((0.25, 0.75), (0.1, 0.9), (0.05, 0.95), (0.025, 0.975)):
        assert central(below, lower, upper).mean() == pytest.approx(upper - lower, abs=0.02), (lower, upper)


def test_coverage_recovers_from_a_shock() -> None:
    rng = np.random.default_rng(4)
    scores, calibration = rng.normal(size=N_ROWS), rng.normal(size=3000)
    scores[5000:] = 3 + 2 * scores[5000:]
    inside = central(covered(scores, calibration, delay=0), 0.05, 0.95)
    assert inside[5000:5050].mean() < 0.5
    assert inside[5200:5700].mean() == pytest.approx(0.9, abs=0.04)
    assert inside[5700:].mean() == pytest.approx(0.9, abs=0.02)


def test_a_stored_tracker_goes_on_as_if_it_had_not_stopped() -> None:
    rng = np.random.default_rng(5)
    residuals = rng.normal(1.0, 1.0, (400, 1)) - np.quantile(rng.normal(size=3000), LEVELS)
    whole = QuantileTracker(np.array(LEVELS), 1.0)
    parts = QuantileTracker(np.array(LEVELS), 1.0)
    for start in range(0, 400, 100):
        rows = residuals[start : start + 100], np.full(100, float(start))
        whole.learn(*rows)
        whole.publish(start)
        parts = QuantileTracker.from_dict(parts.to_dict())
        parts.learn(*rows)
        parts.publish(start)
    assert parts.to_dict() == whole.to_dict()
