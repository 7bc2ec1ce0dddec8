"""Cross-origin requests, for the origins that are configured."""

from collections.abc import Iterable, Sequence

from server.transport.wsgi import Application, Environ, StartResponse

METHODS, FIELDS, SECONDS = "GET, POST", "Authorization, Content-Type", "600"


class Cors:
    """A WSGI application that lets pages of some origins read what another answers."""

    def __init__(self, inner: Application, origins: Sequence[str]) -> None:
        self._inner, self._origins = inner, frozenset(origins)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        origin = environ.get("HTTP_ORIGIN")
        if origin not in self._origins:
            return self._inner(environ, start_response)
        allow = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            asked = [("Methods", METHODS), ("Headers", FIELDS)]
            allow += [(f"Access-Control-Allow-{name}", value) for name, value in asked]
            start_response("204 No Content", [*allow, ("Access-Control-Max-Age", SECONDS)])
            return []

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> object:
            return start_response(status, [*headers, *allow], *error)

        return self._inner(environ, start)
