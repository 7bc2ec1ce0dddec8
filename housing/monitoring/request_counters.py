"""Increases of the server's request counters by hour: refused values, requests that failed, and entries missing from the log.

Prometheus needs them as totals only. The prediction log has none of them, so that a report of a period would not know them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from housing.monitoring.database import HOUR_SECONDS, MonitorDatabase
from housing.server_files.metric_files import read_series

NAME = "request_counters"  # of the state
PROBES = ("/healthz", "/readyz", "/ping", "/health", "/version", "/metrics")  # a 503 of /readyz harms no client
REFUSED_VALUES, FAILED_REQUESTS, DROPPED = "refused_values", "failed_requests", "dropped"
FIRST_FAILURE = 400  # the lowest HTTP status of an error


@dataclass(frozen=True)
class RequestCounter:
    """A counter of the server.

    Attributes
    ----------
    kind
        REFUSED_VALUES, FAILED_REQUESTS or DROPPED (entries of the prediction log).
    labels
        Column and reason of refused values; route and status of failed requests.
    """

    kind: str
    labels: tuple[str, ...] = ()

    def to_key(self) -> str:
        """Return the counter as text."""
        return json.dumps([self.kind, *self.labels])

    @classmethod
    def from_key(cls, key: str) -> "RequestCounter":
        """Return the counter of a text."""
        kind, *labels = json.loads(key)
        return cls(kind, tuple(labels))


def record_increases(database: MonitorDatabase, metrics_dir: Path, now: float) -> None:
    """Add the increases since the last call to those of the present hour. The first call counts from the start of the server.

    Raises OSError if a file of the metrics cannot be read.
    """
    state, hour, totals = database.state(NAME, ""), int(now // HOUR_SECONDS * HOUR_SECONDS), _read_totals(metrics_dir)
    is_same_server = state.get("metrics_dir") == str(metrics_dir)
    previous: dict[str, float] = state["totals"] if is_same_server else {}
    increases = {key: _increase(previous.get(key, 0.0), value) for key, value in totals.items()}
    increases = {key: value for key, value in increases.items() if value}
    if increases or not is_same_server or state["hour"] != hour:
        database.add_increases(hour, increases)
        database.set_state(NAME, "", {"metrics_dir": str(metrics_dir), "totals": totals, "hour": hour})


def _increase(previous: float, total: float) -> float:
    """Return the increase of a counter, which begins at 0 again when its server does."""
    return total if total < previous else total - previous


def _read_totals(metrics_dir: Path) -> dict[str, float]:
    totals: dict[str, float] = {}
    for path in metrics_dir.glob("*.db"):
        if path.stat().st_size:  # a worker has created it and not written to it yet
            for series, value, *_ in read_series(path):
                for counter in _parse(series):
                    key = counter.to_key()
                    totals[key] = totals.get(key, 0.0) + value
    return totals


def _parse(series: str) -> Iterator[RequestCounter]:
    """Yield the counter to which a series adds, if it adds to one."""
    if '"housing_rejected_values_total"' in series:
        labels = json.loads(series)[2]
        yield RequestCounter(REFUSED_VALUES, (labels["column"], labels["reason"]))
    elif '"housing_request_seconds_bucket"' in series:  # the files have no count; buckets in them are not cumulative
        labels = json.loads(series)[2]
        if int(labels["status"]) >= FIRST_FAILURE and labels["route"] not in PROBES:
            yield RequestCounter(FAILED_REQUESTS, (labels["route"], labels["status"]))
    elif '"housing_log_dropped_total"' in series:
        yield RequestCounter(DROPPED)
