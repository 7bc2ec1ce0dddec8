"""Tensors of the protocol: their data as JSON or as raw little-endian bytes, and the columns of a table that they hold."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from server.core.errors import RequestError, raise_unprocessable
from server.validation.rows import Values

INTEGERS = {f"{prefix}INT{bits}": f"<{kind}{bits // 8}" for prefix, kind in (("", "i"), ("U", "u")) for bits in (8, 16, 32, 64)}
FLOATS = {f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)}
BOOL, BYTES = "BOOL", "BYTES"
DTYPES = {name: np.dtype(code) for name, code in {**INTEGERS, **FLOATS, BOOL: "?"}.items()}
JSON_TYPES: dict[str, set[type]] = {  # null is a missing value
    **{name: {int, type(None)} for name in INTEGERS},
    **{name: {int, float, type(None)} for name in FLOATS},
    BOOL: {bool, type(None)},
    BYTES: {str, type(None)},
}
TENSOR_KEYS = {"name", "shape", "datatype", "parameters", "data"}
BINARY_SIZE = "binary_data_size"
INPUT_PARAMETERS = {BINARY_SIZE, "content_type"}
CONTENT_TYPES = (None, "np", "pd", "str", "datetime")  # of MLServer's codecs, those that do not change the data
LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor


@dataclass(frozen=True)
class Tensor:
    """An input: its data are flat, in row-major order. `width` is the number of columns, 1 for the shape [rows]."""

    name: str
    datatype: str
    n_rows: int
    width: int
    data: Values

    @property
    def is_number(self) -> bool:
        """Whether the datatype is an integer or a float."""
        return self.datatype not in (BOOL, BYTES)


class BinaryData:
    """The raw bytes after the JSON part of a body, which the tensors take in their order."""

    def __init__(self, data: bytes) -> None:
        self._data, self._start = memoryview(data), 0

    def take(self, size: object, name: str) -> memoryview:
        """Return the next `size` bytes. Raises RequestError if there are fewer."""
        if not isinstance(size, int) or not 0 <= size <= len(self._data) - self._start:
            left = len(self._data) - self._start
            _raise_bad_request(
                f"{BINARY_SIZE} of the input {name!r} must be a number from 0 to {left}, the bytes left (got {size!r})."
            )
        self._start += size
        return self._data[self._start - size : self._start]

    def require_end(self) -> None:
        """Raise RequestError if no tensor has taken the last bytes."""
        if self._start < len(self._data):
            _raise_bad_request(f"{len(self._data) - self._start} bytes of the body belong to no input (see {BINARY_SIZE}).")


def read_tensors(inputs: Any, binary: BinaryData) -> list[Tensor]:
    """Return the inputs of a request. Raises RequestError."""
    if not isinstance(inputs, list) or not inputs:
        raise_unprocessable('"inputs" must be a list of at least one tensor.')
    tensors = [_read_tensor(spec, binary) for spec in inputs]
    binary.require_end()
    return tensors


def _read_tensor(spec: Any, binary: BinaryData) -> Tensor:
    if not isinstance(spec, dict) or not {"name", "shape", "datatype"} <= spec.keys() <= TENSOR_KEYS:
        raise_unprocessable('Each input must be an object with "name", "shape", "datatype", "data" and, if needed, "parameters".')
    name, shape, datatype = spec["name"], spec["shape"], spec["datatype"]
    if not isinstance(name, str) or not isinstance(datatype, str) or datatype not in JSON_TYPES:
        raise_unprocessable(
            f"The input {name!r:.80} must have a text as name and a datatype of {', '.join(JSON_TYPES)} (got {datatype!r:.80})."
        )
    if not isinstance(shape, list) or len(shape) not in (1, 2) or set(map(type, shape)) != {int} or min(shape) < 1:
        raise_unprocessable(
            f"The shape of the input {name!r} must be [rows] or [rows, columns], both at least 1 (got {shape!r:.80})."
        )
    parameters = read_parameters(spec.get("parameters"), INPUT_PARAMETERS, f"the input {name!r}")
    if parameters.get("content_type") not in CONTENT_TYPES:
        raise_unprocessable(f"The input {name!r} has an unknown content_type (got {parameters['content_type']!r:.80}).")
    size = math.prod(shape)
    if ("data" in spec) == (BINARY_SIZE in parameters):
        raise_unprocessable(f'The input {name!r} must have either "data" or the parameter {BINARY_SIZE}.')
    data = (
        _flatten(spec["data"], shape, datatype, name)
        if "data" in spec
        else _read_binary(binary.take(parameters[BINARY_SIZE], name), datatype, name)
    )
    if len(data) != size:
        raise_unprocessable(f"The input {name!r} must have {size} values, as its shape {shape} says (got {len(data)}).")
    return Tensor(name, datatype, shape[0], size // shape[0], data)


def read_parameters(parameters: Any, known: set[str], owner: str) -> dict[str, Any]:
    """Return parameters, of which none may be unknown. Raises RequestError."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not parameters.keys() <= known:
        names = ", ".join(sorted(known))
        raise_unprocessable(f"The parameters of {owner} must be an object with keys from {names} (got {parameters!r:.80}).")
    return parameters


def _flatten(data: Any, shape: Sequence[int], datatype: str, name: str) -> list[Any]:
    """Return JSON data as a flat list. Raises RequestError if they are not of the datatype."""
    flat = data
    if isinstance(data, list) and data and isinstance(data[0], list):
        is_nested = all(isinstance(row, list) for row in data) and set(map(len, data)) == {shape[-1] if len(shape) == 2 else 0}
        flat = list(chain.from_iterable(data)) if is_nested else None
    if not isinstance(flat, list) or not set(map(type, flat)) <= JSON_TYPES[datatype]:
        raise_unprocessable(
            f'"data" of the input {name!r} must be a list of {datatype} values or null, flat or of shape {list(shape)}.'
        )
    return flat


def _read_binary(raw: memoryview, datatype: str, name: str) -> Values:
    if datatype == BYTES:
        return _read_texts(raw, name)
    dtype = DTYPES[datatype]
    if len(raw) % dtype.itemsize or (datatype == BOOL and max(raw, default=0) > 1):
        _raise_bad_request(f"The {len(raw)} bytes of the input {name!r} are no {datatype} values.")
    return np.frombuffer(raw, dtype)


def _read_texts(raw: memoryview, name: str) -> list[str]:
    """Return the elements of a BYTES tensor: the length of each in four bytes, then its bytes."""
    texts, start = [], 0
    try:
        while start < len(raw):
            end = start + LENGTH.size + LENGTH.unpack_from(raw, start)[0]
            if end > len(raw):
                raise ValueError("an element is cut off")
            texts.append(str(raw[start + LENGTH.size : end], "utf-8"))
            start = end
    except (struct.error, ValueError) as error:
        _raise_bad_request(f"The bytes of the input {name!r} are no BYTES elements in UTF-8: {error}.")
    return texts


def split_columns(tensors: Sequence[Tensor], columns: Sequence[str]) -> dict[str, Values]:
    """Return the values of each column: of one tensor per column, or of one matrix in the order of `columns`.

    Raises RequestError if shapes differ. Which columns there must be is not checked.
    """
    first, width = tensors[0], len(columns)
    if len(tensors) == 1 and first.name not in columns:
        if first.width != width:
            raise_unprocessable(
                f"The input {first.name!r} is no column of this model. As a matrix of all columns it must have the shape "
                f"[rows, {width}] (got {first.width} columns). GET the model's metadata for their names."
            )
        return {name: first.data[index::width] for index, name in enumerate(columns)}
    for tensor in tensors:
        if tensor.width != 1 or tensor.n_rows != first.n_rows:
            raise_unprocessable(
                f"The input {tensor.name!r} is a column among several and must have the shape [{first.n_rows}] or "
                f"[{first.n_rows}, 1] (got {tensor.n_rows} rows, {tensor.width} columns)."
            )
    values = {tensor.name: tensor.data for tensor in tensors}
    if len(values) < len(tensors):
        raise_unprocessable("Two inputs have the same name.")
    return values


def _raise_bad_request(detail: str) -> NoReturn:
    raise RequestError(HTTPStatus.BAD_REQUEST, detail)
