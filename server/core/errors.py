"""Error responses: application/problem+json (RFC 9457), or the form of the Open Inference Protocol for its routes."""

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import NoReturn

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from housing.core.errors import Violation

PROBLEM_MEDIA_TYPE = "application/problem+json"
INFERENCE_ROUTES = "/v2"  # the prefix of the Open Inference Protocol's routes, whose errors have its own form

log = logging.getLogger(__name__)


class RequestError(Exception):
    """An error that the client can fix: status, message and, for invalid rows, each violation."""

    def __init__(
        self, status: HTTPStatus, detail: str, problems: Sequence[Violation] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems, self.headers = status, detail, problems, dict(headers or {})


def raise_unprocessable(detail: str) -> NoReturn:
    """Raise the error for a request of a wrong layout."""
    raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def problem_body(status: int, detail: str, problems: Sequence[Violation] = ()) -> bytes:
    """Return the JSON body of an error response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": detail}
    errors = {"errors": [asdict(problem) for problem in problems]} if problems else {}
    return json.dumps({**body, **errors}).encode()


def error_content(path: str, status: int, detail: str, problems: Sequence[Violation] = ()) -> tuple[str, bytes]:
    """Return the media type and the body of an error response to a request of a path."""
    if not f"{path}/".startswith(f"{INFERENCE_ROUTES}/"):
        return PROBLEM_MEDIA_TYPE, problem_body(status, detail, problems)
    return "application/json", json.dumps({"error": "\n".join([detail, *map(str, problems)])}).encode()


def register_error_handlers(app: Flask) -> None:
    """Answer every error of the app with a problem body. Tracebacks go to the log, never to the client."""

    @app.errorhandler(RequestError)
    def handle_request_error(error: RequestError) -> Response:
        return _response(error.status, error.detail, error.problems, error.headers)

    @app.errorhandler(HTTPException)
    def handle_http(error: HTTPException) -> Response:
        allow = {name: value for name, value in error.get_headers() if name == "Allow"}
        return _response(error.code or 500, _http_detail(error), headers=allow)

    @app.errorhandler(Exception)
    def handle_unexpected(error: Exception) -> Response:
        return _response(500, log_failure(error))


def _http_detail(error: HTTPException) -> str:
    if isinstance(error, NotFound):
        return f"There is no route {request.path}. GET /openapi.json lists all routes."
    if isinstance(error, MethodNotAllowed):
        return f"{request.path} does not take {request.method}. Methods: {', '.join(sorted(error.valid_methods or ()))}."
    return error.description or ""


def log_failure(error: Exception) -> str:
    """Log an unexpected error with its traceback. Return the message for the client, with an ID that finds it in the log."""
    error_id = secrets.token_hex(4)
    log.error("Request failed (error ID %s)", error_id, exc_info=error)
    return f"Internal server error. See the server log (error ID {error_id})."


def _response(status: int, detail: str, problems: Sequence[Violation] = (), headers: Mapping[str, str] | None = None) -> Response:
    media_type, body = error_content(request.path, status, detail, problems)
    return Response(body, status=int(status), mimetype=media_type, headers=dict(headers or {}))
