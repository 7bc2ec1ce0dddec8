"""The event loop, turn by turn."""

import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from housing.serving.supervisor import server_environment
from server.core.settings import Settings
from server.transport.event_loop import ANSWERED_PER_EXTRA_CLIENT, EventLoop
from server.transport.gunicorn_worker import Worker
from tests.support.tables import config

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
N_NEW = 10
UNACKED = 24  # where Linux has the field in its struct tcp_info


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Yield a listening socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening


@pytest.fixture
def loop(listener: socket.socket) -> Iterator[EventLoop]:
    """Yield the loop of a worker in this process."""
    worker = Worker(1, os.getppid(), [listener], None, 30, Config(), Logger(Config()))
    worker.wsgi, worker.PIPE = answer, os.pipe()
    created = EventLoop(worker, Settings.from_environment(server_environment(config("serve", "data=rentals").serve)))
    yield created
    while created.has_work:  # the clients have closed their connections
        created.turn(0.1)
    created.stop_threads()
    for descriptor in worker.PIPE:
        os.close(descriptor)
    worker.tmp.close()


def answer(_environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer any request, as the app of the worker."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def backlog(listener: socket.socket) -> int:
    """Return the number of connections that wait to be accepted, which Linux has as tcpi_unacked."""
    return int(struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), UNACKED)[0])


@pytest.mark.parametrize("n_busy", [0, ANSWERED_PER_EXTRA_CLIENT - 2, 2 * ANSWERED_PER_EXTRA_CLIENT])
def test_a_turn_that_answers_many_connections_accepts_more(listener: socket.socket, loop: EventLoop, n_busy: int) -> None:
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(listener.getsockname(), timeout=60))

        busy = [connect() for _ in range(n_busy)]
        while backlog(listener):
            loop.turn(0.0)
        new = [connect() for _ in range(N_NEW)]
        for client in (*busy, *new):
            client.sendall(HEALTH)
        assert backlog(listener) == N_NEW
        loop.turn(0.0)
        assert backlog(listener) == N_NEW - 1 - n_busy // ANSWERED_PER_EXTRA_CLIENT
        for client in busy:
            assert client.recv(4096).endswith(b"ok")
        while backlog(listener):
            loop.turn(0.0)
        loop.turn(0.0)
        for client in new:
            assert client.recv(4096).endswith(b"ok")
