"""Gunicorn's threaded worker with a short way for the hot routes.

A request that has arrived whole is answered where its arrival is noticed: to hand it to a thread, and its connection back,
takes several times as long as to predict a row.
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
from server.transport.wsgi import Environ

BODY_WAIT_SECONDS = 0.01  # seconds for the rest of a body, before a thread waits for it


RECV_SIZE = 65_536  # bytes to receive


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers hot requests in its own loop, and all others in its threads, as gunicorn does."""

    def __init__(self, *given: Any) -> None:
        """Take what gunicorn's master gives a worker."""
        super().__init__(*given)
        self._base_environ = {
            **base_environ(self.cfg),
            "wsgi.url_scheme": "http",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
        }
        self._inline_enabled = not self.cfg.is_ssl and not self.cfg.accesslog
        self._partial_requests: dict[
            TConn, float
        ] = {}  # connections with a part of a body, and until when the rest is awaited here

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do what there is to do, or wait for it."""
        super().wait_for_and_dispatch_events(min(timeout, BODY_WAIT_SECONDS) if self._partial_requests else timeout)

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """Answer what came on a connection that was kept: here, or in a thread."""
        if not self._can_handle_inline() or not self._handle_inline(conn):
            self._partial_requests.pop(conn, None)
            super().on_client_socket_readable(conn, client)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer in a thread. Where a body breaks off, nobody knows where the next request begins: the connection ends."""
        body, read = req.body, req.body.read

        def read_or_end(size: int | None = None) -> Any:
            try:
                # of a known length: in one piece, where gunicorn takes it apart and puts it together, 1024 bytes at a time
                if size and size > 0 and isinstance(body.reader, LengthReader) and not body.buf.tell():
                    return body.reader.read(size)
                return read(size)
            except (OSError, ParseException) as error:  # nothing comes, or what is no chunk; what came before may be lost
                req.force_close()
                raise OSError(str(error)) from error  # which the app knows as the client's fault

        body.read = read_or_end
        try:
            return bool(super().handle_request(req, conn))
        finally:
            del body.read  # it refers to itself, and would stay until Python looks for circles

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """Keep or close a connection that a thread has answered; what came behind the request needs no more to come."""
        if not self.alive or fs.exception() is not None or not fs.result():
            self._close(conn)
            return
        super().finish_request(conn, fs)
        if self.keepalived_conns and self.keepalived_conns[-1] is conn:
            came = conn.parser.unreader.take_buffered()
            conn.parser.unreader.unread(came)
            if came:
                self.on_client_socket_readable(conn, conn.sock)

    def _close(self, conn: TConn) -> None:
        """Close a connection; a thread waits for the client's end, where gunicorn's loop would."""
        with suppress(OSError):  # the client may have gone
            conn.sock.shutdown(socket.SHUT_WR)  # at once, whatever the threads are busy with
        closed = self.tpool.submit(conn.close, graceful=True)
        closed.add_done_callback(lambda _: self.method_queue.defer(self._forget_connection))

    def _forget_connection(self) -> None:
        self.nr_conns -= 1

    def murder_keepalived(self) -> None:
        """Leave bodies that do not come to a thread, which tells the client; close connections that were kept for too long."""
        now = time.monotonic()
        for conn in [conn for conn, until in self._partial_requests.items() if until < now]:
            del self._partial_requests[conn]
            super().on_client_socket_readable(conn, conn.sock)
        super().murder_keepalived()

    def _can_handle_inline(self) -> bool:
        """Whether a connection stays after its answer, and nothing but the answer is asked for."""
        stays = self.alive and not shutdown.is_shutting_down() and len(self.keepalived_conns) <= self.max_keepalived
        return stays and self._inline_enabled and self.nr + 1 < self.max_requests

    def _handle_inline(self, conn: TConn) -> bool:
        """Answer a hot request, or wait for the rest of it once. Gives whether a thread has nothing to do."""
        came = conn.parser.unreader.take_buffered()
        if len(came) <= fast_request.MAX_REQUEST_BYTES:  # else a client that never waits for an answer fills the memory
            came += _receive(conn.sock)
        try:
            environ = fast_request.parse_request(came)
        except fast_request.IncompleteRequest:
            conn.parser.unreader.unread(came)
            self._keep_alive(conn)
            return self._partial_requests.setdefault(conn, until := time.monotonic() + BODY_WAIT_SECONDS) == until
        if environ is None:
            conn.parser.unreader.unread(came)
            return False
        self._partial_requests.pop(conn, None)
        self.nr += 1
        self.notify()  # the loop tells the master once a round, which may have many answers
        self._send(conn, self._call_app(environ, conn))
        return True

    def _call_app(self, environ: Environ, conn: TConn) -> bytes:
        """Have the app answer; give the bytes to send."""
        place = {"SERVER_NAME": conn.server[0], "SERVER_PORT": str(conn.server[1])}
        lines: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            lines.extend((f"HTTP/1.1 {status}", "Server: gunicorn", _date_header(int(time.time())), "Connection: keep-alive"))
            lines.extend(f"{name}: {value}" for name, value in headers if name != "Content-Length")

        parts: Iterable[bytes] = self.wsgi({**self._base_environ, **place, **environ}, start_response)
        body = b"".join(parts)
        lines.append(f"Content-Length: {len(body)}")  # whatever the app says, since the next answer begins after so many
        return "\r\n".join(lines).encode("latin-1") + fast_request.HEADER_END + body

    def _send(self, conn: TConn, answer: bytes) -> None:
        """Send an answer; what the client does not take at once is sent by a thread."""
        try:
            sent = conn.sock.send(answer)
        except OSError:  # the thread will meet it too
            sent = 0
        if sent == len(answer):
            self._keep_alive(conn)
            return
        self.keepalived_conns.remove(conn)
        self.poller.unregister(conn.sock)
        rest = self.tpool.submit(_send_rest, conn, answer[sent:])
        rest.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _keep_alive(self, conn: TConn) -> None:
        """Let the time for which a connection is kept begin anew; they stand in the order in which it ends."""
        self.keepalived_conns.remove(conn)
        conn.set_timeout()
        self.keepalived_conns.append(conn)


def _receive(sock: Any) -> bytes:
    try:
        return sock.recv(RECV_SIZE)
    except OSError:  # the thread will meet it too
        return b""


def _send_rest(conn: TConn, rest: bytes) -> bool:
    conn.sock.setblocking(True)
    conn.sock.sendall(rest)
    return True


@lru_cache(1)
def _date_header(second: int) -> str:
    return f"Date: {util.http_date(second)}"
