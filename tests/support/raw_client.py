"""A client that sends bytes as they are."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.server import Server

WARM = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
JSON = "Content-Type: application/json\r\n"
Response = tuple[int, dict[str, str], bytes]


class Client:
    """A connection to a server, byte by byte."""

    def __init__(self, server: Server, receives: int | None = None) -> None:
        """Connect, with a receive buffer of `receives` bytes if given."""
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        if receives is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # nothing that is message waits
        self.socket.settimeout(30)
        self.socket.connect((host, int(port)))
        self.answers = self.socket.makefile("rb")

    def send(self, message: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(message)

    def response(self) -> Response:
        """Read a response. Return status, headers and body without their variable parts."""
        status = int(self.answers.readline().split()[1])
        headers = dict(line.decode().rstrip().split(": ") for line in iter(self.answers.readline, b"\r\n"))
        body = self.answers.read(int(headers["Content-Length"]))
        differing = ("Date", "X-Request-Id", "Content-Length")  # the body is seen itself
        same = {name: value for name, value in headers.items() if name not in differing}
        return status, same, re.sub(rb',"request_id":"[^"]*"', b"", body)

    def ends(self) -> bool:
        """Return whether the server has closed the connection."""
        return self.answers.read() == b""


@contextmanager
def new(server: Server, receives: int | None = None) -> Iterator[Client]:
    """Yield a new connection."""
    client = Client(server, receives)
    with client.socket, client.answers:
        yield client


@contextmanager
def keep_alive(server: Server, receives: int | None = None) -> Iterator[Client]:
    """Yield a keep-alive connection after a first request."""
    with new(server, receives) as client:
        client.send(WARM)
        assert client.response()[0] == 200
        yield client


def request(body: bytes, route: str = "/predict", fields: str = JSON, length: int | None = None) -> bytes:
    """Return a request as bytes."""
    content_length = len(body) if length is None else length
    return f"POST {route} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {content_length}\r\n\r\n".encode() + body
