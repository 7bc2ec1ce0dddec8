"""Connections of a worker: the phases through which requests take them, and their limits in number and time."""

import math
import selectors
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)  # compared by identity
class Connection:
    """A connection to a client: the request that arrives, and the response that is sent. `server` is the socket's own address."""

    sock: socket.socket
    client: Any
    server: Any
    reader: RequestReader
    phase: Phase
    server_environ: Environ = field(init=False)
    deadline: float = 0.0  # as time.monotonic()
    watched: int = NO_EVENTS  # what the selector waits for
    unsent: bytes | memoryview = b""  # the rest of a response
    keep: bool = False  # whether the connection stays open after that response
    held: int = 0  # bytes of memory that the request and the response take
    drained: int = 0  # bytes that were discarded after the last response

    def __post_init__(self) -> None:
        name, port = self.server[:2] if isinstance(self.server, tuple) else (self.server, "")  # the path of a Unix socket
        self.server_environ = {"SERVER_NAME": name, "SERVER_PORT": str(port)}

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
        # wait for the response of a thread
        self.working, self.scraping = Phase(math.inf, NO_EVENTS), Phase(math.inf, NO_EVENTS)
        self.pipelined = Phase(math.inf, NO_EVENTS)  # may have their next request in the reader's buffer
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
