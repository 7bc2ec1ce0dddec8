"""Cross-origin requests, for the origins that are configured."""

from collections.abc import Iterable, Sequence

from server.transport.wsgi import Application, Environ, StartResponse

ALLOWED_METHODS, ALLOWED_HEADERS, MAX_AGE = "GET, POST", "Authorization, Content-Type", "600"


class CorsMiddleware:
    """A WSGI application that lets pages of some origins read what another answers."""

    def __init__(self, app: Application, origins: Sequence[str]) -> None:
        self._app, self._origins = app, frozenset(origins)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        origin = environ.get("HTTP_ORIGIN")
        if origin not in self._origins:
            return self._app(environ, start_response)
        allow = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            asked = [("Methods", ALLOWED_METHODS), ("Headers", ALLOWED_HEADERS)]
            allow += [(f"Access-Control-Allow-{name}", value) for name, value in asked]
            start_response("204 No Content", [*allow, ("Access-Control-Max-Age", MAX_AGE)])
            return []

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> object:
            return start_response(status, [*headers, *allow], *error)

        return self._app(environ, start)
