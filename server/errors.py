"""One shape for every error: application/problem+json (RFC 9457)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from housing.errors import Problem

log = logging.getLogger(__name__)


class RequestError(Exception):
    """What the caller can mend: a status, what is wrong, and (where rows are wrong) each place."""

    def __init__(self, status: HTTPStatus, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems = status, detail, problems


def problem(status: int, detail: str, problems: Sequence[Problem] = ()) -> Response:
    """Give the answer to a request that cannot be served."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": detail}
    errors = {"errors": [asdict(item) for item in problems]} if problems else {}
    return Response(json.dumps({**body, **errors}), status=int(status), mimetype="application/problem+json")


def handle_errors(app: Flask) -> None:
    """Answer every error of the app in the one shape; ours goes to the log with its trace, never into the answer."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return problem(error.status, error.detail, error.problems)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        answer = problem(error.code or 500, error.description or "")
        for name, value in error.get_headers():
            if name == "Allow":
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def ours(error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return problem(500, "the server failed; its log has the reason")
