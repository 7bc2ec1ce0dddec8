"""Request reader: gathers the bytes of a connection into complete requests.

Gunicorn's parser interprets each header, once. What follows the body of a request is the next request.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders, ParseException
from gunicorn.http.parser import RequestParser

from server.core.errors import RequestError
from server.transport import fast_request
from server.transport.fast_path import BodyLimit, Environ
from server.transport.fast_request import HEADER_END

MAX_HEAD_BYTES = 65_536  # of a request line and headers, or of the trailers of a chunked body
MAX_CHUNK_LINE_BYTES = 256  # the size of a chunk, and an extension that nobody reads
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")
CRLF = b"\r\n"


@dataclass(frozen=True)
class CompleteRequest:
    """A request with its header as gunicorn parsed it, and its body without chunks."""

    head: Any
    body: bytes


class RequestReader:
    """Receives bytes of a connection, and returns each request when it is complete."""

    def __init__(self, cfg: Any, client: Any, max_body: int) -> None:
        """Take gunicorn's settings, the address of the client, and the limit of a body in bytes."""
        self._cfg, self._client, self._max_body = cfg, client, max_body
        self._has_fast_path = not cfg.accesslog  # which needs gunicorn's Request
        self.buffer = bytearray()
        self.head: Any = None  # gunicorn's Request, while its body is incomplete
        self.expects_continue = False  # the client waits for 100 Continue before it sends the body
        self._scanned = 0  # bytes of the buffer that do not contain the end of the header
        self._needed = 0  # bytes of the buffer that a request needs at least
        self._chunks: ChunkDecoder | None = None

    @property
    def n_bytes(self) -> int:
        """The bytes that are held in memory."""
        return len(self.buffer) + (len(self._chunks.body) if self._chunks else 0)

    def read(self) -> Environ | CompleteRequest | None:
        """Return a complete request (that of a fast route as a WSGI environ), or None if more bytes must be received.

        Raises
        ------
        RequestError
            If the body of the request, whose header is `head`, is too long or malformed.
        ParseException
            If the header is malformed or too long.
        """
        if len(self.buffer) < self._needed:
            return None
        if self.head is None:
            environ = self._read_head()
            if environ is not None or self.head is None:
                return environ
        return self._read_body()

    def interrupt(self) -> Any:
        """Drop an incomplete request. Return its header as gunicorn's Request, or None if that is incomplete, too."""
        if self.head is None and self._needed:  # a request of a fast route
            with suppress(RequestError):
                self._parse_head(self.buffer.find(HEADER_END) + len(HEADER_END))
        head, self.head, self._chunks = self.head, None, None
        self._restart(len(self.buffer))
        return head

    def _read_head(self) -> Environ | None:
        """Return the environ of a request of a fast route, or parse another header if it is complete."""
        end = self.buffer.find(HEADER_END, self._scanned)
        if end < 0:
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise LimitRequestHeaders(f"more than {MAX_HEAD_BYTES} bytes")
            self._scanned = max(0, len(self.buffer) - len(HEADER_END) + 1)
            return None
        try:
            environ = fast_request.parse_request(bytes(self.buffer)) if self._has_fast_path else None
        except fast_request.IncompleteRequest as incomplete:
            self._needed = incomplete.needed
            return None
        if environ is not None:
            self._restart(len(self.buffer))
            return environ
        self._parse_head(end + len(HEADER_END))
        return None

    def _parse_head(self, size: int) -> None:
        """Parse a header of `size` bytes with gunicorn, and prepare for its body."""
        head = self.head = next(RequestParser(self._cfg, [bytes(self.buffer[:size])], self._client))
        self._restart(size)
        # pylint: disable-next=protected-access  # gunicorn would send 100 Continue when the body is already here
        self.expects_continue, head._expected_100_continue = head._expected_100_continue, False
        if isinstance(head.body.reader, ChunkedReader):
            self._chunks = ChunkDecoder(head)
        else:
            self._needed = head.body.reader.length
        if self._needed > self._max_body:
            raise BodyLimit(self._max_body).error()

    def _restart(self, size: int) -> None:
        """Remove what was read from the buffer."""
        del self.buffer[:size]
        self._scanned = self._needed = 0

    def _read_body(self) -> CompleteRequest | None:
        if self._chunks is None:
            if len(self.buffer) < self._needed:
                return None
            body = bytes(self.buffer[: self._needed])
        else:
            is_complete = self._chunks.decode(self.buffer)
            if len(self._chunks.body) + self._chunks.remaining > self._max_body:
                raise BodyLimit(self._max_body).error()
            if not is_complete:
                return None
            body = bytes(self._chunks.body)
        head, self.head, self._chunks, self.expects_continue = self.head, None, None, False
        self._restart(self._needed)
        return CompleteRequest(head, body)


class ChunkDecoder:
    """Decodes a body in chunks (RFC 9112, section 7.1) as it arrives."""

    def __init__(self, head: Any) -> None:
        """Take gunicorn's Request, which checks the trailers."""
        self.body = bytearray()
        self.remaining = 0  # bytes of the current chunk that have not arrived
        self._head = head
        self._separator = b""  # ends the data of the previous chunk
        self._is_last = False

    def decode(self, buffer: bytearray) -> bool:
        """Move data from the start of the buffer to the body. Return whether the body is complete.

        Raises RequestError if a chunk is malformed.
        """
        while not self._is_last:
            data = buffer[: self.remaining]
            self.body += data
            self.remaining -= len(data)
            del buffer[: len(data)]
            if self.remaining or not self._read_size(buffer):
                return False
        return self._skip_trailers(buffer)

    def _read_size(self, buffer: bytearray) -> bool:
        """Read the line with the size of the next chunk. Return False if it has not arrived."""
        start = len(self._separator)
        end = buffer.find(CRLF, start)
        line = CHUNK_LINE.fullmatch(buffer, start, end) if end > 0 else None
        is_possible = line is not None or (end < 0 and len(buffer) <= MAX_CHUNK_LINE_BYTES)
        if buffer[:start] != self._separator[: len(buffer)] or not is_possible:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"A chunk of the request body is malformed: {bytes(buffer[:40])!r}.")
        if line is None:
            return False
        self.remaining = int(line[1], 16)
        self._separator, self._is_last = CRLF, self.remaining == 0
        del buffer[: end + len(CRLF)]
        return True

    def _skip_trailers(self, buffer: bytearray) -> bool:
        """Check and discard the trailers. Return False if they have not arrived."""
        if buffer[:2] == CRLF:
            del buffer[:2]
            return True
        end = buffer.find(HEADER_END, 0, MAX_HEAD_BYTES)
        if end < 0 and len(buffer) < MAX_HEAD_BYTES:
            return False
        try:
            self._head.parse_headers(bytes(buffer[: max(end, 0)]), from_trailer=True)
        except ParseException as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"The trailers of the request body are malformed: {error}.") from error
        del buffer[: end + len(HEADER_END)]
        return True
