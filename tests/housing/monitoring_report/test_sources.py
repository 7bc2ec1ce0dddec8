"""Sources of a report: percentiles and errors equal numpy's, memory does not grow, the last of two true values counts."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from housing.data.units import Units
from housing.evaluation.bootstrap import bootstrap_interval
from housing.feedback.log_reader import LogFilter
from housing.monitoring_report.latency import LatencyHistogram
from housing.monitoring_report.realised_error import RealisedError, label_store
from housing.monitoring_report.timeline import MAX_BUCKETS, MAX_LABEL_BUCKETS, Timeline
from housing.monitoring_report.traffic import MAX_ROUTES, read_traffic

DAY = 86_400
TIMELINE = Timeline(1_000_000_000.0, 1_000_000_000.0 + 7 * DAY)


def entry(index: int, **fields: Any) -> dict[str, Any]:
    """Return an entry of the prediction log, a second after the previous one."""
    common = {"id": f"{index:024d}", "time": TIMELINE.since + index, "version": "1", "columns": ["area"], "route": "/predict"}
    return {**common, "rows": [[1.0], [2.0]], "predictions": [1.0, 2.0], "latency_ms": 1.0 + index % 7, **fields}


def lines(count: int) -> Iterator[bytes]:
    """Yield lines of the prediction log."""
    return (json.dumps(entry(index)).encode() for index in range(count))


def joined(index: int, row: int, error: float, arrived: float = 0.0) -> dict[str, Any]:
    """Return a row with a true value of 0; the request is a minute after the previous one."""
    moment = TIMELINE.since + 60 * index
    request_id = f"{int(1000 * moment):012x}-00-{index:08x}"
    return {"id": request_id, "row": row, "value": 0.0, "prediction": error, "time": moment + arrived}


@pytest.mark.parametrize("days", [0.01, 1, 7, 30, 4000])
def test_a_timeline_has_few_buckets_that_hold_each_moment(days: float) -> None:
    timeline = Timeline(TIMELINE.since + 100, TIMELINE.since + 100 + days * DAY)
    for part, most in ((timeline, MAX_BUCKETS), (timeline.coarser(), MAX_LABEL_BUCKETS)):
        buckets = part.buckets
        assert 1 <= len(buckets) <= most + 1
        assert buckets[0] <= part.since and part.until <= buckets[-1] + part.width
        assert {part.bucket(moment) for moment in np.linspace(part.since, part.until - 1, 500)} <= set(buckets)


def test_percentiles_equal_those_of_numpy_to_a_percent_with_intervals_if_there_are_enough() -> None:
    latencies, histogram = np.random.default_rng(0).lognormal(0, 1, 5000), LatencyHistogram()
    for latency in latencies:
        histogram.add(float(latency))
    for level in (0.5, 0.95, 0.99):
        measured = histogram.quantile(level)
        assert measured.value == pytest.approx(float(np.quantile(latencies, level)), rel=0.015)
        assert measured.lower is not None and measured.upper is not None
        assert measured.lower < measured.value < measured.upper
    few = LatencyHistogram()
    for latency in (0.0, 1.0, 1e9):
        few.add(latency)
    assert (few.quantile(0.99).lower, few.quantile(0.99).upper) == (None, None)


def test_intervals_of_percentiles_hold_in_95_percent_of_samples() -> None:
    random, hits = np.random.default_rng(1), 0
    for _ in range(200):
        histogram = LatencyHistogram()
        for latency in random.exponential(5.0, 400):
            histogram.add(float(latency))
        measured = histogram.quantile(0.9)
        assert measured.lower is not None and measured.upper is not None
        hits += measured.lower / 1.01 <= 5.0 * np.log(10) <= measured.upper * 1.01
    assert hits / 200 >= 0.9


def test_traffic_counts_versions_failures_and_damaged_lines_of_the_period() -> None:
    entries = [
        entry(1),
        entry(2, version="2", name="m@a", latency_ms="fast"),
        entry(3, rows=[], predictions=[], failed="ValueError"),
        entry(8 * DAY),
    ]
    traffic = read_traffic(
        [*(json.dumps(item).encode() for item in entries), b"damaged"], TIMELINE, LogFilter(until=TIMELINE.until)
    )
    assert (traffic.malformed, traffic.total.requests, traffic.total.rows, traffic.total.failed) == (1, 3, 4, 1)
    assert set(traffic.versions) == {"1", "m@a:2"}
    assert traffic.all_latencies.total == 2


def test_routes_do_not_grow_without_bound() -> None:
    damaged = (json.dumps(entry(index, route=f"/{index}")).encode() for index in range(3 * MAX_ROUTES))
    assert len(read_traffic(damaged, TIMELINE, LogFilter()).latency_by_route) <= MAX_ROUTES + 1


def test_memory_does_not_grow_with_the_log() -> None:
    peaks = []
    for count in (2000, 2000, 40_000):  # the first one pays for imports
        tracemalloc.start()
        read_traffic(lines(count), Timeline(TIMELINE.since, TIMELINE.since + count), LogFilter())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 4 * peaks[1] + 2_000_000  # 200 buckets of latencies at most


def measure(rows: list[dict[str, Any]]) -> RealisedError:
    """Return the realised error of one version."""
    with label_store(TIMELINE) as store:
        store.add(("1", row) for row in rows)
        return store.by_version()["1"]


def test_realised_errors_and_their_intervals_are_those_of_requests() -> None:
    random = np.random.default_rng(2)
    rows, values, units = [], [], []
    for request in range(400):
        shared = random.normal()
        for row in range(int(random.integers(1, 6))):
            value = float(shared + 0.3 * random.normal())
            rows.append(joined(request, row, value))
            values.append(value)
            units.append(request)
    realised, error = measure(rows), np.array(values)
    assert (realised.labels, realised.requests) == (len(rows), 400)
    assert realised.rmse.value == pytest.approx(float(np.sqrt(np.square(error).mean())))
    assert realised.mae.value == pytest.approx(float(np.abs(error).mean()))
    assert realised.mean_error.value == pytest.approx(float(error.mean()))
    expected = bootstrap_interval(error, "rmse", 0.95, 2000, 0, Units("requests", np.array(units)))
    assert expected is not None and realised.rmse.lower is not None and realised.rmse.upper is not None
    assert (realised.rmse.lower, realised.rmse.upper) == pytest.approx(expected, rel=0.02)


def test_few_requests_have_no_interval_and_the_last_of_two_true_values_counts() -> None:
    rows = [joined(0, 0, 5.0, arrived=2.0), joined(0, 0, 9.0, arrived=1.0), joined(0, 0, 3.0, arrived=3.0), joined(1, 0, -3.0)]
    realised = measure(rows)
    assert (realised.labels, realised.rmse.value, realised.mean_error.value) == (2, 3.0, 0.0)
    assert not realised.rmse.has_interval


def test_errors_are_told_apart_by_version_and_time() -> None:
    with label_store(TIMELINE) as store:
        store.add([("1", joined(0, 0, 1.0)), ("m@a:2", joined(0, 1, 2.0)), ("1", joined(3000, 0, 4.0))])
        by_bucket = store.by_bucket()
    assert {key: [item.rmse.value for item in buckets.values()] for key, buckets in by_bucket.items()} == {
        "1": [1.0, 4.0],
        "m@a:2": [2.0],
    }
