"""The metrics route: `GET /metrics` sums the metrics of all workers for Prometheus."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_flask_exporter.multiprocess import GunicornInternalPrometheusMetrics

from housing.server_files.metric_files import METRICS_DIR_VARIABLE
from server.metrics.request_metrics import PRESET_STATUSES, _request_histogram, observe_request
from server.models.served_models import ServedModels

MAX_READS = 5  # attempts, since a metric file may be removed during a read
INFO_LABELS = ("version", "run_id", "data", "alias", "model", "name")

log = logging.getLogger(__name__)


class ModelInfoCollector(Collector):
    """Collects readiness and the current versions from the answering worker, never from old metric files."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield whether there is a model, and the version and origin of each model in memory."""
        info = GaugeMetricFamily("housing_model_info", "The current version, its origin and its data.", labels=INFO_LABELS)
        for model in self._models.in_memory():
            card, release = model.bundle.card, model.release
            values = (release["version"], card["run_id"], card["data"]["fingerprint"], release["alias"], release["model"])
            info.add_metric((*values, model.name) if model.name else values, 1.0)  # the last label only if it has a value
        yield GaugeMetricFamily("housing_ready", "Whether a model is available.", value=float(self._models.is_ready))
        yield info


class _MetricFiles(MultiProcessCollector):
    """Reads the metric files of all processes, without those that a process has created and not given a size yet."""

    def collect(self) -> Iterable[Metric]:
        """Return the sums of all files."""
        files = [str(file) for file in Path(os.environ[METRICS_DIR_VARIABLE]).glob("*.db") if file.stat().st_size]
        return self.merge(files)  # type: ignore[no-untyped-call]


class _Exporter(GunicornInternalPrometheusMetrics):  # type: ignore[misc]  # the exporter has no types
    """Exports the sums of all workers. Files of old versions may disappear during a read."""

    def generate_metrics(self, accept_header: str | None = None, names: Any = None) -> tuple[str, str]:
        """Return all metrics, whatever `names` are requested, and their content type."""
        encode, content_type = choose_encoder(accept_header or "")
        for _ in range(MAX_READS):
            try:
                return encode(self.registry).decode(), content_type
            except FileNotFoundError as error:
                log.info("Reading the metric files again: %s", error)
        raise RuntimeError(f"The metric files changed during each of {MAX_READS} reads.")


def install_metrics(app: Flask, models: ServedModels, fast_routes: Iterable[str]) -> None:
    """Time every request that the fast routes do not count themselves, and serve /metrics."""
    for route in fast_routes:
        for status in PRESET_STATUSES:
            _request_histogram(route, status)

    @app.before_request
    def start() -> None:
        g.start = time.perf_counter()

    @app.after_request
    def stop(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "unknown"
        observe_request(route, response.status_code, time.perf_counter() - g.start)
        return response

    registry = CollectorRegistry()
    registry.register(ModelInfoCollector(models))
    _MetricFiles(registry)  # type: ignore[no-untyped-call]
    _Exporter(app, export_defaults=False).registry = registry  # its own would fail at a file without a size
