"""The numbers of a monitoring report, for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from housing.monitoring.request_counters import FAILED_REQUESTS, REFUSED_VALUES
from housing.monitoring_report.measured import Measured
from housing.monitoring_report.period_data import PeriodData
from housing.monitoring_report.realised_error import RealisedError
from housing.promotion.decision_log import DecisionRecord

LEVELS = (0.5, 0.95, 0.99)  # percentiles of latencies


@dataclass(frozen=True)
class EstimatedRmse:
    """The estimated RMSE of all windows of a version.

    Attributes
    ----------
    lower, upper
        The estimate less and plus two standard errors. They are too narrow on shifted rows.
    held_out_rmse
        The RMSE of the held-out rows of the training.
    correction
        The ratio of realised to estimated RMSE that feedback has shown, shrunk towards 1, in the last window.
    """

    windows: int
    rows: int
    value: float
    lower: float
    upper: float
    held_out_rmse: float
    correction: float


@dataclass(frozen=True)
class VersionSummary:
    """Requests, errors and drift of a version.

    Attributes
    ----------
    model
        The name of the model if the server has several, else "".
    failed
        Requests that ended with status 500.
    estimated_rmse, realised
        The error before and after true values are known; None if it is unknown.
    windows, drifted_windows
        Windows that were compared with the training rows, and those beyond chance.
    """

    model: str
    version: str
    requests: int
    rows: int
    failed: int
    estimated_rmse: EstimatedRmse | None
    realised: RealisedError | None
    windows: int
    drifted_windows: int

    @property
    def key(self) -> str:
        """The key of the version: see `totals_key`."""
        return f"{self.model}:{self.version}" if self.model else self.version


@dataclass(frozen=True)
class RefusedValues:
    """Values that validation refused.

    Attributes
    ----------
    column
        The column, or "other" for a column that the table does not have.
    """

    column: str
    reason: str
    count: int


@dataclass(frozen=True)
class FailedRequests:
    """Requests that were answered with an error status, by route."""

    route: str
    status: str
    count: int


@dataclass(frozen=True)
class MonitoringReport:
    """A report about a period of a server.

    Attributes
    ----------
    page
        The HTML page.
    latency_ms
        Percentiles of the latency without the network, such as p99.
    versions
        In the order of their first requests.
    refused_values, failed_requests
        None if no monitor recorded them.
    decisions
        Newest first; None if the decision log cannot be read.
    unknown
        What is unknown or known in part, and what to switch on.
    """

    page: Path
    since: datetime
    until: datetime
    requests: int
    rows: int
    latency_ms: dict[str, Measured]
    versions: Sequence[VersionSummary]
    refused_values: Sequence[RefusedValues] | None
    failed_requests: Sequence[FailedRequests] | None
    decisions: Sequence[DecisionRecord] | None
    unknown: Sequence[str]


def summarise(data: PeriodData, unknown: Sequence[str], page: Path) -> MonitoringReport:
    """Return the numbers of a period."""
    total, latencies, counts = data.traffic.total, data.traffic.all_latencies, data.request_counts
    is_recorded = bool(counts.hours)
    refused = [RefusedValues(labels[0], labels[1], n) for labels, n in counts.of_kind(REFUSED_VALUES).items()]
    failed = [FailedRequests(labels[0], labels[1], n) for labels, n in counts.of_kind(FAILED_REQUESTS).items()]
    return MonitoringReport(
        page,
        datetime.fromtimestamp(data.timeline.since, UTC),
        datetime.fromtimestamp(data.timeline.until, UTC),
        total.requests,
        total.rows,
        {f"p{100 * level:.0f}": latencies.quantile(level) for level in LEVELS} if latencies.total else {},
        [_summarise_version(data, key) for key in data.versions],
        refused if is_recorded else None,
        failed if is_recorded else None,
        data.decisions,
        unknown,
    )


def _summarise_version(data: PeriodData, key: str) -> VersionSummary:
    model, _, version = key.rpartition(":")
    traffic, drift = data.traffic.versions.get(key), data.windows.drift.get(key)
    return VersionSummary(
        model,
        version,
        0 if traffic is None else traffic.requests,
        0 if traffic is None else traffic.rows,
        0 if traffic is None else traffic.failed,
        _estimated(data, key),
        data.realised.get(key),
        0 if drift is None else drift.windows,
        0 if drift is None else drift.drifted,
    )


def _estimated(data: PeriodData, key: str) -> EstimatedRmse | None:
    estimates = data.windows.estimates.get(key)
    if estimates is None:
        return None
    lower, upper = estimates.rmse_range
    held_out, correction = estimates.held_out_rmse, estimates.last_correction
    return EstimatedRmse(estimates.windows, estimates.rows, estimates.rmse, lower, upper, held_out, correction)
