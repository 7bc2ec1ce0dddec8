"""A request of a hot route that has arrived whole, read from its bytes in the one form in which clients send it.

Whatever has another form, or is not allowed, is left to gunicorn's own parser: there is no second opinion on what HTTP is.
"""

import io
import re
from functools import lru_cache

from server.api.prediction import FAST_ROUTES
from server.transport.wsgi import Environ

MAX_REQUEST_BYTES = 16_384  # bytes of a request that is read here


HEADER_END = b"\r\n\r\n"


# No list of fields that gunicorn would refuse for its length or number fits in here, and none that it might read otherwise.
REQUEST_HEAD = re.compile(
    rf"POST ({'|'.join(FAST_ROUTES)})(?:\?([\w.=&%-]*))? HTTP/1\.1((?:\r\n[A-Za-z][A-Za-z0-9-]*:[ -~]*){{1,100}})", re.ASCII
)


MAX_HEAD_BYTES = 4000


FRAMING_HEADERS = {"HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE"}


SCHEME_HEADERS = {
    "HTTP_X_FORWARDED_PROTOCOL",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SSL",
}  # which may contradict each other


class IncompleteRequest(Exception):
    """More of the request is to come."""


def parse_request(data: bytes) -> Environ | None:
    """Give what WSGI says of a request, or None where it has another form. Raises NotYet where a part of its body is missing."""
    end = data.find(HEADER_END, 0, MAX_HEAD_BYTES)
    head = REQUEST_HEAD.fullmatch(data[:end].decode("latin-1")) if end > 0 else None
    fields = _parse_headers(head[3]) if head else None
    if head is None or fields is None or fields.get("HTTP_CONNECTION", "keep-alive") != "keep-alive":
        return None
    length = fields.get("CONTENT_LENGTH", "")
    whole = end + len(HEADER_END) + int(length) if length.isdecimal() and len(length) < 10 else MAX_REQUEST_BYTES + 1
    if (
        len(data) > whole
        or whole > MAX_REQUEST_BYTES
        or FRAMING_HEADERS & fields.keys()
        or len(SCHEME_HEADERS & fields.keys()) > 1
    ):
        return None
    if len(data) < whole:
        raise IncompleteRequest
    body = io.BytesIO(data[end + len(HEADER_END) :])
    return {"REQUEST_METHOD": "POST", "PATH_INFO": head[1], "QUERY_STRING": head[2] or "", "wsgi.input": body, **fields}


def _parse_headers(lines: str) -> Environ | None:
    """Give the header's fields by WSGI's names for them, or None where one is there twice."""
    fields: Environ = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields[_environ_name(name)] = value.strip(" ")
    return fields if len(fields) == lines.count("\r\n") else None


@lru_cache(256)
def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
