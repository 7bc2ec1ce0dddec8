"""Latencies of requests, counted in bins so that memory does not grow with their number."""

import math

import numpy as np

from housing.monitoring_report.measured import Z_95, Measured

LOWEST_MS, HIGHEST_MS = 0.01, 100_000.0
RATIO = 1.02  # of neighbouring edges: a percentile is exact to 1 %
N_BINS = math.ceil(math.log(HIGHEST_MS / LOWEST_MS, RATIO)) + 1


class LatencyHistogram:
    """Counts of latencies. The edges of the bins are powers of RATIO."""

    def __init__(self) -> None:
        self._counts = np.zeros(N_BINS, dtype=np.int64)

    @property
    def total(self) -> int:
        """The number of requests."""
        return int(self._counts.sum())

    def add(self, milliseconds: float) -> None:
        """Count a request."""
        self._counts[round(math.log(min(max(milliseconds, LOWEST_MS), HIGHEST_MS) / LOWEST_MS, RATIO))] += 1

    def quantile(self, level: float) -> Measured:
        """Return the latency in milliseconds below which a share of the requests lies. There must be a request.

        The ends of the interval are order statistics, as if requests were independent of each other.
        """
        total = self.total
        spread = Z_95 * math.sqrt(total * level * (1 - level))
        first, last = math.floor(total * level - spread), math.ceil(total * level + spread) + 1
        value = self._of_rank(max(math.ceil(total * level), 1))
        if first < 1 or last > total:
            return Measured(value)
        return Measured(value, self._of_rank(first), self._of_rank(last))

    def _of_rank(self, rank: int) -> float:
        return LOWEST_MS * RATIO ** int(np.searchsorted(np.cumsum(self._counts), rank))
