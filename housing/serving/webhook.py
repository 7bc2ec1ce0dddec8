"""The listener for MLflow's webhooks: a signed delivery makes the puller look at once. It is a hint; polling stays the truth.

Anybody may connect, so a request has limits of size and time, and connections have a limit of number.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from housing.core.errors import ConfigError
from server.core.settings import Settings

ROUTE = "/webhook"
ID, TIMESTAMP, SIGNATURE = (f"x-mlflow-{name}" for name in ("delivery-id", "timestamp", "signature"))
TOLERANCE_SECONDS = 300  # between the time of a delivery and now
MAX_HEAD_BYTES, MAX_BODY_BYTES = 16_384, 262_144
REQUEST_SECONDS = 5.0  # for a whole request and its response
MAX_CONNECTIONS = 16
MAX_KNOWN = 10_000  # deliveries that are remembered
REQUEST_LINE = re.compile(r"([A-Z]+) ([^ ?]*)(?:\?[^ ]*)? HTTP/1\.[01]")
NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)  # any other form of a length is refused, such as one with leading zeros
TIME = re.compile(r"[0-9]{1,12}", re.ASCII)

log = logging.getLogger("puller")


class _Refused(Exception):
    """A request that is no delivery, with the status of its response."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


def read_secret(settings: Settings) -> bytes:
    """Return the secret of the webhook. Raise ConfigError if there is none."""
    try:
        secret = Path(settings.webhook_secret_file).read_bytes().strip() if settings.webhook_secret_file else b""
    except OSError as error:
        reason = f"{settings.webhook_secret_file}: {error.strerror}"
        raise ConfigError(f"serve.webhook_secret_file must be a file that this user can read (got {reason}).") from error
    if not secret:
        raise ConfigError(
            "serve.webhook_port needs the secret of the webhook in a file: serve.webhook_secret_file=FILE."
            f" It is {'empty' if settings.webhook_secret_file else 'not set'}."
        )
    return secret


class Deliveries:
    """Checks deliveries: signature, time, and whether one is new."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._known: OrderedDict[str, None] = OrderedDict()

    def accept(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether a delivery is new; MLflow repeats one that was not answered. Raise _Refused if it is not MLflow's."""
        delivery_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
        content = b".".join((delivery_id.encode("latin-1"), timestamp.encode("latin-1"), body))
        expected = b"v1," + base64.b64encode(hmac.digest(self._secret, content, hashlib.sha256))
        is_signed = hmac.compare_digest(expected, headers.get(SIGNATURE, "").encode("latin-1"))
        if not is_signed or not TIME.fullmatch(timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
            raise _Refused(HTTPStatus.UNAUTHORIZED)
        if delivery_id in self._known:
            return False
        self._known[delivery_id] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return True


class WebhookListener:
    """Listens in a thread of its own, and sets an event with each new delivery."""

    def __init__(self, host: str, port: int, secret: bytes, hint: threading.Event) -> None:
        """Start to listen; port 0 takes a free one. Raises OSError if the address is in use."""
        self._deliveries, self._hint, self._n_open = Deliveries(secret), hint, 0
        self._loop = asyncio.new_event_loop()
        try:
            self._server = self._loop.run_until_complete(asyncio.start_server(self._handle, host, port, limit=MAX_HEAD_BYTES))
        except OSError:
            self._loop.close()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and drop what is open."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection. Beyond the limit, a connection is closed at once."""
        self._n_open += 1
        try:
            if self._n_open <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    status = await self._answer(reader)
                    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    writer.write(head.encode())
                    writer.write_eof()
                    while await reader.read(MAX_BODY_BYTES):  # closing before the client has sent all would reset the connection
                        pass
        except (OSError, asyncio.IncompleteReadError):  # a timeout, too, is an OSError
            pass
        finally:
            self._n_open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> HTTPStatus:
        try:
            headers, body = await _read_request(reader)
            if self._deliveries.accept(headers, body):
                self._hint.set()
        except _Refused as refused:
            return refused.status
        return HTTPStatus.NO_CONTENT


async def _read_request(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a request to the route. Raise _Refused if it is another one, or too large."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    request = REQUEST_LINE.fullmatch(first)
    if request is None or not all(":" in line for line in lines):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    if request[2] != ROUTE:
        raise _Refused(HTTPStatus.NOT_FOUND)
    if request[1] != "POST":
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    fields = [line.split(":", 1) for line in lines]
    headers = {name.lower(): value.strip() for name, value in fields}
    if len(headers) < len(fields):  # twice the same: which one is meant?
        raise _Refused(HTTPStatus.BAD_REQUEST)
    if "transfer-encoding" in headers or not NUMBER.fullmatch(headers.get("content-length", "")):
        raise _Refused(HTTPStatus.LENGTH_REQUIRED)
    length = int(headers["content-length"])
    if length > MAX_BODY_BYTES:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return headers, await reader.readexactly(length)
