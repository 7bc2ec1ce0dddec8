"""Bodies in chunks: the decoder agrees with gunicorn's, wherever the data is cut into pieces."""

import random

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from server.core.errors import RequestError
from server.transport.request_reader import CompleteRequest, RequestReader

HEAD = b"POST /explain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET / HTTP/1.1\r\n"
BODY = bytes(range(256)) * 3
VALID = {
    "one chunk": b"300\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bytes": b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "extensions and zeros": b"00100;a=b\r\n" + BODY[:256] + b"\r\n200 ;c\r\n" + BODY[256:] + b"\r\n000;d\r\n\r\n",
    "trailers": b"300\r\n" + BODY + b"\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
}
MALFORMED = {
    "no size": b"\r\n",
    "a sign": b"+1\r\na\r\n0\r\n\r\n",
    "a prefix": b"0x1\r\na\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a space before the size": b" 1\r\na\r\n0\r\n\r\n",
    "a space behind the size": b"1 \r\na\r\n0\r\n\r\n",
    "a bare line feed": b"1\na\n0\n\n\r\n",
    "a carriage return in an extension": b"1;a\rb\r\na\r\n0\r\n\r\n",
    "too much data": b"1\r\nab\r\n0\r\n\r\n",
    "other bytes behind the data": b"1\r\naXX0\r\n\r\n",
    "a forbidden trailer": b"0\r\nContent-Length: 5\r\n\r\n",
    "a folded trailer": b"0\r\nX-A: 1\r\n b\r\n\r\n",
}


def decode(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Feed a request in pieces. Return its body, and what follows it."""
    reader, request = RequestReader(Config(), ("127.0.0.1", 1), 10_000), None
    for start in range(0, len(data), size):
        reader.buffer += data[start : start + size]
        request = request or reader.read()
    assert isinstance(request, CompleteRequest)
    return request.body, bytes(reader.buffer)


def decode_by_gunicorn(data: bytes) -> tuple[bytes, bytes]:
    """Return what gunicorn reads."""
    parser = RequestParser(Config(), [data], ("127.0.0.1", 1))
    return next(parser).body.read(), parser.unreader.take_buffered()


@pytest.mark.parametrize("chunks", VALID.values(), ids=VALID.keys())
@pytest.mark.parametrize("size", [1, 2, 7, 300, 10_000])
def test_a_body_in_chunks_is_decoded_as_gunicorn_does(chunks: bytes, size: int) -> None:
    data = HEAD + chunks + NEXT
    assert decode(data, size) == decode_by_gunicorn(data) == (BODY, NEXT)


@pytest.mark.parametrize("chunks", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_malformed_chunk_is_refused_as_gunicorn_does(chunks: bytes, size: int) -> None:
    with pytest.raises(RequestError, match="malformed"):
        decode(HEAD + chunks + NEXT, size)
    with pytest.raises(Exception):  # noqa: B017, PT011  # gunicorn has one for each reason
        decode_by_gunicorn(HEAD + chunks + NEXT)


def test_random_chunks_are_decoded_as_gunicorn_does() -> None:
    generator, n_valid = random.Random(1), 0
    parts = [b"1\r\na\r\n", b"2\r\n\r\n\r\n", b"1;x\r\n0\r\n", b"0\r\n\r\n", b"0\r\n", b"\r\n", b"X: y\r\n", b" ", b"\n"]
    for _ in range(300):
        data = HEAD + b"".join(generator.choices(parts, [6, 6, 6, 6, 2, 2, 2, 1, 1], k=6))
        size = generator.choice([1, 3, 100])
        try:
            expected = decode_by_gunicorn(data)
        except Exception:  # pylint: disable=broad-exception-caught
            with pytest.raises((RequestError, AssertionError)):
                decode(data, size)
        else:
            n_valid += 1
            assert decode(data, size) == expected
    assert n_valid > 50
