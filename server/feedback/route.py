"""`POST /feedback`: what a predicted target turned out to be, kept on the disk for the joiner."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from prometheus_client import Counter

from housing.core.errors import Violation
from housing.schema.column import Column
from server.api.context import json_response, require_model
from server.core.errors import RequestError
from server.prediction_log import request_id
from server.prediction_log.rotating_file import RotatingFile
from server.validation import request_body
from server.validation.request_body import JSON
from server.validation.rows import MAX_ERRORS, validation_error

RECEIVED = Counter("housing_feedback_received_total", "True values that were taken and kept.")


Reason = Callable[[Any], str | None]


feedback = Blueprint("feedback", __name__)


@feedback.post("/feedback")
def keep() -> Response:
    """Keep true values. 202: they are on the disk; 503: they may not be, and should be sent again."""
    request_body.require_media_type(request.headers.get("Content-Type", ""), JSON)
    items = _items(request_body.loads_strict(request.get_data()), current_app.config["MAX_ROWS"])
    _check(items)
    kept = [{"request_id": item["request_id"], "row": int(item.get("row", 0)), "value": float(item["value"])} for item in items]
    file: RotatingFile = current_app.extensions["feedback"]
    try:
        file.append_durably(orjson.dumps({"time": time.time(), "feedback": kept}) + b"\n")
    except OSError as error:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"feedback cannot be kept now: {error.strerror}; send it again later"
        ) from error
    RECEIVED.inc(len(kept))
    return json_response({"accepted": len(kept)}, HTTPStatus.ACCEPTED)


def _items(body: Any, most: int) -> list[Any]:
    """Give the true values of a body. Raises RequestError for another form, and for too many."""
    if not isinstance(body, dict):
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            'the body is not an object; allowed: {"request_id": ..., "row": 0, "value": ...}, {"feedback": [such objects]}',
        )
    if "feedback" not in body:
        return [body]
    items = body["feedback"]
    if not isinstance(items, list) or not items or len(body) > 1:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "feedback must be a list of at least one object, and the body's only key"
        )
    if len(items) > most:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {len(items)} true values; allowed: {most}")
    return items


def _check(items: list[Any]) -> None:
    """Raise RequestError where a value is not allowed: it names the place in the list, the field and the reason."""
    row = Column("row", "int", min=0, max=current_app.config["MAX_ROWS"] - 1)
    reasons: dict[str, Reason] = {
        "request_id": _id_reason,
        "row": row.validate,
        "value": require_model().bundle.schema.target.validate,
    }
    problems: list[Violation] = []
    for place, item in enumerate(items):
        problems += _problems(place, item, reasons)
        if len(problems) > MAX_ERRORS:
            break
    if problems:
        raise validation_error(problems)


def _problems(place: int, item: Any, reasons: dict[str, Reason]) -> list[Violation]:
    if not isinstance(item, dict):
        return [Violation(place, None, "is not an object")]
    found = [(name, reason({"row": 0, **item}.get(name))) for name, reason in reasons.items()]
    problems = [Violation(place, name, why) for name, why in found if why]
    return problems + [Violation(place, name, "is not known here") for name in item if name not in reasons]


def _id_reason(value: Any) -> str | None:
    if value is None:
        return "is missing"
    try:
        request_id.parse_request_id(value if isinstance(value, str) else "")
    except ValueError as error:
        return str(error)
    return None
