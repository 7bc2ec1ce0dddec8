"""The app: wires the parts of the server."""

import os
from functools import partial
from pathlib import Path

from flask import Flask

from server.api.auth import Access
from server.api.explanation import explanation_blueprint
from server.api.ice_curves import curves_blueprint
from server.api.metrics_route import install_metrics
from server.api.prediction import FAST_ROUTES, PredictionApi
from server.api.routes import api_blueprint
from server.core import worker_id
from server.core.errors import register_error_handlers
from server.core.settings import Settings
from server.feedback.route import feedback
from server.metrics.model_metrics import ModelMetrics
from server.metrics.request_metrics import StageHistogram
from server.models.current_model import CurrentModel
from server.prediction_log.request_id import make_id_generator
from server.prediction_log.rotating_file import FEEDBACK, PREDICTIONS, RotatingFile
from server.prediction_log.writer import FileHandler, PredictionLog
from server.transport.cors import CorsMiddleware
from server.transport.metrics_port import MetricsPortGuard
from server.transport.wsgi import Application, FastPath
from server.ui.pages import pages_blueprint


def create_app() -> Application:
    """Make the app that the environment describes."""
    settings = Settings.from_environment()
    app = Flask(__name__, root_path=str(Path(__file__).parent / "ui"))
    app.config.update(
        MODEL=settings.model,
        ALIAS=settings.alias,
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_ROWS=settings.max_rows,
        EXPLAIN_MAX_EXACT_COLUMNS=settings.explain_max_exact_columns,
        EXPLAIN_SAMPLES=settings.explain_samples,
    )
    worker, metrics = worker_id.acquire_worker_id(settings.log_dir), Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    in_use = CurrentModel(settings.release_dir, settings.poll_seconds, partial(ModelMetrics, metrics, worker))
    access = Access.from_settings(settings.keys_file, settings.rate_limit / settings.workers)
    log = PredictionLog(FileHandler(_file(settings, PREDICTIONS, worker)), settings.log_queue)
    answers = PredictionApi(
        in_use, access, settings.max_rows, make_id_generator(worker), log.write, StageHistogram(metrics, worker).observe
    )
    app.extensions |= {"current_model": in_use, "access": access, "api": answers, "feedback": _file(settings, FEEDBACK, worker)}
    install_metrics(app, in_use, FAST_ROUTES)  # before what may refuse a request
    app.register_blueprint(api_blueprint)
    app.register_blueprint(explanation_blueprint)
    app.register_blueprint(feedback)
    app.register_blueprint(curves_blueprint)
    app.register_blueprint(pages_blueprint)
    register_error_handlers(app)
    served: Application = FastPath(app, answers, settings.max_body)
    if settings.cors_origins:
        served = CorsMiddleware(served, settings.cors_origins.split(","))
    return MetricsPortGuard(served, settings.metrics_port) if settings.metrics_port else served


def _file(settings: Settings, kind: str, worker: int) -> RotatingFile:
    return RotatingFile(
        settings.log_dir, f"{kind}-{worker}", settings.log_max_bytes, settings.log_backups, settings.log_retention_days
    )
