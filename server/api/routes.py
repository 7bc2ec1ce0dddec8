"""The HTTP API, all of it: what is not asked a thousand times a second answers here alone."""

from http import HTTPStatus

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import ClientDisconnected

from server.api import prediction
from server.api.auth import FEEDBACK, METRICS, PREDICT, Access, bearer_token
from server.api.context import json_response, require_model
from server.api.prediction import PredictionApi, PredictionRequest
from server.core import shutdown
from server.core.errors import RequestError

api_blueprint = Blueprint("api", __name__)


# What a key must be allowed to for each route; who asks for another needs no key.
RIGHTS = {
    **dict.fromkeys(("/model", "/explain", "/curves", "/examples"), PREDICT),
    "/feedback": FEEDBACK,
    "/metrics": METRICS,
}


# What a browser may load for a page: files of this server, and pictures that stand in them.
CONTENT_SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@api_blueprint.before_app_request
def authorize() -> None:
    """Refuse a request whose key lacks the right for its route. The hot routes see to that themselves."""
    access: Access = current_app.extensions["access"]
    right = RIGHTS.get(request.path)
    if right is not None:
        access.check(bearer_token(request.headers.get("Authorization")), right)


@api_blueprint.after_app_request
def add_security_headers(response: Response) -> Response:
    """Tell browsers to guess and to embed nothing, and to load what comes from here alone."""
    for name, value in (
        *prediction.DEFAULT_HEADERS.items(),
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ("Referrer-Policy", "no-referrer"),
    ):
        response.headers.setdefault(name, value)
    return response


@api_blueprint.get("/healthz")
def healthz() -> Response:
    """Say that this worker lives."""
    return json_response({"status": "alive"})


@api_blueprint.get("/readyz")
def readyz() -> Response:
    """Say whether requests should be sent here; 503 where there is no model yet, or the server is about to stop."""
    if shutdown.is_shutting_down():
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "draining: this server is about to stop")
    return json_response({"status": "ready", "version": require_model().info["version"]})


@api_blueprint.get("/ping")
@api_blueprint.get("/health")
def ping() -> Response:
    """Say as MLflow's server does that there is a model; 503 where there is none."""
    require_model()
    return Response("\n", mimetype="application/json")


@api_blueprint.get("/version")
def mlflow_version() -> Response:
    """Give, as MLflow's server does, the version of MLflow: of the one that published the model."""
    return Response(require_model().release["mlflow"], mimetype="text/plain")


@api_blueprint.get("/model")
def model_info() -> Response:
    """Give the model's card, where it came from, its columns, and a row that can be sent as it is."""
    used = require_model()
    columns = used.bundle.schema.to_dict()
    return json_response({**used.release, "card": used.bundle.card, "schema": columns, "example": used.example})


@api_blueprint.post(prediction.PREDICT_ROUTE)
@api_blueprint.post(prediction.SCORING_ROUTE)
def predict() -> Response:
    """Answer a hot route that did not come by the plain path: its body is chunked, or too long."""
    answers: PredictionApi = current_app.extensions["api"]
    try:
        body = request.get_data()
    except ClientDisconnected as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not whole: a chunk is missing, or is none") from error
    key = bearer_token(request.headers.get("Authorization"))
    content_type, query = request.headers.get("Content-Type", ""), request.query_string.decode("latin-1")
    answer = answers.handle(PredictionRequest(request.path, content_type, query, key, body))
    g.counted = True
    return Response(answer.body, status=answer.status, headers=answer.headers)
