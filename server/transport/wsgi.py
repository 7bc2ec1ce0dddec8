"""The plain path of the hot routes: in front of Flask, which costs more than a prediction of one row."""

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
    """A WSGI application that answers the hot routes itself, and hands everything else on."""

    def __init__(self, fallback_app: Application, api: PredictionApi, max_body: int) -> None:
        self._fallback_app, self._api, self._max_body = fallback_app, api, max_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        route, length = environ["PATH_INFO"], environ.get("CONTENT_LENGTH", "")
        plain = route in FAST_ROUTES and environ["REQUEST_METHOD"] == "POST" and length.isdecimal()
        if not plain or int(length) > self._max_body:
            answered = self._fallback_app(environ, start_response)
            self._drain_body(environ, length)
            return answered
        answer = self._handle(route, int(length), environ)
        length_of_answer = ("Content-Length", str(len(answer.body)))
        start_response(STATUS_LINES[answer.status], [*answer.headers, length_of_answer])
        return [answer.body]

    def _drain_body(self, environ: Environ, length: str) -> None:
        """Read what the app left of a body, before the answer is sent.

        Gunicorn would do so afterwards; where the client's next request has come by then, it is read too, and forgotten
        until the client gives up. A body that is too long ends the connection, so that nothing follows it.
        """
        if length.isdecimal() and int(length) > self._max_body:
            return
        with suppress(OSError):  # the client has gone, or says nothing
            environ["wsgi.input"].read(self._max_body)

    def _handle(self, route: str, length: int, environ: Environ) -> PredictionResponse:
        try:
            body = environ["wsgi.input"].read(length)
        except OSError:  # nothing came for longer than a socket may wait
            return self._api.reject(route, RequestError(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time"))
        if len(body) < length:
            return self._api.reject(route, RequestError(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length"))
        key = bearer_token(environ.get("HTTP_AUTHORIZATION"))
        return self._api.handle(
            PredictionRequest(route, environ.get("CONTENT_TYPE", ""), environ.get("QUERY_STRING", ""), key, body)
        )
