"""The fast path: answers the fast routes in front of Flask, which costs more than a prediction of one row."""

import io
import re
import zlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from server.api.auth import bearer_token
from server.api.context import MODEL_NAME, ROUTES_OF_A_MODEL
from server.api.prediction import FAST_ROUTES, PredictionApi, PredictionRequest, PredictionResponse
from server.core.errors import RequestError
from server.inference_protocol.inference import INFER_ROUTE
from server.validation.arrow import load_pyarrow

STATUS_LINES = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}
PLAIN, GZIP, ZSTD = CODINGS = ("identity", "gzip", "zstd")  # of a body
UNKNOWN = "unknown"  # the label of other routes
PAGES = ("/", "/docs(?:/.*)?", "/static/.*")
MODEL_PATH = re.compile(rf"/models/([^/]+)({'|'.join((*map(re.escape, ROUTES_OF_A_MODEL), *PAGES))})")
INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
ALL_FAST_ROUTES = (*FAST_ROUTES, INFER_ROUTE)
IN_EVENT_LOOP = "housing.in_event_loop"  # in the environ: whether nothing may take long
REJECTION = "housing.rejection"  # in the environ: the RequestError for which the worker did not wait for the body

OWN_LIMIT = "max_body of this model in the file of serve.models"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class BodyLimit(NamedTuple):
    """The most bytes of a body, and the setting that says so."""

    n_bytes: int
    setting: str = "serve.max_body"

    def error(self) -> RequestError:
        """Return the error for a body above the limit, as sent or without its compression."""
        detail = f"The request body must have at most {self.n_bytes} bytes ({self.setting})."
        return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


class FastPath:
    """A WSGI application that answers the fast routes itself and passes other requests, with complete bodies, to a fallback."""

    def __init__(self, fallback_app: Application, api: PredictionApi, max_body: int) -> None:
        self._fallback_app, self._api, self._limit = fallback_app, api, BodyLimit(max_body)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        name, route, version = ("", path, None) if path in FAST_ROUTES else _split_path(path)
        try:
            _require_acceptable(environ)
            body = self._read_body(environ, self._find_limit(name))
        except RequestError as error:
            return _respond(self._api.reject(route if route in ALL_FAST_ROUTES else UNKNOWN, path, error), start_response)
        if route not in ALL_FAST_ROUTES or environ["REQUEST_METHOD"] != "POST":
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            if name and route != INFER_ROUTE:
                environ |= {MODEL_NAME: name, "SCRIPT_NAME": f"/models/{name}", "PATH_INFO": route}
            return self._fallback_app(
                {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}, start_response
            )
        key = bearer_token(environ.get("HTTP_AUTHORIZATION"))
        content_type, query = environ.get("CONTENT_TYPE", ""), environ.get("QUERY_STRING", "")
        header_length, may_load = environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH", ""), IN_EVENT_LOOP not in environ
        request = PredictionRequest(route, content_type, query, key, body, path, header_length, name, version, may_load)
        return _respond(self._api.handle(request), start_response)

    def _find_limit(self, name: str) -> BodyLimit:
        """Return the limit of a body for a model, or for the first one: its own if that is lower than the server's."""
        own = self._api.max_body(name)
        return BodyLimit(own, OWN_LIMIT) if own < self._limit.n_bytes else self._limit

    @staticmethod
    def _read_body(environ: Environ, limit: BodyLimit) -> bytes:
        """Read the whole body. The project's worker has it in memory, gunicorn's in the socket."""
        length = environ.get("CONTENT_LENGTH", "")
        if length.isdecimal() and int(length) > limit.n_bytes:
            raise limit.error()
        try:
            body: bytes = environ["wsgi.input"].read(limit.n_bytes + 1)
        except Exception as error:  # pylint: disable=broad-exception-caught  # gunicorn has many for a timeout or a malformed chunk
            raise RequestError(HTTPStatus.BAD_REQUEST, f"The request body could not be read: {error}.") from error
        if len(body) > limit.n_bytes:
            raise limit.error()
        if length.isdecimal() and len(body) < int(length):
            raise body_incomplete(len(body), length)
        coding = environ.pop("HTTP_CONTENT_ENCODING", PLAIN).lower()
        return body if coding == PLAIN else _expand(body, coding, limit)


def _split_path(path: str) -> tuple[str, str, str | None]:
    """Return the name of the model in a path, or "", the route, and the version if the path has it."""
    if match := INFER_PATH.fullmatch(path):
        return match[1], INFER_ROUTE, match[2]
    match = MODEL_PATH.fullmatch(path)
    return (match[1], match[2], None) if match else ("", UNKNOWN, None)


def _expand(body: bytes, coding: str, limit: BodyLimit) -> bytes:
    """Return what a compressed body contains. Raises RequestError."""
    try:
        content = (_read_gzip if coding == GZIP else _read_zstd)(body, limit.n_bytes + 1)
    except (zlib.error, OSError, ValueError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"The request body is not valid {coding}: {error}.") from error
    if len(content) > limit.n_bytes:
        raise limit.error()
    return content


def _read_gzip(body: bytes, limit: int) -> bytes:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: with the header of gzip
    content = decoder.decompress(body, limit)
    if len(content) < limit and (not decoder.eof or decoder.unused_data):
        raise ValueError("it has data after its end" if decoder.eof else "it is incomplete")
    return content


def _read_zstd(body: bytes, limit: int) -> bytes:
    arrow = load_pyarrow(f"Content-Encoding {ZSTD}")
    content: bytes = arrow.CompressedInputStream(arrow.BufferReader(body), ZSTD).read(limit)
    return content


def body_incomplete(received: int, length: object) -> RequestError:
    """Return the error for a body of which only the first `received` bytes came."""
    return RequestError(HTTPStatus.BAD_REQUEST, f"The request body is incomplete: got {received} bytes of {length}.")


def _respond(response: PredictionResponse, start_response: StartResponse) -> Iterable[bytes]:
    start_response(STATUS_LINES[response.status], [*response.headers, ("Content-Length", str(len(response.body)))])
    return [response.body]


def _require_acceptable(environ: Environ) -> None:
    """Raise RequestError if the worker rejected the request, if it does not name its host, or if its coding is unknown.

    HTTP/1.1 requires a Host header (RFC 9112, section 3.2). Gunicorn refuses a second one.
    """
    if REJECTION in environ:
        raise environ[REJECTION]
    if "HTTP_HOST" not in environ and environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        raise RequestError(HTTPStatus.BAD_REQUEST, "The Host header is missing. HTTP/1.1 requires it.")
    for header, known in (("Content-Encoding", CODINGS), ("Transfer-Encoding", ("chunked",))):
        coding = environ.get(f"HTTP_{header.upper().replace('-', '_')}", known[0])
        if coding.lower() not in known:
            detail = f"{header} must be {' or '.join(known)} (got {coding:.40})."
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
