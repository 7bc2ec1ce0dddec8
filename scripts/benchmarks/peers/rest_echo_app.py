"""The REST side of `scripts/bench grpc`: the project's worker and parsers, and answers of the first column without a model."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson

from server.inference_protocol.tensors import BinaryData, read_tensors, split_columns

COLUMNS = [f"column {number}" for number in range(8)]
LENGTH = "Inference-Header-Content-Length"


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answer with the first column: as raw bytes if the request has them, and otherwise as JSON."""
    body = environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "POST" else b""
    if not body:
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]
    length = int(environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH", 0))
    text, raw = (body[:length], body[length:]) if length else (body, b"")
    first = np.ascontiguousarray(
        split_columns(read_tensors(orjson.loads(text)["inputs"], BinaryData(raw)), COLUMNS)[COLUMNS[0]], "<f8"
    )
    output = {"name": "predictions", "datatype": "FP64", "shape": first.shape}
    data = {"parameters": {"binary_data_size": first.nbytes}} if length else {"data": first}
    head = orjson.dumps({"model_name": "echo", "outputs": [{**output, **data}]}, option=orjson.OPT_SERIALIZE_NUMPY)
    answer = head + first.tobytes() if length else head
    start_response("200 OK", [(LENGTH, str(len(head))), ("Content-Length", str(len(answer)))])
    return [answer]
