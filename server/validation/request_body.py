"""Bodies of requests as rows: JSON of RFC 8259 or CSV, in each of the forms in which callers give rows."""

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


NON_NUMERIC_CHARS = str.maketrans("", "", "_nN")  # float() takes 1_000, nan and inf


@dataclass(frozen=True)
class Rows:
    """Rows as they came: lists in the order of `columns`, or objects where there is none.

    `around` counts the keys of the body that are not keys of a row.
    """

    columns: list[Any] | None
    rows: Sequence[Any]
    extra_keys: int

    def key_count(self, width: int) -> int:
        """Give how many keys the body has, where each object has `width`."""
        return self.extra_keys + (len(self.rows) * width if self.columns is None else 0)


def parse_predict(body: Any) -> Rows:
    """Give the rows of what `/predict` takes: one object, `{"instances": [...]}`, or `{"columns": [...], "rows": [[...]]}`.

    Raises RequestError for another form.
    """
    if not isinstance(body, dict):
        _raise_unprocessable(
            'the body is not an object; allowed: one row, {"instances": [rows]}, {"columns": [names], "rows": [lists]}'
        )
    if "instances" in body:
        if not _is_list(body["instances"]) or len(body) > 1:
            _raise_unprocessable("instances must be a list of at least one row, and the body's only key")
        return Rows(None, body["instances"], 1)
    if body.keys() >= {"columns", "rows"}:
        if not (_is_list(body["columns"]) and _is_list(body["rows"])) or len(body) > 2:
            _raise_unprocessable("columns and rows must be lists that are not empty, and the body's only keys")
        return Rows(body["columns"], body["rows"], 2)
    return Rows(None, [body], 0)


def parse_invocations(body: Any, columns: Sequence[Column]) -> Rows:
    """Give the rows of what MLflow's scoring protocol takes as JSON. Raises RequestError for another form."""
    form = [name for name in INVOCATION_FORMATS if name in body] if isinstance(body, dict) else []
    if len(form) != 1 or body.keys() - {form[0], "params"}:
        _raise_unprocessable(f"the body is not an object with exactly one of {', '.join(INVOCATION_FORMATS)}")
    if body.get("params"):
        _raise_unprocessable("this model takes no params")
    given = body[form[0]]
    if form[0] == "dataframe_split":
        return _split_rows(given, len(body))
    if form[0] == "inputs" and isinstance(given, dict):
        return _columnar_rows(given, len(body))
    if not _is_list(given):
        _raise_unprocessable(f"{form[0]} must be a list of at least one row")
    if isinstance(given[0], list):
        return Rows([column.name for column in columns], given, len(body))
    return Rows(None, given, len(body))


def _split_rows(payload: Any, extra_keys: int) -> Rows:
    if not isinstance(payload, dict) or not {"columns", "data"} <= payload.keys() <= {"columns", "data", "index"}:
        _raise_unprocessable("dataframe_split must be an object with columns and data")
    if not (_is_list(payload["columns"]) and _is_list(payload["data"])):
        _raise_unprocessable("columns and data of dataframe_split must be lists that are not empty")
    return Rows(payload["columns"], payload["data"], extra_keys + len(payload))


def _columnar_rows(payload: Mapping[str, Any], extra_keys: int) -> Rows:
    if not payload or not all(map(_is_list, payload.values())) or len({len(values) for values in payload.values()}) > 1:
        _raise_unprocessable("inputs must be lists of the same length, one for each column, and not empty")
    return Rows(list(payload), list(zip(*payload.values(), strict=True)), extra_keys + len(payload))


def parse_csv(body: bytes, columns: Sequence[Column]) -> Rows:
    """Give the rows of a CSV table: a line of names, then a line a row; an empty cell is a missing value.

    Raises RequestError for what is no such table.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode(), newline=""), strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not CSV: {error}") from error
    if len(lines) < 2:
        _raise_unprocessable("the body is not a line of column names and at least one row")
    kinds = {column.name: column for column in columns}
    known = [kinds.get(name) for name in lines[0]]
    rows = [
        [_parse_cell(text, column) for text, column in zip(line, known, strict=False)] + line[len(known) :] for line in lines[1:]
    ]
    return Rows(lines[0], rows, 0)


def _parse_cell(text: str, column: Column | None) -> Any:
    """Give the value that a cell stands for; a text that stands for none stays, for the check to name it."""
    if text == "":
        return None
    # float() takes the digits of every script
    if column is not None and column.is_number and text.isascii() and text == text.translate(NON_NUMERIC_CHARS):
        try:
            return float(text)
        except ValueError:
            return text
    if column is not None and column.type == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def loads_fast(body: bytes) -> Any:
    """Read JSON; a key that is there twice is not noticed. Raises ValueError for what is not JSON, or not for this reader."""
    return orjson.loads(body)


def loads_strict(body: bytes) -> Any:
    """Read JSON: no NaN, no Infinity, no key twice. Raises RequestError for anything else."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant)
    except RecursionError:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is nested too deeply") from None
    except ValueError as error:  # bad UTF-8, bad JSON, a number of too many digits
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return read


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def require_media_type(content_type: str, *allowed: str) -> str:
    """Give the media type of a header. Raises RequestError for one that is not allowed."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in allowed:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type is {kind or 'missing'}; allowed: {', '.join(allowed)}"
        )
    return kind


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _raise_unprocessable(detail: str) -> NoReturn:
    raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
