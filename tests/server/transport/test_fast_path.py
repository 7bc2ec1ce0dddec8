"""Kept connections: a body that nobody reads does not become the next request."""

import http.client
import socket
from contextlib import closing

import pytest

from tests.support.server import Server


def read(connection: socket.socket) -> int:
    """Read a response and return its status."""
    with closing(http.client.HTTPResponse(connection)) as answer:
        answer.begin()
        answer.read()
        return answer.status


@pytest.mark.parametrize(("line", "status"), [("PUT /predict", 405), ("POST /nowhere", 404), ("GET /healthz", 200)])
def test_an_unused_body_is_drained_before_the_response(rentals_server: Server, line: str, status: int) -> None:
    host, port = rentals_server.url.removeprefix("http://").split(":")
    head, body = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n".encode(), b"0123456789"
    follows = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        connection.sendall(head)
        with pytest.raises(TimeoutError):  # an answer now would invite the next request
            connection.recv(1, socket.MSG_PEEK)
        connection.settimeout(5)
        connection.sendall(body)
        assert read(connection) == status
        connection.sendall(follows)
        assert read(connection) == 200
