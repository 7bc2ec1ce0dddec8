"""Prometheus metrics of requests, and of what is served. No label takes a value from a caller."""

import logging
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

from housing.errors import BundleError
from server.cells import Cells
from server.metric_files import key_of_part
from server.model import InUse

# Seconds; an edge on each target, where the default ones begin at 5 ms.
BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)
STAGES = ("parse", "validate", "predict", "serialise")
STAGE_BUCKETS = (0.00001, 0.000025, *BUCKETS)
STAGE = "housing_stage_seconds"
FREQUENT = (200, 422, 500, 503)  # statuses of the hot routes that are there at 0: what is new is no rise to Prometheus
ATTEMPTS = 5  # to read files of which one is removed now and then

REQUESTS = Histogram("housing_request_seconds", "Time to answer a request.", ("route", "status"), buckets=BUCKETS)

log = logging.getLogger(__name__)


def observe(route: str, status: int, seconds: float) -> None:
    """Count a request and the time it took."""
    _requests(route, status).observe(seconds)


@cache  # looking the labels up takes longer than counting; there are few
def _requests(route: str, status: int) -> Histogram:
    return REQUESTS.labels(route, str(status))


class Stages:
    """The histogram of how long each stage of a prediction took, of one worker."""

    def __init__(self, metrics: Path, slot: int) -> None:
        keys = [series for stage in STAGES for series in _stage_keys(stage)]
        self._cells = Cells(metrics / f"histogram_{slot}-stages.db", keys)
        self._size = len(keys)
        self._starts = range(0, len(keys), len(STAGE_BUCKETS) + 2)

    def observe(self, seconds: Sequence[float]) -> None:
        """Count a prediction by the seconds of each of its stages."""
        numbers = np.zeros(self._size)
        for start, took in zip(self._starts, seconds, strict=True):
            numbers[start] = took
            numbers[start + 1 + bisect_left(STAGE_BUCKETS, took)] = 1.0
        self._cells.add(numbers)


def _stage_keys(stage: str) -> Iterator[str]:
    """Give the sum's series, then one for each bucket, as the client's own histogram has them."""
    meaning, labels = "Time that the stages of a prediction took.", {"stage": stage}
    yield key_of_part(STAGE, f"{STAGE}_sum", meaning, labels)
    for edge in (*STAGE_BUCKETS, np.inf):
        yield key_of_part(STAGE, f"{STAGE}_bucket", meaning, {**labels, "le": floatToGoString(edge)})  # type: ignore[no-untyped-call]


class Served(Collector):
    """What is served, as the worker that is asked knows it: nothing of a worker that is gone, or of a version before."""

    def __init__(self, in_use: InUse) -> None:
        self._in_use = in_use

    def collect(self) -> Iterator[Metric]:
        """Give whether there is a model, and which one."""
        labels = ("version", "run_id", "data", "alias", "model")
        info = GaugeMetricFamily("housing_model_info", "The version in use, where it came from and its data.", labels=labels)
        try:
            model = self._in_use.get()
            card, served = model.bundle.card, model.served
            told = [served["version"], card["run_id"], card["data"]["fingerprint"], served["alias"], served["model"]]
            info.add_metric(told, 1.0)
        except BundleError:
            pass  # then there is none, which the next one says
        yield GaugeMetricFamily("housing_ready", "Whether a model is in use.", value=float(bool(info.samples)))
        yield info


class _Exporter(GunicornInternalPrometheusMetrics):  # type: ignore[misc]  # the exporter has no types
    """Gives all workers' sums, and what is served. Of the files in the folder, those of an old version may go meanwhile."""

    def generate_metrics(self, accept_header: str | None = None, names: Any = None) -> tuple[str, str]:
        """Give all metrics, whichever names are asked for, and their content type."""
        encode, content_type = choose_encoder(accept_header or "")
        for _ in range(ATTEMPTS):
            try:
                return encode(self.registry).decode(), content_type
            except FileNotFoundError as error:
                log.info("metrics are read again: %s", error)
        raise RuntimeError(f"the files of metrics changed {ATTEMPTS} times while they were read")


def measure(app: Flask, in_use: InUse, hot_routes: Sequence[str]) -> None:
    """Time every request of the app that is not counted already, and give all workers' sums at /metrics."""
    for route in hot_routes:
        for status in FREQUENT:
            _requests(route, status)

    @app.before_request
    def start() -> None:
        g.start, g.counted = time.perf_counter(), False

    @app.after_request
    def stop(answer: Response) -> Response:
        if not g.counted:
            route = request.url_rule.rule if request.url_rule else "unknown"
            observe(route, answer.status_code, time.perf_counter() - g.start)
        return answer

    registry = CollectorRegistry()
    registry.register(Served(in_use))
    _Exporter(app, export_defaults=False, registry=registry)
