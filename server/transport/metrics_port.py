"""The metrics port: serves /metrics on a port of its own, if one is configured."""

from collections.abc import Iterable

from server.api.prediction import DEFAULT_HEADERS
from server.core.errors import PROBLEM_MEDIA_TYPE, problem_body
from server.transport.fast_path import Application, Environ, StartResponse

METRICS_ROUTE = "/metrics"


class MetricsPortGuard:
    """A WSGI application that serves only /metrics on the metrics port, and everything else on other ports."""

    def __init__(self, app: Application, metrics_port: int) -> None:
        self._app, self._metrics_port = app, str(metrics_port)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if (environ["SERVER_PORT"] == self._metrics_port) == (environ["PATH_INFO"] == METRICS_ROUTE):
            return self._app(environ, start_response)
        body = problem_body(404, f"Not found: /metrics, and no other route, is on port {self._metrics_port}.")
        headers = [("Content-Type", PROBLEM_MEDIA_TYPE), *DEFAULT_HEADERS.items(), ("Content-Length", str(len(body)))]
        start_response("404 Not Found", headers)
        return [body]
