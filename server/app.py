"""The app: wires the parts of the server."""

import os
from functools import partial
from pathlib import Path

from flask import Flask

from server.api.auth import Access
from server.api.explanation import explanations
from server.api.ice_curves import curves
from server.api.metrics_route import measure
from server.api.prediction import ROUTES, Api
from server.api.routes import api
from server.core import worker_id
from server.core.errors import handle_errors
from server.core.settings import Settings
from server.feedback.route import feedback
from server.metrics.model_metrics import Counts
from server.metrics.request_metrics import Stages
from server.models.current_model import InUse
from server.prediction_log.request_id import request_ids
from server.prediction_log.rotating_file import FEEDBACK, PREDICTIONS, RotatingFile
from server.prediction_log.writer import FileHandler, PredictionLog
from server.transport.cors import Cors
from server.transport.metrics_port import Ports
from server.transport.wsgi import Application, PlainPath
from server.ui.pages import pages


def create_app() -> Application:
    """Make the app that the environment describes."""
    settings = Settings.from_environment()
    app = Flask(__name__, root_path=str(Path(__file__).parent / "ui"))
    app.config.update(
        MODEL=settings.model,
        ALIAS=settings.alias,
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_ROWS=settings.max_rows,
        EXPLAIN_EXACT=settings.explain_exact,
        EXPLAIN_ROWS=settings.explain_rows,
    )
    worker, metrics = worker_id.take(settings.log_folder), Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    in_use = InUse(settings.folder, settings.poll, partial(Counts, metrics, worker))
    access = Access.configured(settings.keys_file, settings.rate / settings.workers)
    log = PredictionLog(FileHandler(_file(settings, PREDICTIONS, worker)), settings.log_queue)
    answers = Api(in_use, access, settings.max_rows, request_ids(worker), log.write, Stages(metrics, worker).observe)
    app.extensions |= {"in_use": in_use, "access": access, "api": answers, "feedback": _file(settings, FEEDBACK, worker)}
    measure(app, in_use, ROUTES)  # before what may refuse a request
    app.register_blueprint(api)
    app.register_blueprint(explanations)
    app.register_blueprint(feedback)
    app.register_blueprint(curves)
    app.register_blueprint(pages)
    handle_errors(app)
    served: Application = PlainPath(app, answers, settings.max_body)
    if settings.cors_origins:
        served = Cors(served, settings.cors_origins.split(","))
    return Ports(served, settings.metrics_port) if settings.metrics_port else served


def _file(settings: Settings, kind: str, worker: int) -> RotatingFile:
    return RotatingFile(settings.log_folder, f"{kind}-{worker}", settings.log_max_bytes, settings.log_keep, settings.log_days)
