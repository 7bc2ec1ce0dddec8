"""The application factory, which wires the parts of the server."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flask import Flask

from housing.core.traces import are_traced, start_tracer
from housing.server_files.request_id import make_id_generator
from housing.server_files.rotating_file import FEEDBACK, PREDICTIONS, RotatingFile
from server.api.auth import Access
from server.api.explanation import explain_row, explanation_blueprint
from server.api.feedback import feedback
from server.api.metrics_route import install_metrics
from server.api.prediction import FAST_ROUTES, PredictionApi, Reader
from server.api.routes import api_blueprint
from server.api.row_reader import RowReader
from server.core import worker_id
from server.core.errors import register_error_handlers
from server.core.settings import Settings
from server.inference_protocol.inference import INFER_ROUTE, TensorReader
from server.inference_protocol.routes import inference_blueprint
from server.metrics.model_metrics import ModelMetrics
from server.metrics.request_metrics import StageHistogram
from server.models.served_models import ServedModels
from server.prediction_log.writer import FileHandler, PredictionLog
from server.transport.cors import CorsMiddleware
from server.transport.fast_path import Application, FastPath
from server.transport.metrics_port import MetricsPortGuard
from server.ui.pages import pages_blueprint


def create_app() -> Application:
    """Return the application that the environment describes."""
    settings = Settings.from_environment()
    app = Flask(__name__, root_path=str(Path(__file__).parent / "ui"))
    app.config.update(
        MODEL=settings.model,
        ALIAS=settings.alias,
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_ROWS=settings.max_rows,
        EXPLAIN_MAX_EXACT_COLUMNS=settings.explain_max_exact_columns,
        FEEDBACK_TIMEOUT=settings.feedback_timeout_seconds,
        EXPLAIN_SAMPLES=settings.explain_samples,
    )
    worker, metrics = worker_id.acquire_worker_id(settings.log_dir), Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    new_metrics = partial(ModelMetrics, metrics, worker)
    poll_seconds = min(settings.poll_seconds, 1.0) if settings.webhook_port else settings.poll_seconds  # of the release folder
    models = ServedModels(
        settings.list_models(), poll_seconds, new_metrics, settings.max_memory_mb, settings.trusted_keys, settings.adaptation_dir
    )
    access = Access.from_settings(settings.keys_file, settings.rate_limit)
    log = PredictionLog(FileHandler(_log_file(settings, PREDICTIONS, worker)), settings.log_queue)
    observe_stages = StageHistogram(metrics, worker).observe
    tensor_reader = TensorReader(settings.max_rows, partial(explain_row, app.config))
    readers: dict[str, Reader] = {**dict.fromkeys(FAST_ROUTES, RowReader(settings.max_rows)), INFER_ROUTE: tensor_reader}
    new_api: Callable[..., PredictionApi] = PredictionApi
    trace: Callable[[Application], Application] | None = None
    if are_traced(os.environ):
        from server.transport import tracing  # pylint: disable=import-outside-toplevel  # needs the extra `traces`

        tracer = start_tracer()
        new_api, trace = partial(tracing.TracedPredictionApi, tracer), partial(tracing.TracingMiddleware, tracer)
        app.after_request(tracing.name_span)
    api = new_api(models, access, readers, make_id_generator(worker), log.write, observe_stages)
    feedback_file = _log_file(settings, FEEDBACK, worker)
    app.extensions |= {"models": models, "access": access, "feedback": feedback_file}
    install_metrics(app, models, readers)  # first, so that it also counts rejected requests
    for blueprint in (api_blueprint, explanation_blueprint, feedback, inference_blueprint, pages_blueprint):
        app.register_blueprint(blueprint)
    register_error_handlers(app)
    application: Application = FastPath(app, api, settings.max_body)
    if trace:
        application = trace(application)
    if settings.cors_origins:
        application = CorsMiddleware(application, settings.cors_origins.split(","))
    return MetricsPortGuard(application, settings.metrics_port) if settings.metrics_port else application


def _log_file(settings: Settings, kind: str, worker: int) -> RotatingFile:
    limits = settings.log_max_bytes, settings.log_backups, settings.log_retention_days
    return RotatingFile(settings.log_dir, f"{kind}-{worker}", *limits)
