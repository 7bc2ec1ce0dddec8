"""The parser of fast requests: inference requests that it leaves to a thread."""

import pytest

from server.transport.fast_request import parse_request

PREDICT = b'{"inputs": []}'
EXPLAIN = b'{"inputs": [], "outputs": [{"name": "contributions"}]}'
ESCAPED = b'{"inputs": [], "outputs": [{"name": "contributio\\u006es"}]}'


def inference_request(text: bytes, tensors: bytes = b"") -> bytes:
    """Return a request of the Open Inference Protocol, with binary tensors behind its JSON part if there are any."""
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text) + len(tensors)}\r\n"
    head += f"Inference-Header-Content-Length: {len(text)}\r\n" if tensors else ""
    return head.encode() + b"\r\n" + text + tensors


@pytest.mark.parametrize("tensors", [b"", b"\\contributions\x00"])
def test_only_the_json_part_decides_whether_an_inference_request_is_fast(tensors: bytes) -> None:
    environ = parse_request(inference_request(PREDICT, tensors))
    assert environ is not None and environ["wsgi.input"].read() == PREDICT + tensors
    for slow in (EXPLAIN, ESCAPED):
        assert parse_request(inference_request(slow, tensors)) is None


def test_an_arrow_stream_is_left_to_a_thread() -> None:
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    assert parse_request(request) is not None
    assert parse_request(request.replace(b"application/json", b"application/vnd.apache.arrow.stream")) is None
