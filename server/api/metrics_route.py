"""TODO docstring."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

from housing.core.errors import BundleError
from server.metrics.request_metrics import PRESET_STATUSES, _request_histogram, observe_request
from server.models.current_model import CurrentModel

MAX_READS = 5  # to read files of which one is removed now and then


log = logging.getLogger(__name__)


class ModelInfoCollector(Collector):
    """What is served, as the worker that is asked knows it: nothing of a worker that is gone, or of a version before."""

    def __init__(self, current_model: CurrentModel) -> None:
        self._current_model = current_model

    def collect(self) -> Iterator[Metric]:
        """Give whether there is a model, and which one."""
        labels = ("version", "run_id", "data", "alias", "model")
        info = GaugeMetricFamily("housing_model_info", "The version in use, where it came from and its data.", labels=labels)
        try:
            model = self._current_model.get()
            card, served = model.bundle.card, model.release
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
        for _ in range(MAX_READS):
            try:
                return encode(self.registry).decode(), content_type
            except FileNotFoundError as error:
                log.info("metrics are read again: %s", error)
        raise RuntimeError(f"the files of metrics changed {MAX_READS} times while they were read")


def install_metrics(app: Flask, current_model: CurrentModel, fast_routes: Sequence[str]) -> None:
    """Time every request of the app that is not counted already, and give all workers' sums at /metrics."""
    for route in fast_routes:
        for status in PRESET_STATUSES:
            _request_histogram(route, status)

    @app.before_request
    def start() -> None:
        g.start, g.counted = time.perf_counter(), False

    @app.after_request
    def stop(answer: Response) -> Response:
        if not g.counted:
            route = request.url_rule.rule if request.url_rule else "unknown"
            observe_request(route, answer.status_code, time.perf_counter() - g.start)
        return answer

    registry = CollectorRegistry()
    registry.register(ModelInfoCollector(current_model))
    _Exporter(app, export_defaults=False, registry=registry)
