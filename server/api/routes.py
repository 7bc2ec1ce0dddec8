"""Flask's API routes."""

from http import HTTPStatus

from flask import Blueprint, Response, current_app, request

from server.api import prediction
from server.api.auth import FEEDBACK, METRICS, PREDICT, Access, bearer_token
from server.api.context import MODEL_NAME, ROUTES_OF_A_MODEL, json_response, require_model
from server.core import shutdown
from server.core.errors import RequestError
from server.models.current_model import Model

api_blueprint = Blueprint("api", __name__)

# The right that a key needs for each route. The other routes need no key, except the fast ones, which check it themselves.
READING_ROUTES = ("/model", "/models", "/explain", "/curves", "/examples")
RIGHTS = {**dict.fromkeys(READING_ROUTES, PREDICT), "/feedback": FEEDBACK, "/metrics": METRICS}

# Browsers may load files of this server and inline images for a page, and nothing else.
CONTENT_SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = {
    **prediction.DEFAULT_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}


@api_blueprint.before_app_request
def authorize() -> None:
    """Reject a request whose key lacks the right for its route or model, or that names a model that is not served."""
    access: Access = current_app.extensions["access"]
    models, name = current_app.extensions["models"], request.environ.get(MODEL_NAME, "")
    right = RIGHTS.get(request.path)
    key = None if right is None else access.check(bearer_token(request.headers.get("Authorization")), right)
    if name:
        models.find(name)
    if right == PREDICT and request.path in ROUTES_OF_A_MODEL:
        prediction.require_model_right(key, models, name)


@api_blueprint.after_app_request
def add_security_headers(response: Response) -> Response:
    """Add the security headers that a response does not set itself."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@api_blueprint.get("/healthz")
def healthz() -> Response:
    """Answer 200: this worker is alive."""
    return json_response({"status": "alive"})


@api_blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 if this server wants requests, or 503 if it has no model or is shutting down."""
    return json_response({"status": "ready", "version": require_ready().info["version"]})


def require_ready(name: str = "") -> Model:
    """Return the current model. Raises RequestError (503) if there is none or the server is shutting down."""
    if shutdown.is_shutting_down():
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "The server is shutting down.")
    return require_model(name)


@api_blueprint.get("/ping")
@api_blueprint.get("/health")
def ping() -> Response:
    """Answer 200 if there is a model, or else 503, as MLflow's server does."""
    require_model()
    return Response("\n", mimetype="application/json")


@api_blueprint.get("/version")
def mlflow_version() -> Response:
    """Return the version of the MLflow that published the model. MLflow's server returns its own."""
    return Response(require_model().release["mlflow"], mimetype="text/plain")


@api_blueprint.get("/model")
def model_info() -> Response:
    """Return the model's origin, card, schema and a valid example row."""
    model = require_model()
    details = {"card": model.bundle.card, "schema": model.bundle.schema.to_dict(), "example": model.example}
    return json_response({**model.release, **details})


@api_blueprint.get("/models")
def list_models() -> Response:
    """Return the served models, each with its version and whether this worker has it in memory."""
    return json_response({"models": current_app.extensions["models"].describe()})


# The fast path answers these. Flask knows them without a view, so that it answers other methods with 405.
for fast_route in prediction.FAST_ROUTES:
    api_blueprint.add_url_rule(fast_route, endpoint="predict", methods=["POST"])
