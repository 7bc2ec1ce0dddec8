"""One shape for every error: application/problem+json (RFC 9457)."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from housing.core.errors import Violation

PROBLEM_MEDIA_TYPE = "application/problem+json"


log = logging.getLogger(__name__)


class RequestError(Exception):
    """What the caller can mend: a status, what is wrong, and (where rows are wrong) each place."""

    def __init__(
        self, status: HTTPStatus, detail: str, problems: Sequence[Violation] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems, self.headers = status, detail, problems, dict(headers or {})


def problem_body(status: int, detail: str, problems: Sequence[Violation] = ()) -> bytes:
    """Give the body of the answer to a request that cannot be served."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": detail}
    errors = {"errors": [asdict(item) for item in problems]} if problems else {}
    return json.dumps({**body, **errors}).encode()


def register_error_handlers(app: Flask) -> None:
    """Answer every error of the app in the one shape; ours goes to the log with its trace, never into the answer."""

    @app.errorhandler(RequestError)
    def handle_request_error(error: RequestError) -> Response:
        return _response(error.status, error.detail, error.problems, error.headers)

    @app.errorhandler(HTTPException)
    def handle_http(error: HTTPException) -> Response:
        allow = {name: value for name, value in error.get_headers() if name == "Allow"}
        return _response(error.code or 500, error.description or "", headers=allow)

    @app.errorhandler(Exception)
    def handle_unexpected(error: Exception) -> Response:
        return _response(500, log_failure(error))


def log_failure(error: Exception) -> str:
    """Log an error that is ours; give what its caller may know."""
    log.error("a request failed", exc_info=error)
    return "the server failed; its log has the reason"


def _response(status: int, detail: str, problems: Sequence[Violation] = (), headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem_body(status, detail, problems), status=int(status), mimetype=PROBLEM_MEDIA_TYPE, headers=dict(headers or {})
    )
