"""Clients that are slow, silent or too many: each limit, and that others are served meanwhile."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.raw_client import WARM, Client, keep_alive, new, request
from tests.support.server import Server, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

MAX_BODY, MAX_CONNECTIONS, SECONDS = 200_000, 100, 2
MAX_QUEUED = 64  # of the only thread
ROW = json.dumps(FLAT).encode()
GOOD = request(ROW)
LARGE = request(ROW + b" " * (MAX_BODY - len(ROW)))
EXPLAIN = request(ROW, "/explain")  # needs a thread for a while
SILENT, HEADER, BODY, LARGE_BODY = b"", GOOD[:40], GOOD[:-1], LARGE[:-1]


@pytest.fixture(scope="module")
def served(served_home: Path) -> Iterator[Server]:
    """One worker with one thread and low limits."""
    options = (
        *("serve.workers=1", "serve.threads=1", f"serve.max_body={MAX_BODY}", f"serve.request_timeout_seconds={SECONDS}"),
        *("serve.explain_max_exact_columns=0", "serve.explain_samples=50000"),
    )
    environment = {"GUNICORN_CMD_ARGS": f"--worker-connections={MAX_CONNECTIONS}"}
    with serving(served_home, *options, environment=environment) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def has_response(client: Client) -> bool:
    """Return whether a response, or the end of the connection, has arrived."""
    client.socket.setblocking(False)
    try:
        client.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        client.socket.settimeout(30)
    return True


@pytest.mark.parametrize("part", [SILENT, HEADER, BODY, LARGE_BODY])
def test_an_incomplete_request_takes_no_thread(served: Server, part: bytes) -> None:
    with new(served) as client:
        client.send(part)
        assert served.answers("/model")  # by the only thread
        assert not has_response(client)


def test_health_metrics_and_small_requests_do_not_wait_for_busy_threads(served: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(new(served)) for _ in range(MAX_QUEUED - 4)]
        for client in clients:
            client.send(EXPLAIN)
        assert served.answers("/healthz")
        assert served.answers("/readyz")
        assert served.answers("/metrics")
        assert served.predict(FLAT).status == 200
        assert not has_response(clients[-1])
        assert {client.response()[0] for client in clients} == {200}


def test_a_request_beyond_the_queue_of_the_threads_is_refused(served: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(new(served)) for _ in range(MAX_QUEUED + 20)]
        for client in clients:
            client.send(EXPLAIN)
        responses = [client.response() for client in clients]
    refused = [(headers["Retry-After"], headers["Connection"]) for status, headers, _ in responses if status == 503]
    assert refused and set(refused) == {("1", "close")}
    assert [status for status, _, _ in responses].count(200) >= MAX_QUEUED


@pytest.mark.parametrize("parts", [(b"", WARM), (LARGE[:-100], LARGE[-100:])], ids=["header", "body"])
def test_a_request_has_a_deadline_even_if_bytes_keep_arriving(served: Server, parts: tuple[bytes, bytes]) -> None:
    with keep_alive(served) as client:
        start = time.monotonic()
        client.send(parts[0])
        for byte in parts[1]:
            client.send(bytes([byte]))
            time.sleep(0.1)
            if has_response(client):
                break
        status, headers, body = client.response()
        assert (status, headers["Connection"]) == (408, "close")
        assert b"Timed out while reading the request" in body
        assert time.monotonic() - start >= SECONDS
        assert client.ends()


def test_a_silent_connection_is_closed(served: Server) -> None:
    with new(served) as client:
        assert client.ends()


def test_a_connection_whose_response_is_not_read_is_closed(served: Server) -> None:
    rows = json.dumps({"columns": list(FLAT), "rows": [list(FLAT.values())] * 1000}).encode()
    with keep_alive(served, receives=2048) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.send(1000 * request(rows, "/predict?interval=0.9"))  # until the buffers are full, and the server gives up


def test_the_oldest_silent_connections_give_way_to_new_ones(served: Server) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(keep_alive(served))
        silent = [stack.enter_context(new(served)) for _ in range(2 * MAX_CONNECTIONS)]
        assert served.predict(FLAT).status == 200  # on a new connection
        client.send(GOOD)
        assert client.response()[0] == 200
        assert all(client.ends() for client in silent[:MAX_CONNECTIONS])
        assert not has_response(silent[-1])


def test_the_slowest_body_gives_way_to_others_if_they_take_too_much_memory(served: Server) -> None:
    with new(served) as slowest, new(served) as second, new(served) as third:
        for client in (slowest, second, third):
            client.send(LARGE_BODY)
            assert served.answers("/healthz")  # the body has been read by now
        status, headers, _ = slowest.response()
        assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
        third.send(LARGE[-1:])
        assert third.response()[0] == 200


def test_connections_of_a_client_can_be_limited(served_home: Path) -> None:
    with serving(served_home, "serve.workers=1", "serve.max_connections_per_client=3") as running, ExitStack() as stack:
        clients = [stack.enter_context(keep_alive(running)) for _ in range(3)]
        with new(running) as refused:
            status, _, body = refused.response()
            assert status == 503 and b"serve.max_connections_per_client" in body
        clients[0].answers.close()
        clients[0].socket.close()
        wait_for(lambda: running.answers("/healthz"), "there is room for another connection")
        clients[1].send(WARM)
        assert clients[1].response()[0] == 200
