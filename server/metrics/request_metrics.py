"""Prometheus metrics of requests. No label takes a value from a client."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from prometheus_client import Histogram
from prometheus_client.utils import floatToGoString

from housing.server_files.metric_files import sample_key
from server.metrics.mmap_counters import MmapCounters

# Seconds, with an edge on each latency target; the default buckets start at 5 ms.
BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)
STAGES = ("parse", "validate", "predict", "serialise")
STAGE_BUCKETS = (0.00001, 0.000025, *BUCKETS)
STAGE_METRIC = "housing_stage_seconds"
PRESET_STATUSES = (200, 422, 500, 503)  # series of the fast routes that start at 0: Prometheus sees no increase in a new series
REQUEST_SECONDS = Histogram("housing_request_seconds", "Time to answer a request.", ("route", "status"), buckets=BUCKETS)


def observe_request(route: str, status: int, seconds: float, name: str = "") -> None:
    """Count a request and its duration. The name is that of the model if the server has several and the path has it."""
    _request_histogram(route, status, name).observe(seconds)


@cache  # a lookup of labels takes longer than counting, and there are few
def _request_histogram(route: str, status: int, name: str = "") -> Histogram:
    if not name:
        return REQUEST_SECONDS.labels(route, str(status))
    path = route.replace("<name>", name) if "<name>" in route else f"/models/{name}{route}"
    for preset in PRESET_STATUSES:  # with the first request of a model
        REQUEST_SECONDS.labels(path, str(preset))
    return REQUEST_SECONDS.labels(path, str(status))


class StageHistogram:
    """Histogram of the duration of each stage of a prediction, in one worker."""

    def __init__(self, metrics: Path, worker_id: int) -> None:
        keys = [series for stage in STAGES for series in _stage_keys(stage)]
        self._counters = MmapCounters(metrics / f"histogram_{worker_id}-stages.db", keys)
        self._size = len(keys)
        self._offsets = range(0, len(keys), len(STAGE_BUCKETS) + 2)

    def observe(self, seconds: Sequence[float]) -> None:
        """Count a prediction, given the seconds of each stage."""
        numbers = np.zeros(self._size)
        for start, duration in zip(self._offsets, seconds, strict=True):
            numbers[start] = duration
            numbers[start + 1 + bisect_left(STAGE_BUCKETS, duration)] = 1.0
        self._counters.add(numbers)


def _stage_keys(stage: str) -> Iterator[str]:
    """Yield the series of the sum, then those of the buckets, as in the client's own histogram."""
    description, labels = "Duration of the stages of a prediction.", {"stage": stage}
    yield sample_key(STAGE_METRIC, f"{STAGE_METRIC}_sum", description, labels)
    for edge in (*STAGE_BUCKETS, np.inf):
        yield sample_key(STAGE_METRIC, f"{STAGE_METRIC}_bucket", description, {**labels, "le": floatToGoString(edge)})  # type: ignore[no-untyped-call]
