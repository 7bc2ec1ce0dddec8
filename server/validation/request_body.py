"""Request bodies: rows as strict JSON (RFC 8259) or CSV, in each of the supported layouts."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import orjson

from housing.schema.column import Column
from server.core.errors import RequestError

JSON, CSV = "application/json", "text/csv"
INVOCATION_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
NON_NUMERIC_CHARS = str.maketrans("", "", "_nN")  # float() accepts 1_000, nan and inf


@dataclass(frozen=True)
class Rows:
    """Rows as sent: lists in the order of `columns`, or objects if `columns` is None.

    `extra_keys` counts the keys of the body that are not keys of a row.
    """

    columns: list[Any] | None
    rows: Sequence[Any]
    extra_keys: int

    def key_count(self, width: int) -> int:
        """Return the number of keys in the body if each row object has `width` keys."""
        return self.extra_keys + (len(self.rows) * width if self.columns is None else 0)


def parse_predict(body: Any) -> Rows:
    """Return the rows of a `/predict` body. Raises RequestError for an unknown layout."""
    if not isinstance(body, dict):
        _raise_unprocessable(
            'Request body must be a JSON object: a single row, {"instances": [...]} or {"columns": [...], "rows": [...]}.'
        )
    if "instances" in body:
        if not _is_list(body["instances"]) or len(body) > 1:
            _raise_unprocessable('"instances" must be a list of at least one row and the only key of the body.')
        return Rows(None, body["instances"], 1)
    if body.keys() >= {"columns", "rows"}:
        if not (_is_list(body["columns"]) and _is_list(body["rows"])) or len(body) > 2:
            _raise_unprocessable('"columns" and "rows" must be non-empty lists and the only keys of the body.')
        return Rows(body["columns"], body["rows"], 2)
    return Rows(None, [body], 0)


def parse_invocations(body: Any, columns: Sequence[Column]) -> Rows:
    """Return the rows of a JSON body of MLflow's scoring protocol. Raises RequestError for an unknown layout."""
    formats = [name for name in INVOCATION_FORMATS if name in body] if isinstance(body, dict) else []
    if len(formats) != 1 or body.keys() - {formats[0], "params"}:
        _raise_unprocessable(f"Request body must be a JSON object with exactly one of {', '.join(INVOCATION_FORMATS)}.")
    if body.get("params"):
        _raise_unprocessable('This model takes no "params".')
    payload = body[formats[0]]
    if formats[0] == "dataframe_split":
        return _split_rows(payload, len(body))
    if formats[0] == "inputs" and isinstance(payload, dict):
        return _columnar_rows(payload, len(body))
    if not _is_list(payload):
        _raise_unprocessable(f'"{formats[0]}" must be a list of at least one row.')
    names = [column.name for column in columns] if isinstance(payload[0], list) else None
    return Rows(names, payload, len(body))


def _split_rows(payload: Any, extra_keys: int) -> Rows:
    if not isinstance(payload, dict) or not {"columns", "data"} <= payload.keys() <= {"columns", "data", "index"}:
        _raise_unprocessable('"dataframe_split" must be an object with the keys "columns" and "data".')
    if not (_is_list(payload["columns"]) and _is_list(payload["data"])):
        _raise_unprocessable('"columns" and "data" of "dataframe_split" must be non-empty lists.')
    return Rows(payload["columns"], payload["data"], extra_keys + len(payload))


def _columnar_rows(payload: Mapping[str, Any], extra_keys: int) -> Rows:
    if not payload or not all(map(_is_list, payload.values())) or len({len(values) for values in payload.values()}) > 1:
        _raise_unprocessable('"inputs" must have one non-empty list per column, all of the same length.')
    return Rows(list(payload), list(zip(*payload.values(), strict=True)), extra_keys + len(payload))


def parse_csv(body: bytes, columns: Sequence[Column]) -> Rows:
    """Return the rows of a CSV table with a header line. An empty cell is a missing value. Raises RequestError."""
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode(), newline=""), strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"Request body is not valid CSV: {error}") from error
    if len(lines) < 2:
        _raise_unprocessable("The CSV body must have a header line with the column names and at least one row.")
    by_name = {column.name: column for column in columns}
    known = [by_name.get(name) for name in lines[0]]
    rows = [
        [_parse_cell(text, column) for text, column in zip(line, known, strict=False)] + line[len(known) :] for line in lines[1:]
    ]
    return Rows(lines[0], rows, 0)


def _parse_cell(text: str, column: Column | None) -> Any:
    """Return the value of a cell. An invalid text stays as it is, so that the validation reports it."""
    if text == "":
        return None
    # float() accepts the digits of every script
    if column is not None and column.is_number and text.isascii() and text == text.translate(NON_NUMERIC_CHARS):
        try:
            return float(text)
        except ValueError:
            return text
    if column is not None and column.type == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def loads_fast(body: bytes) -> Any:
    """Parse JSON fast, ignoring duplicate keys. Raises ValueError for invalid JSON and for some valid numbers."""
    return orjson.loads(body)


def loads_strict(body: bytes) -> Any:
    """Parse strict JSON: no NaN, no Infinity, no duplicate keys. Raises RequestError."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)
    except RecursionError:
        raise RequestError(HTTPStatus.BAD_REQUEST, "Request body is nested too deeply.") from None
    except ValueError as error:  # invalid UTF-8, invalid JSON, or a number with too many digits
        raise RequestError(HTTPStatus.BAD_REQUEST, f"Request body is not valid JSON: {error}") from error


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        seen: set[str] = set()
        duplicate = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {duplicate!r}")
    return parsed


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def require_media_type(content_type: str, *allowed: str) -> str:
    """Return the media type of a Content-Type header. Raises RequestError if it is not allowed."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in allowed:
        detail = f"Content-Type must be {' or '.join(allowed)} (got {media_type or 'none'})."
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    return media_type


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _raise_unprocessable(detail: str) -> NoReturn:
    raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
