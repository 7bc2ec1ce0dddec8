"""Connections of a worker: the phases through which requests take them, and their limits in number and time."""

import selectors
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from server.transport.fast_path import Environ
from server.transport.request_reader import RequestReader

NO_EVENTS, READ, WRITE = 0, selectors.EVENT_READ, selectors.EVENT_WRITE
LINGER_SECONDS = 30.0  # after the last response a client has this long to send what it began, to read, and to close


class Phase:
    """A phase in the life of connections, with a time limit. Its connections are in the order of their deadlines."""

    def __init__(self, seconds: float, events: int) -> None:
        """Take the time limit, and the events of the socket that matter in this phase."""
        self.seconds, self.events = seconds, events
        self.connections: OrderedDict[Connection, None] = OrderedDict()

    @property
    def oldest(self) -> "Connection | None":
        """The connection with the earliest deadline."""
        return next(iter(self.connections), None)


class Connection:  # pylint: disable=too-few-public-methods  # the worker has the methods
    """A connection to a client: the request that arrives, and the response that is sent."""

    __slots__ = (
        *("client", "deadline", "drained", "held", "keep", "phase"),
        *("reader", "server", "server_environ", "sock", "unsent", "watched"),
    )

    def __init__(self, sock: socket.socket, client: Any, server: Any, reader: RequestReader, phase: Phase) -> None:
        """Take the socket, the addresses of client and server, the reader of the requests, and the first phase."""
        self.sock, self.client, self.server, self.reader, self.phase = sock, client, server, reader, phase
        name, port = server[:2] if isinstance(server, tuple) else (server, "")  # the path of a Unix socket
        self.server_environ: Environ = {"SERVER_NAME": name, "SERVER_PORT": str(port)}
        self.deadline = 0.0  # as time.monotonic()
        self.watched = NO_EVENTS  # what the selector waits for
        self.unsent: bytes | memoryview = b""  # the rest of a response
        self.keep = False  # whether the connection stays open after that response
        self.held = 0  # bytes of memory that the request and the response take
        self.drained = 0  # bytes that were discarded after the last response

    @property
    def is_open(self) -> bool:
        """Whether the server has not closed the connection."""
        return self.sock.fileno() >= 0


class Connections:  # pylint: disable=too-many-instance-attributes  # one per phase
    """All connections of a worker, by phase."""

    def __init__(self, selector: selectors.BaseSelector, request_seconds: float, idle_seconds: float) -> None:
        """Take the selector of the loop, and the time limits of requests, of responses and of idle connections."""
        self._selector = selector
        self.silent, self.reading = Phase(request_seconds, READ), Phase(request_seconds, READ)
        self.writing = Phase(request_seconds, WRITE)
        self.idle, self.lingering = Phase(idle_seconds, READ), Phase(LINGER_SECONDS, READ)
        self.working, self.scraping = (
            Phase(float("inf"), NO_EVENTS),
            Phase(float("inf"), NO_EVENTS),
        )  # wait for a thread's response
        self.pipelined = Phase(float("inf"), NO_EVENTS)  # may have their next request in the reader's buffer
        self._timed = (self.silent, self.reading, self.writing, self.idle, self.lingering)
        self._n_by_address: Counter[str] = Counter()
        self._count = 0
        self.held = 0  # bytes of memory that requests and responses take

    def __len__(self) -> int:
        return self._count

    def add(self, sock: socket.socket, client: Any, server: Any, reader: RequestReader) -> Connection:
        """Add a new connection."""
        conn = Connection(sock, client, server, reader, self.silent)
        self.silent.connections[conn] = None
        self._count += 1
        self._n_by_address[_address(client)] += 1
        self.enter(conn, self.silent)
        return conn

    def count_from(self, client: Any) -> int:
        """Return the number of connections from a client's address; 0 for a Unix socket."""
        return self._n_by_address[_address(client)] if _address(client) else 0

    def enter(self, conn: Connection, phase: Phase) -> None:
        """Move a connection to a phase, whose time limit starts now."""
        del conn.phase.connections[conn]
        conn.phase = phase
        phase.connections[conn] = None  # the last one
        conn.deadline = time.monotonic() + phase.seconds
        if conn.watched != phase.events:
            self._watch(conn, phase.events)

    def hold(self, conn: Connection, n_bytes: int) -> None:
        """Record the memory that a connection takes."""
        self.held += n_bytes - conn.held
        conn.held = n_bytes

    def close(self, conn: Connection) -> None:
        """Close a connection."""
        self.hold(conn, 0)
        self._watch(conn, NO_EVENTS)
        del conn.phase.connections[conn]
        self._count -= 1
        address = _address(conn.client)
        self._n_by_address[address] -= 1
        if not self._n_by_address[address]:
            del self._n_by_address[address]
        conn.sock.close()

    def least_important(self) -> Connection | None:
        """Return the connection to close if there are too many: the oldest of the fullest phase, but first one that lingers.

        An attack fills one phase, and there the connections of other clients are younger than those that wait on purpose.
        """
        fullest = max(self._timed, key=lambda phase: len(phase.connections))
        return self.lingering.oldest or fullest.oldest

    def slowest(self) -> Connection | None:
        """Return the connection that has been sending a request, or reading a response, for the longest time."""
        oldest = [conn for conn in (self.reading.oldest, self.writing.oldest) if conn]
        return min(oldest, key=lambda conn: conn.deadline, default=None)

    def overdue(self) -> Iterator[Connection]:
        """Yield the connections whose deadline has passed. The caller moves or closes each."""
        now = time.monotonic()
        for phase in self._timed:
            while (conn := phase.oldest) and conn.deadline <= now:
                yield conn

    def _watch(self, conn: Connection, events: int) -> None:
        if conn.watched and events:
            self._selector.modify(conn.sock, events, conn)
        elif events:
            self._selector.register(conn.sock, events, conn)
        elif conn.watched:
            self._selector.unregister(conn.sock)
        conn.watched = events


def _address(client: Any) -> str:
    return str(client[0]) if isinstance(client, tuple) else ""
