"""The HTTP API, all of it: what is not asked a thousand times a second answers here alone."""

from http import HTTPStatus

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import ClientDisconnected

from server.api import prediction
from server.api.auth import FEEDBACK, METRICS, PREDICT, Access, key_of
from server.api.context import json_answer, model_in_use
from server.api.prediction import Api, Asked
from server.core import shutdown
from server.core.errors import RequestError

api = Blueprint("api", __name__)


# What a key must be allowed to for each route; who asks for another needs no key.
RIGHTS = {
    **dict.fromkeys(("/model", "/explain", "/curves", "/examples"), PREDICT),
    "/feedback": FEEDBACK,
    "/metrics": METRICS,
}


# What a browser may load for a page: files of this server, and pictures that stand in them.
CONTENT = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@api.before_app_request
def let_in() -> None:
    """Refuse a request whose key lacks the right for its route. The hot routes see to that themselves."""
    access: Access = current_app.extensions["access"]
    right = RIGHTS.get(request.path)
    if right is not None:
        access.check(key_of(request.headers.get("Authorization")), right)


@api.after_app_request
def harden(answer: Response) -> Response:
    """Tell browsers to guess and to embed nothing, and to load what comes from here alone."""
    for name, value in (*prediction.HEADERS.items(), ("Content-Security-Policy", CONTENT), ("Referrer-Policy", "no-referrer")):
        answer.headers.setdefault(name, value)
    return answer


@api.get("/healthz")
def healthz() -> Response:
    """Say that this worker lives."""
    return json_answer({"status": "alive"})


@api.get("/readyz")
def readyz() -> Response:
    """Say whether requests should be sent here; 503 where there is no model yet, or the server is about to stop."""
    if shutdown.has_begun():
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "draining: this server is about to stop")
    return json_answer({"status": "ready", "version": model_in_use().told["version"]})


@api.get("/ping")
@api.get("/health")
def ping() -> Response:
    """Say as MLflow's server does that there is a model; 503 where there is none."""
    model_in_use()
    return Response("\n", mimetype="application/json")


@api.get("/version")
def version() -> Response:
    """Give, as MLflow's server does, the version of MLflow: of the one that published the model."""
    return Response(model_in_use().served["mlflow"], mimetype="text/plain")


@api.get("/model")
def model() -> Response:
    """Give the model's card, where it came from, its columns, and a row that can be sent as it is."""
    used = model_in_use()
    columns = used.bundle.schema.to_dict()
    return json_answer({**used.served, "card": used.bundle.card, "schema": columns, "example": used.example})


@api.post(prediction.PREDICT_ROUTE)
@api.post(prediction.SCORING_ROUTE)
def predict() -> Response:
    """Answer a hot route that did not come by the plain path: its body is chunked, or too long."""
    answers: Api = current_app.extensions["api"]
    try:
        body = request.get_data()
    except ClientDisconnected as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not whole: a chunk is missing, or is none") from error
    key = key_of(request.headers.get("Authorization"))
    content_type, query = request.headers.get("Content-Type", ""), request.query_string.decode("latin-1")
    answer = answers.answer(Asked(request.path, content_type, query, key, body))
    g.counted = True
    return Response(answer.body, status=answer.status, headers=answer.headers)
