"""Request context: the current model, the request's row and JSON responses, for Flask routes."""

import json
from http import HTTPStatus

from flask import Response, current_app, request

from housing.schema.column import Vector
from server.api import prediction
from server.models.current_model import Model
from server.validation import request_body
from server.validation.request_body import JSON, Rows

# also below /models/NAME
ROUTES_OF_A_MODEL = ("/predict", "/invocations", "/model", "/explain", "/curves", "/examples", "/feedback", "/openapi.json")
MODEL_NAME = "housing.model"  # in the environ: the name of the model, if the path has it


def json_response(body: object, status: int = HTTPStatus.OK) -> Response:
    """Return a body as a JSON response."""
    return Response(json.dumps(body, allow_nan=False), status=status, mimetype="application/json")


def require_model(name: str = "") -> Model:
    """Return the current model of the name in the path, or the first one. Raises RequestError if there is none."""
    return prediction.require_model(current_app.extensions["models"], name or request.environ.get(MODEL_NAME, ""))


def parse_row(model: Model) -> Vector:
    """Return the single row of the request body, encoded. Raises RequestError, as `/predict` does."""
    request_body.require_media_type(request.headers.get("Content-Type", ""), JSON)
    row: Vector = model.validator.encode(Rows(None, [request_body.loads_strict(request.get_data())], 0))[0]
    return row
