"""Event loop of a worker: receives requests, has them answered, and sends the responses, without ever waiting for one client.

The loop itself answers health checks and small requests of the fast routes: passing a request to a thread, and its response back,
takes several times as long as predicting one row. Other requests go to threads once they have arrived completely.
"""

import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.http.errors import ParseException

from server.core.errors import RequestError
from server.core.settings import Settings
from server.models.served_models import NotInMemory
from server.transport.connection import READ, Connection, Connections
from server.transport.fast_path import IN_EVENT_LOOP, Environ
from server.transport.metrics_port import METRICS_ROUTE
from server.transport.request_reader import CompleteRequest, RequestReader
from server.transport.responder import Responder, Response, plain_error

RECV_SIZE = 65_536  # bytes
MAX_DRAINED = 100_000_000  # bytes that a client may send after its last response
ANSWERED_PER_EXTRA_CLIENT = 16  # connections in a turn
MAX_QUEUED_PER_THREAD = 64  # requests; one more would wait too long
HEALTH_ROUTES = ("/healthz", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_FILES_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class EventLoop:
    """Handles all connections of a worker."""

    def __init__(self, worker: Any, settings: Settings) -> None:
        """Listen on the worker's sockets. Take gunicorn's worker, with its app loaded."""
        self._worker, self._settings, self._responder = worker, settings, Responder(worker)
        self._selector = selectors.DefaultSelector()
        self._connections = Connections(self._selector, settings.request_timeout_seconds, worker.cfg.keepalive)
        self._app_pool, self._metrics_pool = ThreadPoolExecutor(worker.cfg.threads), ThreadPoolExecutor(1)
        self._responses: deque[tuple[Connection, Response]] = deque()  # of the threads
        self._max_accepted = 1  # connections in a turn
        self._max_held = 2 * worker.cfg.threads * settings.max_body  # bytes of requests and responses in memory
        wake_up, self._wake_up = worker.PIPE  # signals write to it, too
        self._selector.register(wake_up, READ, partial(self._send_responses, wake_up))
        for listener in worker.sockets:
            listener.setblocking(False)
            self._selector.register(listener, READ, partial(self._accept_all, listener, listener.getsockname()))

    @property
    def has_work(self) -> bool:
        """Whether a client may still expect a response."""
        return len(self._connections) > len(self._connections.lingering.connections)

    def stop_listening(self) -> None:
        """Accept no more connections."""
        for listener in self._worker.sockets:
            self._selector.unregister(listener)
            listener.close()

    def stop_threads(self) -> None:
        """Drop the requests that no thread has begun."""
        for pool in (self._app_pool, self._metrics_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def turn(self, seconds: float) -> None:
        """Wait for events for some seconds at most, and handle them."""
        pipelined = list(self._connections.pipelined.connections)
        ready = self._selector.select(0.0 if pipelined else seconds)
        self._max_accepted = 1 + (len(ready) + len(pipelined)) // ANSWERED_PER_EXTRA_CLIENT
        for key, _ in ready:
            if isinstance(key.data, Connection):
                self._try(self._send_rest if key.data.phase is self._connections.writing else self._receive, key.data)
            else:
                key.data()
        for conn in pipelined:  # one request of each in a turn, so that no client delays the others
            self._try(self._answer_next, conn)
        while self._connections.held > self._max_held and (slowest := self._connections.slowest()):
            self._try(self._give_up, slowest)
        for conn in self._connections.overdue():
            self._try(self._time_out if conn.phase is self._connections.reading else self._connections.close, conn)

    def _try(self, step: Callable[[Connection], None], conn: Connection) -> None:
        """Do a step for a connection, unless an earlier step has closed it. No failure ends the worker."""
        if not conn.is_open:
            return
        try:
            step(conn)
        except OSError:  # the client has disconnected
            self._connections.close(conn)
        except Exception:  # pylint: disable=broad-exception-caught
            self._worker.log.exception("A connection is closed, because an error occurred in the event loop")
            self._connections.close(conn)

    def _accept_all(self, listener: socket.socket, server: Any) -> None:
        """Accept one new connection in a turn, and more if many others are answered in it.

        One at a time, workers share the connections that come at once: a worker that accepts all leaves none to the others.
        But if a turn is long, a health check must not wait for one turn per connection before it.
        """
        for _ in range(self._max_accepted):
            try:
                sock, client = listener.accept()
            except OSError as error:  # none is left, another worker was faster, or the client has disconnected
                if error.errno in NO_FILES_LEFT:
                    self._evict()
                return
            self._add(sock, client, server)

    def _add(self, sock: socket.socket, client: Any, server: Any) -> None:
        """Add an accepted connection. Beyond a limit, a connection is closed: this one, or a less important one."""
        sock.setblocking(False)
        conn = self._connections.add(sock, client, server, RequestReader(self._worker.cfg, client, self._settings.max_body))
        if 0 < self._settings.max_connections_per_client < self._connections.count_from(client):
            reason = "Too many connections from this address (serve.max_connections_per_client)."
            self._try(partial(self._reject, error=unavailable(reason)), conn)
        if len(self._connections) > self._worker.cfg.worker_connections:
            self._evict()

    def _evict(self) -> None:
        if conn := self._connections.least_important():
            self._connections.close(conn)

    def _receive(self, conn: Connection) -> None:
        """Receive part of a request, and answer the request if it is complete."""
        try:
            data = conn.sock.recv(RECV_SIZE)
        except BlockingIOError:
            return
        if conn.phase is self._connections.lingering:
            conn.drained += len(data)
            if not data or conn.drained > MAX_DRAINED:
                self._connections.close(conn)
        elif data:
            conn.reader.buffer += data
            self._answer_next(conn)
        elif conn.phase is self._connections.reading:
            self._reject(conn, RequestError(HTTPStatus.BAD_REQUEST, "The request is incomplete: the client sent no more."))
        else:
            self._connections.close(conn)

    def _answer_next(self, conn: Connection) -> None:
        """Answer the request in the reader's buffer if it is complete."""
        try:
            request = conn.reader.read()
        except RequestError as error:
            self._reject(conn, error)
        except ParseException as error:
            self._send(conn, self._responder.refuse(error, conn))
        else:
            if request is None:
                self._await_rest(conn)
                return
            self._worker.count_request()
            if isinstance(request, CompleteRequest):
                self._dispatch(conn, request)
            else:
                self._answer_fast(conn, request)

    def _answer_fast(self, conn: Connection, environ: Environ) -> None:
        """Answer a small request at once, or in a thread if its model has to be loaded."""
        environ[IN_EVENT_LOOP] = True
        try:
            response = self._responder.answer_fast(environ, conn)
        except NotInMemory:
            del environ[IN_EVENT_LOOP]
            environ["wsgi.input"].seek(0)
            self._submit(conn, partial(self._responder.answer_fast, environ, conn))
        else:
            self._send(conn, response)

    def _await_rest(self, conn: Connection) -> None:
        if conn.phase is not self._connections.reading:
            self._connections.enter(conn, self._connections.reading)
        if conn.reader.expects_continue:
            conn.reader.expects_continue = False
            conn.sock.send(CONTINUE)
        self._connections.hold(conn, conn.reader.n_bytes)

    def _dispatch(self, conn: Connection, request: CompleteRequest) -> None:
        """Answer a health check at once, and any other request in a thread."""
        answer = partial(self._responder.answer, request, conn)
        if request.head.path in HEALTH_ROUTES:
            self._send(conn, answer())
        else:
            self._submit(conn, answer, request)

    def _submit(self, conn: Connection, answer: Callable[[], Response], request: CompleteRequest | None = None) -> None:
        """Pass a request to a thread: any request, or by default a small one of a fast route."""
        head, connections = request and request.head, self._connections
        is_scrape = head and head.path == METRICS_ROUTE  # has a thread of its own, so that scrapes never wait for predictions
        phase, pool = (connections.scraping, self._metrics_pool) if is_scrape else (connections.working, self._app_pool)
        if len(phase.connections) >= MAX_QUEUED_PER_THREAD * self._worker.cfg.threads:
            self._reject(conn, unavailable("All threads are busy."), head)
            return
        connections.enter(conn, phase)
        connections.hold(conn, len(request.body) if request else 0)
        pool.submit(self._answer_in_thread, conn, answer)

    def _answer_in_thread(self, conn: Connection, answer: Callable[[], Response]) -> None:
        self._responses.append((conn, answer()))
        with suppress(BlockingIOError):  # the pipe is full, so the loop wakes up anyway
            os.write(self._wake_up, b"\0")

    def _send_responses(self, wake_up: int) -> None:
        """Send the responses of the threads."""
        os.read(wake_up, RECV_SIZE)
        while self._responses:
            conn, response = self._responses.popleft()
            self._try(partial(self._send, response=response), conn)

    def _reject(self, conn: Connection, error: RequestError, head: Any = None) -> None:
        """Answer a request that will not be handled, and close the connection."""
        head = head or conn.reader.interrupt()
        answer = partial(self._responder.answer, CompleteRequest(head, b""), conn) if head else plain_error
        self._send(conn, answer(error))

    def _send(self, conn: Connection, response: Response) -> None:
        """Send a response, or the part of it that the socket takes at once."""
        conn.unsent, conn.keep = response
        if not conn.keep:
            conn.reader.interrupt()
        self._send_rest(conn)

    def _send_rest(self, conn: Connection) -> None:
        connections = self._connections
        try:
            sent = conn.sock.send(conn.unsent)
        except BlockingIOError:
            sent = 0
        if sent < len(conn.unsent):
            conn.unsent = memoryview(conn.unsent)[sent:]
            if conn.phase is not connections.writing:
                connections.enter(conn, connections.writing)
            connections.hold(conn, len(conn.unsent) + conn.reader.n_bytes)
            return
        conn.unsent = b""
        if conn.held:
            connections.hold(conn, conn.reader.n_bytes)
        if not conn.keep:
            # what the client still sends is discarded: closing now would reset the connection, and the response might be lost
            conn.sock.shutdown(socket.SHUT_WR)
            connections.enter(conn, connections.lingering)
        elif conn.reader.buffer:
            connections.enter(conn, connections.pipelined)
        else:
            connections.enter(conn, connections.idle)

    def _give_up(self, conn: Connection) -> None:
        """Free the memory of the slowest client."""
        if conn.phase is self._connections.writing:
            self._connections.close(conn)
        else:
            self._reject(conn, unavailable("There are too many large requests at once."))

    def _time_out(self, conn: Connection) -> None:
        self._reject(conn, RequestError(HTTPStatus.REQUEST_TIMEOUT, "Timed out while reading the request."))


def unavailable(reason: str) -> RequestError:
    """Return the error for a request that the server has no room for."""
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason} Retry later.", headers={"Retry-After": "1"})
