"""Responder: calls the app for a complete request, and returns its response as bytes."""

import io
import time
from datetime import datetime
from functools import lru_cache
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

from server.core import shutdown
from server.core.errors import RequestError
from server.transport.connection import Connection
from server.transport.fast_path import REJECTION, Environ
from server.transport.fast_request import HEADER_END
from server.transport.request_reader import CompleteRequest

Response = tuple[bytes, bool]  # the bytes to send, and whether the connection stays open


class ResponseBuffer(bytearray):
    """Stands in for the socket to which gunicorn writes."""

    sendall = bytearray.extend

    def gettimeout(self) -> float:
        """Return 0: writing never blocks."""
        return 0.0


class Responder:
    """Calls the app of a worker, in its event loop or in a thread."""

    def __init__(self, worker: Any) -> None:
        self._worker, self._app, self._cfg = worker, worker.wsgi, worker.cfg
        common = {"wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": ""}
        self._base_environ = {**wsgi.base_environ(self._cfg), **common}

    def keeps_open(self) -> bool:
        """Return whether a connection may stay open after its next response."""
        return self._worker.alive and self._worker.max_keepalived > 0 and not shutdown.is_shutting_down()

    def answer_fast(self, environ: Environ, conn: Connection) -> Response:
        """Answer a request of a fast route without gunicorn's Response, which takes as long as the prediction.

        Raises NotInMemory in the event loop if the model must be loaded first.
        """
        keep = self.keeps_open() and environ.get("HTTP_CONNECTION") != "close"
        lines: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            lines.extend((f"HTTP/1.1 {status}", "Server: gunicorn", _date_header(int(time.time()))))
            lines.append("Connection: keep-alive" if keep else "Connection: close")
            lines.extend(f"{name}: {value}" for name, value in headers if name != "Content-Length")

        body = b"".join(self._app({**self._base_environ, **conn.server_environ, **environ}, start_response))
        lines.append(f"Content-Length: {len(body)}")  # must match, since the next response follows
        return "\r\n".join(lines).encode("latin-1") + HEADER_END + body, keep

    def answer(self, request: CompleteRequest, conn: Connection, rejection: RequestError | None = None) -> Response:
        """Answer any request. An error of the app, which the app should have handled, closes the connection."""
        output, response = ResponseBuffer(), None
        try:
            response, environ = self._create(request, conn, output)
            if rejection is not None:
                environ[REJECTION] = rejection
            if rejection is not None or not self.keeps_open():
                response.force_close()
            self._call_app(environ, request, response)
            return bytes(output), not response.should_close()
        except Exception as error:  # pylint: disable=broad-exception-caught  # no request may end a thread or the loop
            if response is not None and response.headers_sent:
                self._worker.log.exception("The response is cut off, since the app failed")
                return bytes(output), False
            return self.refuse(error, conn, request.head)

    def refuse(self, error: Exception, conn: Connection, head: Any = None) -> Response:
        """Answer a request that gunicorn's parser rejects, in gunicorn's form, and log it."""
        output = ResponseBuffer()
        self._worker.handle_error(head, output, conn.client, error)
        return bytes(output), False

    def _create(self, request: CompleteRequest, conn: Connection, output: ResponseBuffer) -> tuple[Any, Environ]:
        head = request.head
        head.body = io.BytesIO(request.body)
        response, environ = wsgi.create(head, output, conn.client, conn.server, self._cfg)
        environ["wsgi.multithread"] = True
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":  # the reader has removed the chunks
            del environ["HTTP_TRANSFER_ENCODING"]
            environ["CONTENT_LENGTH"] = str(len(request.body))
        return response, environ

    def _call_app(self, environ: Environ, request: CompleteRequest, response: Any) -> None:
        start = datetime.now()
        chunks = self._app(environ, response.start_response)
        try:
            for chunk in chunks:
                response.write(chunk)
            response.close()
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        self._worker.log.access(response, request.head, environ, datetime.now() - start)


@lru_cache(1)
def _date_header(second: int) -> str:
    return f"Date: {util.http_date(second)}"


def plain_error(error: RequestError) -> Response:
    """Return the response to a client whose request header is not known, in gunicorn's form."""
    output = ResponseBuffer()
    util.write_error(output, int(error.status), error.status.phrase, error.detail)
    return bytes(output), False
