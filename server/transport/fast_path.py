"""The fast path: answers the fast routes in front of Flask, which costs more than a prediction of one row."""

import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from server.api.auth import bearer_token
from server.api.prediction import FAST_ROUTES, PredictionApi, PredictionRequest, PredictionResponse
from server.core.errors import RequestError

STATUS_LINES = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class FastPath:
    """A WSGI application that answers the fast routes itself and passes other requests to a fallback."""

    def __init__(self, fallback_app: Application, api: PredictionApi, max_body: int) -> None:
        self._fallback_app, self._api, self._max_body = fallback_app, api, max_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        route, length = environ["PATH_INFO"], environ.get("CONTENT_LENGTH", "")
        try:
            _require_host(environ)
            if environ.get("HTTP_TRANSFER_ENCODING"):
                length = self._receive_chunks(environ)
        except RequestError as error:
            return self._respond(self._api.reject(route if route in FAST_ROUTES else "unknown", error), start_response)
        is_fast = route in FAST_ROUTES and environ["REQUEST_METHOD"] == "POST" and length.isdecimal()
        if not is_fast or int(length) > self._max_body:
            chunks = self._fallback_app(environ, start_response)
            self._drain_body(environ, length)
            return chunks
        return self._respond(self._handle(route, int(length), environ), start_response)

    @staticmethod
    def _respond(response: PredictionResponse, start_response: StartResponse) -> Iterable[bytes]:
        content_length = ("Content-Length", str(len(response.body)))
        start_response(STATUS_LINES[response.status], [*response.headers, content_length])
        return [response.body]

    def _receive_chunks(self, environ: Environ) -> str:
        """Read a body that was sent in chunks, put it in place of the stream, and return its length.

        Werkzeug would cut it at the size limit without an error.
        """
        try:
            body = environ["wsgi.input"].read(self._max_body + 1)
        except OSError as error:  # a timeout or a malformed chunk
            raise RequestError(HTTPStatus.BAD_REQUEST, f"The request body could not be read: {error}.") from error
        if len(body) > self._max_body:
            detail = f"The request body must have at most {self._max_body} bytes (serve.max_body)."
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        del environ["HTTP_TRANSFER_ENCODING"]
        return str(len(body))

    def _drain_body(self, environ: Environ, length: str) -> None:
        """Read the rest of a body before the response is sent.

        Gunicorn would do so afterwards, and would discard a next request that has arrived by then. An oversized body is
        not read: it closes the connection, so no request follows it.
        """
        if length.isdecimal() and int(length) > self._max_body:
            return
        with suppress(OSError):  # the client may have disconnected or timed out
            environ["wsgi.input"].read(self._max_body)

    def _handle(self, route: str, length: int, environ: Environ) -> PredictionResponse:
        try:
            body = environ["wsgi.input"].read(length)
        except OSError:  # the socket timed out
            detail = "Timed out while reading the request body."
            return self._api.reject(route, RequestError(HTTPStatus.REQUEST_TIMEOUT, detail))
        if len(body) < length:
            detail = f"The request body is shorter than its Content-Length of {length} bytes (got {len(body)})."
            return self._api.reject(route, RequestError(HTTPStatus.BAD_REQUEST, detail))
        key = bearer_token(environ.get("HTTP_AUTHORIZATION"))
        content_type, query = environ.get("CONTENT_TYPE", ""), environ.get("QUERY_STRING", "")
        return self._api.handle(PredictionRequest(route, content_type, query, key, body))


def _require_host(environ: Environ) -> None:
    """Raise RequestError if the request does not name its host (RFC 9112, section 3.2). Gunicorn refuses a second Host header."""
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and "HTTP_HOST" not in environ:
        raise RequestError(HTTPStatus.BAD_REQUEST, "The Host header is missing. HTTP/1.1 requires it.")
