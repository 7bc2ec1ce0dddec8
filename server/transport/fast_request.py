"""The parser of fast requests: complete requests of a fast route, in the plain form in which clients send them.

Requests of any other form are left to gunicorn's parser, so there is only one interpretation of HTTP.
"""

import io
import re
from functools import lru_cache

from server.api.prediction import FAST_ROUTES
from server.core.errors import INFERENCE_ROUTES
from server.inference_protocol.metadata import BASE_VALUE, CONTRIBUTIONS
from server.transport.fast_path import Environ
from server.validation.request_body import ARROW

MAX_REQUEST_BYTES = 16_384
MAX_HEAD_BYTES = 4000
HEADER_END = b"\r\n\r\n"

NAME = r"[\w.@-]+"  # without escapes
NAMED_PATHS = rf"/models/{NAME}(?:{'|'.join(FAST_ROUTES)})", rf"{INFERENCE_ROUTES}/models/{NAME}(?:/versions/[\w.-]+)?/infer"
FAST_PATHS = "|".join((*FAST_ROUTES, *NAMED_PATHS))
# An inference request with one of these may have a name such as "contributions", whose values take too long for the event loop.
SLOW_MARKS = (CONTRIBUTIONS.encode(), BASE_VALUE.encode(), b"\\")

# Excludes every request that gunicorn would reject for its headers, and every header that it might interpret differently.
REQUEST_HEAD = re.compile(
    rf"POST ({FAST_PATHS})(?:\?([\w.=&%-]*))? HTTP/1\.1((?:\r\n[A-Za-z][A-Za-z0-9-]*:[ -~]*){{1,100}})",
    re.ASCII,
)
# A small compressed body may contain megabytes, which take too long for the event loop.
BODY_HEADERS = {"HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE"}
SCHEME_HEADERS = {"HTTP_X_FORWARDED_PROTOCOL", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_SSL"}  # may contradict each other


class IncompleteRequest(Exception):
    """Part of the request body has not arrived yet: the whole request needs this many bytes."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


def parse_request(data: bytes) -> Environ | None:
    """Return the WSGI environ of a request, or None if it has another form. Raises IncompleteRequest."""
    end = data.find(HEADER_END, 0, MAX_HEAD_BYTES)
    head = REQUEST_HEAD.fullmatch(data[:end].decode("latin-1")) if end > 0 else None
    fields = _parse_headers(head[3]) if head else None
    if head is None or fields is None or fields.get("HTTP_CONNECTION", "close") not in ("close", "keep-alive"):
        return None
    length = fields.get("CONTENT_LENGTH", "")
    total = end + len(HEADER_END) + int(length) if length.isdecimal() and len(length) < 10 else MAX_REQUEST_BYTES + 1
    if len(data) > total or total > MAX_REQUEST_BYTES:
        return None
    if fields.get("CONTENT_TYPE", "").lower().startswith(ARROW):  # imports pyarrow, which takes too long for the event loop
        return None
    if "HTTP_HOST" not in fields or BODY_HEADERS & fields.keys() or len(SCHEME_HEADERS & fields.keys()) > 1:
        return None
    if len(data) < total:
        raise IncompleteRequest(total)
    body = data[end + len(HEADER_END) :]
    if head[1].startswith(INFERENCE_ROUTES) and _may_be_slow(body, fields.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH", "")):
        return None
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": head[1],
        "QUERY_STRING": head[2] or "",
        "wsgi.input": io.BytesIO(body),
        **fields,
    }


def _may_be_slow(body: bytes, json_length: str) -> bool:
    """Return whether the JSON part of an inference request has a mark. Binary tensors behind it may hold any byte."""
    text = body[: int(json_length)] if json_length.isdecimal() else body
    return any(mark in text for mark in SLOW_MARKS)


def _parse_headers(lines: str) -> Environ | None:
    """Return the headers by their WSGI names, or None if one occurs twice."""
    fields: Environ = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields[_environ_name(name)] = value.strip(" ")
    return fields if len(fields) == lines.count("\r\n") else None


@lru_cache(256)
def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
