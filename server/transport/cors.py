"""Cross-origin resource sharing (CORS) for the configured origins."""

from collections.abc import Iterable, Sequence

from server.transport.fast_path import Application, Environ, StartResponse

PREFLIGHT_HEADERS = [
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Inference-Header-Content-Length, traceparent, tracestate"),
    ("Access-Control-Max-Age", "600"),
]


class CorsMiddleware:
    """A WSGI application that lets pages of the allowed origins read the responses of another application."""

    def __init__(self, app: Application, origins: Sequence[str]) -> None:
        self._app, self._origins = app, frozenset(origins)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        origin = environ.get("HTTP_ORIGIN")
        if origin not in self._origins:
            return self._app(environ, start_response)
        allow = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Inference-Header-Content-Length, traceresponse"),
            ("Vary", "Origin"),
        ]
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            start_response("204 No Content", allow + PREFLIGHT_HEADERS)
            return []

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> object:
            return start_response(status, [*headers, *allow], *error)

        return self._app(environ, start)
