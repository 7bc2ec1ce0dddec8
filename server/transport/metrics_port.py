"""Metrics on a port of their own, where one is configured."""

from collections.abc import Iterable

from server.api.prediction import HEADERS
from server.core.errors import PROBLEM, problem
from server.transport.wsgi import Application, Environ, StartResponse

METRICS_ROUTE = "/metrics"


class Ports:
    """A WSGI application that gives metrics on one port alone, and everything else on the others alone."""

    def __init__(self, inner: Application, metrics_port: int) -> None:
        self._inner, self._metrics_port = inner, str(metrics_port)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if (environ["SERVER_PORT"] == self._metrics_port) == (environ["PATH_INFO"] == METRICS_ROUTE):
            return self._inner(environ, start_response)
        body = problem(404, f"metrics are at port {self._metrics_port}, and nothing else is")
        start_response("404 Not Found", [("Content-Type", PROBLEM), *HEADERS.items(), ("Content-Length", str(len(body)))])
        return [body]
