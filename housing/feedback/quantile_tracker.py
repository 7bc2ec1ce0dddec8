"""Online quantiles of scores, for prediction intervals that stay valid while the distribution of errors drifts.

Gibbs and Candès, "Conformal Inference for Online Prediction with Arbitrary Distribution Shifts", JMLR 25 (2024): experts with
different step sizes, weighted by their losses (DtACI). The experts track quantiles of the score by online gradient descent on the
pinball loss, as in Angelopoulos, Candès and Tibshirani, "Conformal PID Control for Time Series Prediction", NeurIPS 2023.
On top of them, levels follow the coverage of the intervals that callers got (Gibbs and Candès, "Adaptive Conformal Inference
Under Distribution Shift", NeurIPS 2021). This removes the bias of late labels; the step shrinks with their delay.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from housing.schema.column import Matrix, Vector

LEVELS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998)
STEPS = np.array([0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2])  # of the experts, in units of the spread of scores
LEARNING_RATE = 0.3  # of the weights of experts, for losses in units of the spread
MEMORY = 500  # labels within which another expert may become the best: a share 1 / (2 * MEMORY) of the weights is spread evenly
MAX_LEVEL_STEP = 0.005  # of the levels in use, for a label that comes at once
DELAYED_STEP = 0.37  # divided by the delay in labels: at most 1 / e, beyond which a delayed integrator oscillates
MAX_ODDS_RATIO = 5.0  # of a level in use and the requested one: after a shock, late labels would drive it to 0 or 1
MAX_SNAPSHOTS, SNAPSHOT_LABELS = 64, 50  # published quantiles that are remembered, and the labels between two of them


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Quantiles that callers got from a time on (Unix seconds), after a number of labels."""

    time: float
    n_labels: int
    used_levels: Vector
    offsets: Vector


class QuantileTracker:
    """Tracks the offset of each level between the quantile of new scores and the calibrated one.

    Parameters
    ----------
    levels
        The tracked levels, ascending, shape (levels,).
    spread
        Standard deviation of the calibration scores, as their quartiles show it.
    """

    def __init__(self, levels: Vector, spread: float) -> None:
        self.levels, self._spread = levels, spread
        shape = len(STEPS), len(levels)
        self._experts, self._weights = np.zeros(shape), np.full(shape, 1 / len(STEPS))
        self.used_levels, self.n_labels = levels.copy(), 0
        self._snapshots = [Snapshot(0.0, 0, levels.copy(), np.zeros(len(levels)))]
        odds = levels / (1 - levels)
        self._bounds = tuple(scaled / (1 + scaled) for scaled in (odds / MAX_ODDS_RATIO, odds * MAX_ODDS_RATIO))

    @property
    def offsets(self) -> Vector:
        """The tracked offsets, shape (levels,)."""
        return np.asarray((self._weights * self._experts).sum(axis=0))

    def learn(self, residuals: Matrix, predicted_at: Vector) -> None:
        """Learn from scores.

        Parameters
        ----------
        residuals
            Scores minus their calibrated quantiles, shape (rows, levels).
        predicted_at
            When each row was predicted (Unix seconds), shape (rows,).
        """
        for residual, time in zip(residuals, predicted_at, strict=True):
            self._follow_coverage(residual, float(time))
            self._follow_scores(residual)
            self.n_labels += 1

    def publish(self, time: float) -> None:
        """Remember that callers get the current quantiles from a time on."""
        if self.n_labels - self._snapshots[-1].n_labels >= SNAPSHOT_LABELS:
            self._snapshots.append(Snapshot(time, self.n_labels, self.used_levels.copy(), self.offsets))
            del self._snapshots[:-MAX_SNAPSHOTS]

    def _follow_coverage(self, residual: Vector, time: float) -> None:
        """Move the levels in use by whether the score was below the quantiles that the caller got."""
        served = next((snapshot for snapshot in reversed(self._snapshots) if snapshot.time <= time), self._snapshots[0])
        distance = np.interp(served.used_levels, self.levels, residual - served.offsets)
        step = min(MAX_LEVEL_STEP, DELAYED_STEP / (self.n_labels - served.n_labels + 1))
        self.used_levels = np.clip(self.used_levels + step * (self.levels - (distance <= 0)), *self._bounds)

    def _follow_scores(self, residual: Vector) -> None:
        distance = residual - self._experts
        loss = np.maximum(self.levels * distance, (self.levels - 1) * distance) / self._spread
        weights = self._weights * np.exp(LEARNING_RATE * (loss.min(axis=0) - loss))
        share = 1 / (2 * MEMORY)
        self._weights = (1 - share) * weights / weights.sum(axis=0) + share / len(STEPS)
        self._experts = self._experts + STEPS[:, np.newaxis] * self._spread * (self.levels - (distance <= 0))

    def to_dict(self) -> dict[str, Any]:
        """Return the state, to be stored as JSON."""
        snapshots = [
            {**vars(snapshot), "used_levels": snapshot.used_levels.tolist(), "offsets": snapshot.offsets.tolist()}
            for snapshot in self._snapshots
        ]
        arrays = {"experts": self._experts, "weights": self._weights, "used_levels": self.used_levels, "levels": self.levels}
        lists = {name: array.tolist() for name, array in arrays.items()}
        return {**lists, "spread": self._spread, "n_labels": self.n_labels, "snapshots": snapshots}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Rebuild a tracker from the result of `to_dict`."""
        tracker = cls(np.array(state["levels"]), state["spread"])
        tracker._experts, tracker._weights = np.array(state["experts"]), np.array(state["weights"])
        tracker.used_levels, tracker.n_labels = np.array(state["used_levels"]), state["n_labels"]
        tracker._snapshots = [
            Snapshot(saved["time"], saved["n_labels"], np.array(saved["used_levels"]), np.array(saved["offsets"]))
            for saved in state["snapshots"]
        ]
        return tracker
