"""The monitor's results of a period: estimated errors and drift of windows, summed by version and time."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from housing.monitoring.database import Result
from housing.monitoring.estimated_error import EstimatedError
from housing.monitoring.multivariate_drift import MultivariateDriftAnalysis
from housing.monitoring_report.timeline import Timeline

N_STANDARD_ERRORS = 2.0  # on both sides of an estimate


@dataclass
class Estimates:
    """Estimated RMSEs of windows. Their standard errors share the model of the error, so that their mean is no smaller."""

    windows: int = 0
    rows: int = 0
    _square: float = 0.0
    _rmse_error: float = 0.0
    held_out_rmse: float = 0.0
    first_correction: float = 1.0
    last_correction: float = 1.0

    def add(self, rows: int, result: dict[str, float]) -> None:
        """Add a window, in the order of time."""
        self.first_correction = self.first_correction if self.windows else result["correction"]
        self.windows += 1
        self.rows += rows
        self._square += rows * result["rmse"] ** 2
        self._rmse_error += rows * result["rmse_standard_error"]
        self.held_out_rmse, self.last_correction = result["held_out_rmse"], result["correction"]

    @property
    def rmse(self) -> float:
        """The estimated RMSE of all rows."""
        return math.sqrt(self._square / self.rows)

    @property
    def rmse_range(self) -> tuple[float, float]:
        """The estimated RMSE less and plus two standard errors."""
        margin = N_STANDARD_ERRORS * self._rmse_error / self.rows
        return max(self.rmse - margin, 0.0), self.rmse + margin


@dataclass
class Drift:
    """Multivariate drift of windows.

    Attributes
    ----------
    drifted
        Windows beyond what chance explains.
    highest_z
        The largest distance from chance, in standard deviations.
    columns
        By how much the AUC falls without each column, summed over windows that drifted.
    contributions
        The share of each column in all contributions to predictions.
    """

    windows: int = 0
    rows: int = 0
    drifted: int = 0
    highest_z: float = float("-inf")
    columns: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    contributions: dict[str, float] = field(default_factory=dict)

    def add(self, rows: int, result: dict[str, float | dict[str, float]]) -> None:
        """Add a window."""
        z, columns, contributions = result["z"], result["columns"], result["contributions"]
        assert isinstance(z, float | int) and isinstance(columns, dict) and isinstance(contributions, dict)
        self.windows += 1
        self.rows += rows
        self.highest_z = max(self.highest_z, z)
        self.contributions = contributions
        if result["has_drifted"]:
            self.drifted += 1
            for name, loss in columns.items():
                self.columns[name] += loss


@dataclass
class Windows:
    """Results by key of the version and by bucket, estimates by that of the coarser timeline, like true values.

    Attributes
    ----------
    no_estimate, no_drift
        Versions whose bundle cannot tell.
    """

    estimates: dict[str, Estimates] = field(default_factory=lambda: defaultdict(Estimates))
    estimates_by_bucket: dict[str, dict[int, Estimates]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Estimates))
    )
    drift: dict[str, Drift] = field(default_factory=lambda: defaultdict(Drift))
    drift_by_bucket: dict[str, dict[int, Drift]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Drift)))
    no_estimate: set[str] = field(default_factory=set)
    no_drift: set[str] = field(default_factory=set)


def sum_windows(results: Iterable[Result], timeline: Timeline) -> Windows:
    """Sum the results of windows, in the order of time."""
    windows = Windows()
    for item in results:
        key = item.key
        end = min(item.last_time, timeline.until - 1)  # a window may end after the period
        is_available = item.result.get("available")
        if item.analysis == EstimatedError.name:
            if not is_available:
                windows.no_estimate.add(key)
                continue
            windows.estimates[key].add(item.n_rows, item.result)
            windows.estimates_by_bucket[key][timeline.coarser().bucket(end)].add(item.n_rows, item.result)
        elif item.analysis == MultivariateDriftAnalysis.name:
            if not is_available:
                windows.no_drift.add(key)
                continue
            windows.drift[key].add(item.n_rows, item.result)
            windows.drift_by_bucket[key][timeline.bucket(end)].add(item.n_rows, item.result)
    return windows
