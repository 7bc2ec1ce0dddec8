"""Prometheus metrics. No label takes a value from a caller."""

import time
from functools import cache

from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

# Seconds; an edge on each target, where the default ones begin at 5 ms.
BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)

REQUESTS = Histogram("housing_request_seconds", "Time to answer a request.", ("route", "status"), buckets=BUCKETS)
ROWS = Counter("housing_rows_total", "Rows predicted.")


def observe(route: str, status: int, seconds: float, rows: int) -> None:
    """Count a request, the time it took and the rows that were predicted."""
    _requests(route, status).observe(seconds)
    if rows:
        ROWS.inc(rows)


@cache  # looking the labels up takes longer than counting; there are few
def _requests(route: str, status: int) -> Histogram:
    return REQUESTS.labels(route, str(status))


def measure(app: Flask) -> None:
    """Time every request of the app that is not counted already, and give all workers' sums at /metrics."""

    @app.before_request
    def start() -> None:
        g.start, g.counted = time.perf_counter(), False

    @app.after_request
    def stop(answer: Response) -> Response:
        if not g.counted:
            route = request.url_rule.rule if request.url_rule else "unknown"
            observe(route, answer.status_code, time.perf_counter() - g.start, 0)
        return answer

    GunicornInternalPrometheusMetrics(app, export_defaults=False)
