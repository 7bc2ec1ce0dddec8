"""The reader of the inference routes: tensors become rows; predictions, bounds and Shapley values become tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from housing.explanation.shapley import Explanation
from housing.schema.column import Matrix, Vector
from server.api.prediction import (
    PARSE_STAGE,
    PREDICT_STAGE,
    PREDICTIONS,
    VALIDATE_STAGE,
    Answer,
    ParsedRequest,
    PredictionRequest,
    PredictionResult,
    StageTimer,
)
from server.api.spread import INTERVAL, LOWER, QUANTILES, UPPER, Spread, read_spread
from server.core.errors import RequestError, raise_unprocessable
from server.inference_protocol.metadata import BASE_VALUE, CONTRIBUTIONS, output_names, require_version
from server.inference_protocol.tensors import (
    BinaryData,
    Tensor,
    read_parameters,
    read_tensors,
    split_columns,
)
from server.models.current_model import Model
from server.validation import request_body
from server.validation.request_body import JSON
from server.validation.rows import require_row_limit

INFER_ROUTE = "/v2/models/<name>/infer"  # as a label; with a version, too
BINARY = "application/octet-stream"
LENGTH_HEADER = "Inference-Header-Content-Length"
REQUEST_KEYS = {"id", "parameters", "inputs", "outputs", "model_name"}  # KServe's client sends the last one
BINARY_OUTPUT = "binary_data_output"
REQUEST_PARAMETERS = {INTERVAL, QUANTILES, BINARY_OUTPUT, "content_type"}  # MLServer's clients send the last one
MAX_EXPLAINED_ROWS = 10  # an explanation predicts thousands of rows

Explain = Callable[[Model, Vector], Explanation]


@dataclass(frozen=True)
class InferenceRequest:
    """A request: tensors, the spread of predictions, and whether each requested output is binary."""

    name: str
    id: str | None
    spread: Spread
    tensors: list[Tensor]
    outputs: dict[str, bool]

    @property
    def needs_explanations(self) -> bool:
        """Whether Shapley values are requested."""
        return not self.outputs.keys().isdisjoint((CONTRIBUTIONS, BASE_VALUE))


class TensorReader:
    """Reads requests of at most `max_rows` rows."""

    def __init__(self, max_rows: int, explain: Explain) -> None:
        self._max_rows, self._explain = max_rows, explain

    def __call__(self, request: PredictionRequest, model: Model, timer: StageTimer) -> ParsedRequest:
        """Return the parsed request. Raises RequestError."""
        require_version(model, request.name, request.version)
        if request.query:
            raise_unprocessable("This route takes no query. Send interval or quantiles in the parameters of the request.")
        parsed = parse_request(request, model)
        columns = split_columns(parsed.tensors, model.validator.column_names)
        require_row_limit(parsed.tensors[0].n_rows, self._max_rows)
        timer.lap(PARSE_STAGE)
        rows, matrix = model.validator.encode_columns(columns, all(tensor.is_number for tensor in parsed.tensors))
        timer.lap(VALIDATE_STAGE)
        return rows, matrix, parsed.spread, partial(self._write, parsed, model, matrix, timer)

    def _write(
        self,
        request: InferenceRequest,
        model: Model,
        matrix: Matrix,
        timer: StageTimer,
        request_id: str,
        result: PredictionResult,
    ) -> Answer:
        values = {**result.values, **self._explanations(request, model, matrix)}
        timer.lap(PREDICT_STAGE)
        outputs, chunks = _write_tensors(request.outputs, values)
        body = {
            "model_name": request.name,
            "model_version": model.info["version"],
            "id": request_id if request.id is None else request.id,
            "parameters": {"request_id": request_id, **result.parameters},
            "outputs": outputs,
        }
        text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        if not chunks:
            return JSON, text, ()
        return BINARY, b"".join((text, *chunks)), ((LENGTH_HEADER, str(len(text))),)

    def _explanations(self, request: InferenceRequest, model: Model, matrix: Matrix) -> dict[str, NDArray[np.float64]]:
        if not request.needs_explanations:
            return {}
        if len(matrix) > MAX_EXPLAINED_ROWS:
            raise_unprocessable(
                f"{CONTRIBUTIONS} and {BASE_VALUE} are for at most {MAX_EXPLAINED_ROWS} rows (got {len(matrix)})."
            )
        explanations = [self._explain(model, row) for row in matrix]
        contributions = np.array([explanation.values for explanation in explanations])
        return {CONTRIBUTIONS: contributions, BASE_VALUE: np.array([explanation.base_value for explanation in explanations])}


def parse_request(request: PredictionRequest, model: Model) -> InferenceRequest:
    """Return the contents of a request body. Raises RequestError."""
    text, binary = _split_body(request)
    body = _loads(text)
    if not isinstance(body, dict) or not {"inputs"} <= body.keys() <= REQUEST_KEYS:
        raise_unprocessable('Request body must be a JSON object with "inputs" and, if needed, "id", "parameters" and "outputs".')
    request_id = body.get("id")
    if request_id is not None and not (isinstance(request_id, str) and request_id.isprintable()):
        raise_unprocessable(f'"id" must be a printable text (got {request_id!r:.80}).')
    if body.get("model_name", request.name) != request.name:
        raise_unprocessable(f'"model_name" differs from the path (got {body["model_name"]!r:.80}).')
    parameters = read_parameters(body.get("parameters"), REQUEST_PARAMETERS, "the request")
    spread = read_spread(parameters)
    outputs = _read_outputs(body.get("outputs"), _read_flag(parameters, BINARY_OUTPUT), spread, model)
    return InferenceRequest(request.name, request_id, spread, read_tensors(body["inputs"], BinaryData(binary)), outputs)


def _split_body(request: PredictionRequest) -> tuple[bytes, bytes]:
    """Return the JSON part and the raw bytes of a body. Tritonclient sends no Content-Type."""
    if request.content_type:
        request_body.require_media_type(request.content_type, JSON, BINARY)
    if not request.header_length:
        return request.body, b""
    length, size = request.header_length, len(request.body)
    if not (length.isdecimal() and len(length) < 12 and int(length) <= size):
        detail = f"{LENGTH_HEADER} must be a number from 0 to {size}, the bytes of the body (got {length!r:.40})."
        raise RequestError(HTTPStatus.BAD_REQUEST, detail)
    return request.body[: int(length)], request.body[int(length) :]


def _loads(text: bytes) -> Any:
    """Parse strict JSON. The fast parser ignores duplicate keys, which the number of colons shows."""
    try:
        body = orjson.loads(text)
        if text.count(b":") == _count_keys(body):
            return body
    except ValueError:
        pass  # the strict parser names the error
    return request_body.loads_strict(text)


def _count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) and value and isinstance(value[0], dict) else 0


def _read_outputs(outputs: Any, binary: bool, spread: Spread, model: Model) -> dict[str, bool]:
    """Return whether each requested output is binary; by default predictions, and the bounds or quantiles of the spread."""
    if not outputs and isinstance(outputs, list | None):
        return dict.fromkeys((PREDICTIONS, *spread.outputs), binary)
    known = output_names(model)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) and output.get("name") in known for output in outputs):
        raise_unprocessable(f'"outputs" must be a list of objects whose "name" is {", ".join(known)}.')
    if {output["name"] for output in outputs} & {LOWER, UPPER, QUANTILES} - {*spread.outputs}:
        needs = f"{LOWER} and {UPPER} need the parameter {INTERVAL} of the request, as in 0.9, and {QUANTILES} needs {QUANTILES}"
        raise_unprocessable(f"The outputs {needs}, as in [0.1, 0.9].")
    return {output["name"]: _is_binary(output, binary) for output in outputs}


def _is_binary(output: Mapping[str, Any], default: bool) -> bool:
    if not output.keys() <= {"name", "parameters"}:
        raise_unprocessable('An output must have "name" and, if needed, "parameters", and nothing else.')
    return _read_flag(
        {"binary_data": default, **read_parameters(output.get("parameters"), {"binary_data"}, "an output")}, "binary_data"
    )


def _read_flag(parameters: Mapping[str, Any], name: str) -> bool:
    flag = parameters.get(name, False)
    if not isinstance(flag, bool):
        raise_unprocessable(f"The parameter {name} must be true or false (got {flag!r:.80}).")
    return flag


def _write_tensors(
    names: Mapping[str, bool], values: Mapping[str, NDArray[np.float64]]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the description of each output, with its data unless it is binary, and the bytes of the binary ones."""
    outputs, chunks = [], []
    for name, is_binary in names.items():
        array = np.ascontiguousarray(np.transpose(values[name]) if name == QUANTILES else values[name], dtype="<f8")
        output = {"name": name, "datatype": "FP64", "shape": array.shape}
        if is_binary:
            chunks.append(array.tobytes())
            outputs.append({**output, "parameters": {"binary_data_size": array.nbytes}})
        else:
            outputs.append({**output, "data": array.reshape(-1)})
    return outputs, chunks
