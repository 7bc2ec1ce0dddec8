"""The HTTP API."""

import json
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, current_app, request
from marshmallow import ValidationError

from housing.errors import BundleError, Problem
from server.errors import RequestError
from server.metrics import count_rows
from server.model import InUse, Model
from server.schemas import MOST_PROBLEMS

api = Blueprint("api", __name__)


def _json(body: object) -> Response:
    return Response(json.dumps(body, allow_nan=False), mimetype="application/json")


def _model() -> Model:
    in_use: InUse = current_app.extensions["in_use"]
    try:
        return in_use.get()
    except BundleError as error:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {error}") from error


@api.get("/healthz")
def healthz() -> Response:
    """Say that this worker lives."""
    return _json({"status": "alive"})


@api.get("/readyz")
def readyz() -> Response:
    """Say whether this worker has a model to predict with; 503 where it has none."""
    return _json({"status": "ready", "version": _model().served["version"]})


@api.get("/model")
def model() -> Response:
    """Give the model's card, where it came from, its columns, and a row that can be sent as it is."""
    used = _model()
    columns = used.bundle.schema.to_dict()
    return _json({**used.served, "card": used.bundle.card, "schema": columns, "example": used.example})


@api.post("/predict")
def predict() -> Response:
    """Predict one object, or each of `{"instances": [...]}`."""
    used = _model()
    rows = _instances(_strict_json())
    matrix = used.bundle.schema.encode_records(_checked(used, rows))
    predictions = used.bundle.predict(matrix)
    count_rows(len(rows))
    return _json({"predictions": predictions.tolist(), "model": used.served["model"], "version": used.served["version"]})


def _strict_json() -> Any:
    """Read the body as JSON of RFC 8259: no NaN, no Infinity, no key twice."""
    if request.mimetype != "application/json":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type is {request.mimetype or 'missing'}; allowed: application/json"
        )
    try:
        return json.loads(request.get_data(), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is nested too deeply") from None
    except ValueError as error:  # bad UTF-8, bad JSON, a number of too many digits
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return read


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _instances(body: Any) -> list[Any]:
    if not isinstance(body, dict):
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, 'the body is not an object; allowed: one row, or {"instances": [rows]}'
        )
    if "instances" not in body:
        return [body]
    rows, most = body["instances"], current_app.config["MAX_ROWS"]
    if not isinstance(rows, list) or not rows or len(body) > 1:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "instances must be a list of at least one row, and the body's only key"
        )
    if len(rows) > most:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"instances has {len(rows)} rows; allowed: {most}")
    return rows


def _checked(used: Model, rows: list[Any]) -> list[dict[str, Any]]:
    try:
        used.requests.load(rows, many=True)
        return rows
    except ValidationError as error:
        problems = _problems(error.normalized_messages())  # type: ignore[no-untyped-call]
        more = f"; the first {MOST_PROBLEMS} are named" if len(problems) > MOST_PROBLEMS else ""
        detail = f"{len(problems)} values are not allowed{more}"
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, problems[:MOST_PROBLEMS]) from error


def _problems(messages: dict[int, dict[str, list[str]]]) -> list[Problem]:
    return [
        Problem(row, None if name == "_schema" else name, reasons[0])
        for row, fields in sorted(messages.items())
        for name, reasons in fields.items()
    ]
