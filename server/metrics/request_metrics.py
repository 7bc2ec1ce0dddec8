"""Prometheus metrics of requests, and of what is served. No label takes a value from a caller."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from prometheus_client import Histogram
from prometheus_client.utils import floatToGoString

from server.metrics.mmap_counters import MmapCounters
from server.metrics.mmap_files import sample_key

# Seconds; an edge on each target, where the default ones begin at 5 ms.
BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)


STAGES = ("parse", "validate", "predict", "serialise")


STAGE_BUCKETS = (0.00001, 0.000025, *BUCKETS)


STAGE_METRIC = "housing_stage_seconds"


PRESET_STATUSES = (200, 422, 500, 503)  # statuses of the hot routes that are there at 0: what is new is no rise to Prometheus


REQUEST_SECONDS = Histogram("housing_request_seconds", "Time to answer a request.", ("route", "status"), buckets=BUCKETS)


def observe_request(route: str, status: int, seconds: float) -> None:
    """Count a request and the time it took."""
    _request_histogram(route, status).observe(seconds)


@cache  # looking the labels up takes longer than counting; there are few
def _request_histogram(route: str, status: int) -> Histogram:
    return REQUEST_SECONDS.labels(route, str(status))


class StageHistogram:
    """The histogram of how long each stage of a prediction took, of one worker."""

    def __init__(self, metrics: Path, worker_id: int) -> None:
        keys = [series for stage in STAGES for series in _stage_keys(stage)]
        self._counters = MmapCounters(metrics / f"histogram_{worker_id}-stages.db", keys)
        self._size = len(keys)
        self._offsets = range(0, len(keys), len(STAGE_BUCKETS) + 2)

    def observe(self, seconds: Sequence[float]) -> None:
        """Count a prediction by the seconds of each of its stages."""
        numbers = np.zeros(self._size)
        for start, took in zip(self._offsets, seconds, strict=True):
            numbers[start] = took
            numbers[start + 1 + bisect_left(STAGE_BUCKETS, took)] = 1.0
        self._counters.add(numbers)


def _stage_keys(stage: str) -> Iterator[str]:
    """Give the sum's series, then one for each bucket, as the client's own histogram has them."""
    meaning, labels = "Time that the stages of a prediction took.", {"stage": stage}
    yield sample_key(STAGE_METRIC, f"{STAGE_METRIC}_sum", meaning, labels)
    for edge in (*STAGE_BUCKETS, np.inf):
        yield sample_key(STAGE_METRIC, f"{STAGE_METRIC}_bucket", meaning, {**labels, "le": floatToGoString(edge)})  # type: ignore[no-untyped-call]
