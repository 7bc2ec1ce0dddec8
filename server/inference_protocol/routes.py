"""Flask's routes of the protocol: health and metadata. The fast path answers the inference routes."""

from importlib.metadata import version

from flask import Blueprint, Response, current_app, request

from server.api.auth import PREDICT, Access, bearer_token
from server.api.context import json_response, require_model
from server.api.prediction import require_model_right
from server.api.routes import require_ready
from server.inference_protocol.metadata import describe_model, require_version

EXTENSIONS = ("binary_tensor_data",)
inference_blueprint = Blueprint("inference", __name__, url_prefix="/v2")

# Flask knows the inference routes without a view, so that it answers other methods with 405.
for infer_route in ("/models/<name>/infer", "/models/<name>/versions/<model_version>/infer"):
    inference_blueprint.add_url_rule(infer_route, endpoint="infer", methods=["POST"])


@inference_blueprint.get("")
def server_metadata() -> Response:
    """Return the name and version of this server, and the extensions of the protocol that it has."""
    return json_response({"name": "housing", "version": version("housing"), "extensions": EXTENSIONS})


@inference_blueprint.get("/health/live")
def live() -> Response:
    """Answer 200: this worker is alive."""
    return json_response({"live": True})


@inference_blueprint.get("/health/ready")
def ready() -> Response:
    """Answer as `/readyz` does."""
    require_ready()
    return json_response({"live": True, "ready": True})


@inference_blueprint.get("/models/<name>/ready")
@inference_blueprint.get("/models/<name>/versions/<model_version>/ready")
def model_ready(name: str, model_version: str | None = None) -> Response:
    """Answer 200 if the model is served and the server is ready."""
    require_version(require_ready(name), name, model_version)
    return json_response({"name": name, "ready": True})


@inference_blueprint.get("/models/<name>")
@inference_blueprint.get("/models/<name>/versions/<model_version>")
def model_metadata(name: str, model_version: str | None = None) -> Response:
    """Return the inputs and outputs of a model."""
    access: Access = current_app.extensions["access"]
    key = access.check(bearer_token(request.headers.get("Authorization")), PREDICT)
    require_model_right(key, current_app.extensions["models"], name)
    model = require_model(name)
    require_version(model, name, model_version)
    return json_response(describe_model(model, name))
