"""`POST /feedback`: the true value of a predicted row, stored on disk for the joiner."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from prometheus_client import Counter

from housing.core.errors import Violation
from housing.schema.column import Column
from housing.server_files import request_id
from housing.server_files.log_index import find_unknown_ids
from housing.server_files.rotating_file import RotatingFile
from server.api.context import json_response, require_model
from server.core.errors import RequestError, raise_unprocessable
from server.validation import request_body
from server.validation.request_body import JSON
from server.validation.rows import MAX_ERRORS, validation_error

RECEIVED = Counter("housing_feedback_received_total", "Labels that were accepted and stored.")
Validator = Callable[[Any], str | None]

feedback = Blueprint("feedback", __name__)


@feedback.post("/feedback")
def submit_feedback() -> Response:
    """Store labels and return the request IDs that are not in the prediction log.

    202: they are on the disk; 503: they may not be, and must be sent again.
    """
    request_body.require_media_type(request.headers.get("Content-Type", ""), JSON)
    entries = _entries(request_body.loads_strict(request.get_data()), current_app.config["MAX_ROWS"])
    _validate(entries)
    labels = [
        {"request_id": entry["request_id"], "row": int(entry.get("row", 0)), "value": float(entry["value"])} for entry in entries
    ]
    file: RotatingFile = current_app.extensions["feedback"]
    try:
        file.append_durably(orjson.dumps({"time": time.time(), "feedback": labels}) + b"\n")
    except OSError as error:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"Feedback cannot be stored at present: {error.strerror}. Send it again later."
        ) from error
    RECEIVED.inc(len(labels))
    unknown = find_unknown_ids(file.folder, {label["request_id"] for label in labels}, current_app.config["FEEDBACK_TIMEOUT"])
    return json_response({"accepted": len(labels), "unknown_request_ids": unknown}, HTTPStatus.ACCEPTED)


def _entries(body: Any, max_rows: int) -> list[Any]:
    """Return the labels of a body. Raises RequestError for another form, and for too many."""
    if not isinstance(body, dict):
        raise_unprocessable(
            'Request body must be a JSON object: {"request_id": ..., "row": 0, "value": ...} or {"feedback": [such objects]}.',
        )
    if "feedback" not in body:
        return [body]
    entries = body["feedback"]
    if not isinstance(entries, list) or not entries or len(body) > 1:
        raise_unprocessable("feedback must be a list of at least one object, and the body's only key.")
    if len(entries) > max_rows:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Request body must have at most {max_rows} labels (got {len(entries)})."
        )
    return entries


def _validate(entries: list[Any]) -> None:
    """Raise RequestError unless each label is valid; it names the index in the list, the field and the reason."""
    row = Column("row", "int", min=0, max=current_app.config["MAX_ROWS"] - 1)
    validators: dict[str, Validator] = {
        "request_id": _request_id_error,
        "row": row.validate,
        "value": require_model().bundle.schema.target.validate,
    }
    violations: list[Violation] = []
    for index, entry in enumerate(entries):
        violations += _violations(index, entry, validators)
        if len(violations) > MAX_ERRORS:
            break
    if violations:
        raise validation_error(violations)


def _violations(index: int, entry: Any, validators: dict[str, Validator]) -> list[Violation]:
    if not isinstance(entry, dict):
        return [Violation(index, None, "Must be an object.")]
    messages = [(name, validate({"row": 0, **entry}.get(name))) for name, validate in validators.items()]
    violations = [Violation(index, name, message) for name, message in messages if message]
    return violations + [Violation(index, name, "Unknown field.") for name in entry if name not in validators]


def _request_id_error(value: Any) -> str | None:
    if value is None:
        return "Missing required field."
    try:
        request_id.parse_request_id(value if isinstance(value, str) else "")
    except ValueError as error:
        return str(error)
    return None
