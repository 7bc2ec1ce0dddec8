"""Gunicorn's threaded worker, which answers fast requests inline in its event loop.

Passing a request to a thread, and its connection back, takes several times as long as predicting one row.
"""

import socket
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from typing import Any

from gunicorn import util
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.gthread import TConn, ThreadWorker

from server.core import shutdown
from server.transport import fast_request
from server.transport.fast_path import Environ

BODY_WAIT_SECONDS = 0.01  # the loop waits this long for the rest of a body, then a thread does
RECV_SIZE = 65_536  # bytes


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers fast requests in its event loop, and all others in threads, as gunicorn does."""

    def __init__(self, *arguments: Any) -> None:
        """Take the arguments of gunicorn's master."""
        super().__init__(*arguments)
        self._base_environ = {
            **base_environ(self.cfg),
            "wsgi.url_scheme": "http",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
        }
        self._inline_enabled = not self.cfg.is_ssl and not self.cfg.accesslog
        self._partial_requests: dict[TConn, float] = {}  # connections with an incomplete body, and until when the loop waits

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events and dispatch them; wake up early if the rest of a body is awaited."""
        super().wait_for_and_dispatch_events(min(timeout, BODY_WAIT_SECONDS) if self._partial_requests else timeout)

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """Answer a request on a keep-alive connection, inline or in a thread."""
        if not self._can_handle_inline() or not self._handle_inline(conn):
            self._partial_requests.pop(conn, None)
            super().on_client_socket_readable(conn, client)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer in a thread. A truncated body closes the connection, since the start of the next request is unknown."""
        body, read = req.body, req.body.read

        def read_or_end(size: int | None = None) -> Any:
            try:
                # read a body of known length at once: gunicorn would copy it in pieces of 1024 bytes
                if size and size > 0 and isinstance(body.reader, LengthReader) and not body.buf.tell():
                    return body.reader.read(size)
                return read(size)
            except (OSError, ParseException) as error:  # a timeout or a malformed chunk; buffered data may be lost
                req.force_close()
                raise OSError(str(error)) from error  # the app reports it as a client error

        body.read = read_or_end
        try:
            return bool(super().handle_request(req, conn))
        finally:
            del body.read  # breaks a reference cycle

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Keep or close a connection after a thread has answered; answer a pipelined request at once."""
        if not self.alive or fs.exception() is not None or not fs.result():
            self._close(conn)
            return
        super().finish_request(conn, fs)
        if self.keepalived_conns and self.keepalived_conns[-1] is conn:
            data = conn.parser.unreader.take_buffered()
            conn.parser.unreader.unread(data)
            if data:
                self.on_client_socket_readable(conn, conn.sock)

    def _close(self, conn: TConn) -> None:
        """Close a connection. A thread waits for the client to close it; gunicorn would block its loop."""
        with suppress(OSError):  # the client may have disconnected
            conn.sock.shutdown(socket.SHUT_WR)  # at once, even if all threads are busy
        closed = self.tpool.submit(conn.close, graceful=True)
        closed.add_done_callback(lambda _: self.method_queue.defer(self._forget_connection))

    def _forget_connection(self) -> None:
        self.nr_conns -= 1

    def murder_keepalived(self) -> None:
        """Pass overdue bodies to threads, which report the timeout, and close connections that were idle for too long."""
        now = time.monotonic()
        for conn in [conn for conn, deadline in self._partial_requests.items() if deadline < now]:
            del self._partial_requests[conn]
            super().on_client_socket_readable(conn, conn.sock)
        super().murder_keepalived()

    def _can_handle_inline(self) -> bool:
        """Return whether the connection stays open after the response, and no gunicorn feature needs a thread."""
        stays_open = self.alive and not shutdown.is_shutting_down() and len(self.keepalived_conns) <= self.max_keepalived
        return stays_open and self._inline_enabled and self.nr + 1 < self.max_requests

    def _handle_inline(self, conn: TConn) -> bool:
        """Answer a fast request, or wait once for the rest of it. Return False if a thread must handle it."""
        data = conn.parser.unreader.take_buffered()
        if len(data) <= fast_request.MAX_REQUEST_BYTES:  # otherwise a client that pipelines endlessly fills the memory
            data += _receive(conn.sock)
        try:
            environ = fast_request.parse_request(data)
        except fast_request.IncompleteRequest:
            conn.parser.unreader.unread(data)
            self._keep_alive(conn)
            return self._partial_requests.setdefault(conn, deadline := time.monotonic() + BODY_WAIT_SECONDS) == deadline
        if environ is None:
            conn.parser.unreader.unread(data)
            return False
        self._partial_requests.pop(conn, None)
        self.nr += 1
        self.notify()  # heartbeat: the loop sends only one per round, which may have many responses
        self._send(conn, self._call_app(environ, conn))
        return True

    def _call_app(self, environ: Environ, conn: TConn) -> bytes:
        """Call the app and return the response as bytes."""
        address = {"SERVER_NAME": conn.server[0], "SERVER_PORT": str(conn.server[1])}
        lines: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            lines.extend((f"HTTP/1.1 {status}", "Server: gunicorn", _date_header(int(time.time())), "Connection: keep-alive"))
            lines.extend(f"{name}: {value}" for name, value in headers if name != "Content-Length")

        chunks: Iterable[bytes] = self.wsgi({**self._base_environ, **address, **environ}, start_response)
        body = b"".join(chunks)
        lines.append(f"Content-Length: {len(body)}")  # must match, since the next response follows
        return "\r\n".join(lines).encode("latin-1") + fast_request.HEADER_END + body

    def _send(self, conn: TConn, response: bytes) -> None:
        """Send a response. If the socket buffer is full, a thread sends the rest."""
        try:
            sent = conn.sock.send(response)
        except OSError:  # the thread will get the same error
            sent = 0
        if sent == len(response):
            self._keep_alive(conn)
            return
        self.keepalived_conns.remove(conn)
        self.poller.unregister(conn.sock)
        rest = self.tpool.submit(_send_rest, conn, response[sent:])
        rest.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _keep_alive(self, conn: TConn) -> None:
        """Restart the idle timeout of a connection. The connections are ordered by its end."""
        self.keepalived_conns.remove(conn)
        conn.set_timeout()
        self.keepalived_conns.append(conn)


def _receive(sock: Any) -> bytes:
    try:
        return sock.recv(RECV_SIZE)
    except OSError:  # the thread will get the same error
        return b""


def _send_rest(conn: TConn, rest: bytes) -> bool:
    conn.sock.setblocking(True)
    conn.sock.sendall(rest)
    return True


@lru_cache(1)
def _date_header(second: int) -> str:
    return f"Date: {util.http_date(second)}"
