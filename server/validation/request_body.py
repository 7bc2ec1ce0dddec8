"""Request bodies: rows as JSON or CSV, in each of the supported layouts.

`/predict` takes strict JSON (RFC 8259). `/invocations` takes what MLflow's scoring server takes.
"""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple

from werkzeug.http import parse_options_header

from housing.schema.column import Column
from server.core.errors import RequestError, raise_unprocessable

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"
HINTS = {
    CSV: " Send CSV to /invocations.",
    "application/vnd.apache.parquet": f" Reading Parquet takes memory without a limit. Send an Arrow stream: {ARROW}.",
}
INVOCATION_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MLFLOW_KEYS = {*INVOCATION_FORMATS, "params"}
MISSING_CELLS = {  # what pandas reads as missing
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # two of them are a character, such as an emoji


class Rows(NamedTuple):
    """Rows as sent: lists in the order of `columns`, or objects if `columns` is None.

    `extra_keys` counts the keys of the body that are not keys of a row.
    """

    columns: list[Any] | None
    rows: Sequence[Any]
    extra_keys: int

    def has_unique_keys(self, body: bytes, width: int) -> bool:
        """Return whether the body, with `width` keys in a row, has none twice: as many colons outside of texts as keys."""
        n_within_texts = body.count(b":") - self.extra_keys - (len(self.rows) * width if self.columns is None else 0)
        if n_within_texts == 0 or b"\\" in body:  # an escape can be a colon
            return n_within_texts == 0
        cells = chain(self.columns, *self.rows) if self.columns else chain.from_iterable(chain(*row.items()) for row in self.rows)
        return n_within_texts == sum(cell.count(":") for cell in cells if isinstance(cell, str))


def parse_predict(body: Any, _columns: Sequence[Column] = ()) -> Rows:
    """Return the rows of a JSON body of `/predict`, which names its columns. Raises RequestError for an unknown layout."""
    if not isinstance(body, dict):
        raise_unprocessable(
            'Request body must be a JSON object: a single row, {"instances": [...]} or {"columns": [...], "rows": [...]}.'
        )
    if body and body.keys() <= MLFLOW_KEYS - {"instances"}:
        raise_unprocessable(f"{', '.join(body)}: this is a layout of MLflow. Send it to /invocations.")
    if "instances" in body:
        if not _is_list(body["instances"]) or len(body) > 1:
            raise_unprocessable('"instances" must be a list of at least one row and the only key of the body.')
        return Rows(None, body["instances"], 1)
    if body.keys() >= {"columns", "rows"}:
        if not (_is_list(body["columns"]) and _is_list(body["rows"])) or len(body) > 2:
            raise_unprocessable('"columns" and "rows" must be non-empty lists and the only keys of the body.')
        return Rows(body["columns"], body["rows"], 2)
    return Rows(None, [body], 0)


def parse_invocations(body: Any, columns: Sequence[Column]) -> Rows:
    """Return the rows of a JSON body of MLflow's scoring protocol. Raises RequestError for an unknown layout."""
    formats = [name for name in INVOCATION_FORMATS if name in body] if isinstance(body, dict) else []
    if len(formats) != 1:
        raise_unprocessable(f"Request body must be a JSON object with exactly one of {', '.join(INVOCATION_FORMATS)}.")
    if body.get("params"):
        raise_unprocessable('This model takes no "params".')
    payload = body[formats[0]]
    if formats[0] == "dataframe_split":
        return _split_rows(payload, len(body))
    if formats[0] in ("inputs", "instances") and isinstance(payload, dict):
        return _columnar_rows(formats[0], payload, len(body))
    if not _is_list(payload):
        raise_unprocessable(f'"{formats[0]}" must be a list of at least one row.')
    names = [column.name for column in columns] if isinstance(payload[0], list) else None
    return Rows(names, payload, len(body))


def _split_rows(payload: Any, extra_keys: int) -> Rows:
    if not isinstance(payload, dict) or not {"columns", "data"} <= payload.keys() <= {"columns", "data", "index"}:
        raise_unprocessable('"dataframe_split" must be an object with the keys "columns" and "data".')
    if not (_is_list(payload["columns"]) and _is_list(payload["data"])):
        raise_unprocessable('"columns" and "data" of "dataframe_split" must be non-empty lists.')
    return Rows(payload["columns"], payload["data"], extra_keys + len(payload))


def _columnar_rows(name: str, payload: Mapping[str, Any], extra_keys: int) -> Rows:
    """Return rows from one list per column, or from one value per column."""
    if payload and not any(isinstance(values, list | dict) for values in payload.values()):
        return Rows(list(payload), [list(payload.values())], extra_keys + len(payload))
    if not payload or not all(map(_is_list, payload.values())) or len({len(values) for values in payload.values()}) > 1:
        raise_unprocessable(f'"{name}" must have one value or one non-empty list per column, all of the same length.')
    return Rows(list(payload), list(zip(*payload.values(), strict=True)), extra_keys + len(payload))


def conform(payload: Rows, columns: Sequence[Column]) -> Rows:
    """Return rows as MLflow reads them: no other columns, NaN as missing, and texts of numbers as numbers.

    Rows that do not fit their columns stay as they are, so that the validation reports them.
    """
    by_name = {column.name: column for column in columns}
    if payload.columns is None:
        if not all(isinstance(row, dict) for row in payload.rows):
            return payload
        names = set().union(*payload.rows)  # a key that only some rows have is a missing value in the others
        present = [column for column in columns if column.name in names]
        records = [{column.name: _conform_value(row.get(column.name), column) for column in present} for row in payload.rows]
        return Rows(None, records, payload.extra_keys)
    width = len(payload.columns)
    if not all(isinstance(row, list | tuple) and len(row) == width for row in payload.rows):
        return payload
    known = [(index, by_name[name]) for index, name in enumerate(payload.columns) if isinstance(name, str) and name in by_name]
    rows = [[_conform_value(row[index], column) for index, column in known] for row in payload.rows]
    return Rows([column.name for _, column in known], rows, payload.extra_keys)


def _conform_value(value: Any, column: Column) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if column.type == "bool" and type(value) in (int, float):
        return bool(value) if value in (0, 1) else value
    return _parse_number(value) if isinstance(value, str) and column.is_number else value


def parse_csv(body: bytes, columns: Sequence[Column]) -> Rows:
    """Return the rows of a CSV table with a header line. Raises RequestError."""
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"Request body is not valid CSV: {error}") from error
    if len(lines) < 2:
        raise_unprocessable("The CSV body must have a header line with the column names and at least one row.")
    header, rows = lines[0], lines[1:]
    if any(len(row) != len(header) for row in rows):
        return Rows(header, rows, 0)  # the validation reports them
    texts: dict[str, Sequence[str]] = {}
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        texts.setdefault(name, cells)  # of two columns of a name, pandas too uses the first
    present = [column for column in columns if column.name in texts]
    values = [_parse_column(texts[column.name], column) for column in present]
    return Rows([column.name for column in present], list(zip(*values, strict=True)), 0)


def _parse_column(texts: Sequence[str], column: Column) -> list[Any]:
    """Return the values of the cells of a column. An invalid text stays as it is, so that the validation reports it."""
    if column.is_number and _are_plain("".join(texts)):
        with suppress(ValueError):  # a cell is empty or invalid
            return list(map(float, texts))
    return [_parse_cell(text, column) for text in texts]


def _parse_cell(text: str, column: Column) -> Any:
    is_missing = not text if column.type == "text" else text in MISSING_CELLS and text not in column.codes
    if is_missing:
        return None
    if column.type == "bool":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return _parse_number(text) if column.is_number else text


def _parse_number(text: str) -> float | str:
    """Return the number of a text; an invalid text stays as it is."""
    try:
        return float(text) if _are_plain(text) else text
    except ValueError:
        return text


def _are_plain(texts: str) -> bool:
    """Return whether texts have none of the forms that only float() accepts: 1_000, nan, inf, and digits of other scripts."""
    return texts.isascii() and not ("_" in texts or "n" in texts or "N" in texts)


def loads_strict(body: bytes) -> Any:
    """Parse strict JSON: no NaN, no Infinity, no duplicate keys. Raises RequestError."""
    return _loads(body, parse_constant=_reject_constant)


def loads_mlflow(body: bytes) -> Any:
    """Parse JSON as MLflow's server does, with NaN, Infinity and a byte order mark, but without duplicate keys.

    Raises RequestError.
    """
    return _loads(body.removeprefix(codecs.BOM_UTF8))


def _loads(body: bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    try:
        text = body.decode()
        parsed = json.loads(text, object_pairs_hook=_reject_duplicate_keys, parse_constant=parse_constant)
        if SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode()  # fails if a surrogate stands alone: the log could not be written
        return parsed
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
    """Return the media type of a Content-Type header. Raises RequestError if it, or its charset, is not allowed."""
    if content_type in allowed:
        return content_type
    media_type, parameters = parse_options_header(content_type)
    media_type = media_type.lower()
    if media_type not in allowed:
        detail = f"Content-Type must be {' or '.join(allowed)} (got {media_type or 'none'}).{HINTS.get(media_type, '')}"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    charset = parameters.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The charset must be utf-8 (got {charset:.40}).")
    return media_type


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
