"""Row validation: valid rows are checked and encoded column by column; Marshmallow names the errors of invalid rows."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from marshmallow import Schema as RowSchema
from marshmallow import ValidationError
from numpy.typing import NDArray

from housing.core.errors import Violation
from housing.schema.column import MISSING, Column, Matrix, Vector
from housing.schema.table_schema import Schema
from server.core.errors import RequestError
from server.validation.marshmallow_schema import UNKNOWN, make_row_schema
from server.validation.rejected_values import DUPLICATE, RejectedValues
from server.validation.request_body import Rows, conform

MAX_ERRORS = 100
NUMERIC_TYPES, LIST_TYPES = {int, float}, {list, tuple}

Values = list[Any] | NDArray[Any]  # of a column


class RowValidator:
    """Validates and encodes the rows of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        for column in schema.features:
            column.index_levels()
        self.column_names = [column.name for column in schema.features]
        self._unused = [column.name for column in schema.unused]
        self._nullable = [column.name for column in schema.features if column.nullable]
        self._row_schema: RowSchema = make_row_schema(schema)
        self._rejected_values = RejectedValues(schema.features)
        self._record_getter = (
            itemgetter(*self.column_names) if len(self.column_names) > 1 else lambda record: (record[self.column_names[0]],)
        )
        self._all_numbers = all(column.is_number and not (column.nullable or column.parse) for column in self._schema.features)
        self._levels: list[dict[Any, float]] = [{None: np.nan, **column.codes} for column in self._schema.features]
        self._min = np.array([column.lower_bound for column in self._schema.features], dtype=np.float64)
        self._max = np.array([column.upper_bound for column in self._schema.features], dtype=np.float64)
        self._integer_columns = [index for index, column in enumerate(self._schema.features) if column.type == "int"]

    def try_encode(self, payload: Rows) -> Matrix | None:
        """Return the rows as a matrix, or None if any value is invalid."""
        rows = self._reorder(payload)
        if rows is None:
            return None
        matrix = self._encode_numeric(rows) if self._all_numbers else self._encode_mixed(rows)
        if matrix is None or self._has_invalid(matrix):
            return None
        return self._add_texts(matrix, rows) if self._schema.texts else matrix

    def _add_texts(self, matrix: Matrix, rows: list[Any]) -> Matrix:
        texts = {name: [row[index] for row in rows] for index, name in self._schema.texts.names.items()}
        return self._schema.texts.add(matrix, texts, self._schema.projections)

    def encode_columns(self, columns: Mapping[str, Values], are_numbers: bool, lenient: bool = False) -> tuple[Rows, Matrix]:
        """Return columns as rows, as the prediction log holds them, and as a matrix. Raises RequestError, as `encode` does.

        In numbers, None or NaN is a missing value. If `lenient`, the rows are read as MLflow reads them.
        """
        matrix = self._try_encode_numbers(columns) if are_numbers else None
        if matrix is not None:
            return Rows(self.column_names, matrix, 0), matrix  # type: ignore[arg-type]  # the log writes a matrix as lists
        by_name = {column.name: column for column in self._schema.features}
        values = [_list_values(values, by_name.get(name)) for name, values in columns.items()]
        rows = Rows(list(columns), list(zip(*values, strict=True)), 0)
        rows = conform(rows, self._schema.features) if lenient else rows
        return rows, self.encode(rows)

    def _try_encode_numbers(self, columns: Mapping[str, Values]) -> Matrix | None:
        if not all(column.is_number for column in self._schema.features) or columns.keys() != set(self.column_names):
            return None
        try:
            arrays = [np.asarray(columns[name], dtype=np.float64) for name in self.column_names]
        except OverflowError:  # an int beyond the largest float
            return None
        matrix = np.array(arrays).T.copy()
        is_missing = np.isnan(matrix)
        with_missing = np.flatnonzero(is_missing.any(axis=0)) if is_missing.any() else ()
        lacks_values = not all(self._schema.features[index].nullable for index in with_missing)
        return None if lacks_values or self._has_invalid(matrix) else matrix

    def _has_invalid(self, matrix: Matrix) -> bool:
        """Return whether a number is out of bounds, or not whole in a column of integers."""
        if ((matrix < self._min) | (matrix > self._max)).any():
            return True
        whole = matrix[:, self._integer_columns] if self._integer_columns else None
        return whole is not None and bool((np.floor(whole) < whole).any())

    def _reorder(self, payload: Rows) -> list[Any] | None:
        """Return the values of each row in the schema's order, or None if the columns differ from the schema's."""
        if payload.columns is None:
            return self._reorder_records(payload.rows)
        if not set(map(type, payload.rows)) <= LIST_TYPES or set(map(len, payload.rows)) != {len(self.column_names)}:
            return None
        if payload.columns == self.column_names:
            return list(payload.rows)
        if set(map(type, payload.columns)) != {str} or sorted(payload.columns) != sorted(self.column_names):
            return None
        order = [payload.columns.index(name) for name in self.column_names]
        return [[row[index] for index in order] for row in payload.rows]

    def _reorder_records(self, records: Sequence[Any]) -> list[Any] | None:
        if set(map(type, records)) != {dict} or set(map(len, records)) != {len(self.column_names)}:
            return None
        try:
            return list(map(self._record_getter, records))
        except KeyError:
            return None

    @staticmethod
    def _encode_numeric(rows: list[Any]) -> Matrix | None:
        numbers = list(chain.from_iterable(rows))  # a flat list is converted in two thirds of the time
        if not set(map(type, numbers)) <= NUMERIC_TYPES:
            return None
        try:
            return np.array(numbers, dtype=np.float64).reshape(len(rows), -1)
        except OverflowError:  # an int beyond the largest float
            return None

    def _encode_mixed(self, rows: list[Any]) -> Matrix | None:
        columns = []
        for index, values in enumerate(zip(*rows, strict=True)):
            numbers = self._encode_column(index, values)
            if numbers is None:
                return None
            columns.append(numbers)
        return np.column_stack(columns)

    def _encode_column(self, index: int, values: tuple[Any, ...]) -> Vector | None:
        column, types = self._schema.features[index], set(map(type, values))
        if column.nullable:
            types.discard(type(None))
        if not types <= _json_types(column):
            return None
        if column.has_levels:
            levels = self._levels[index]
            if column.unseen == "refuse" and not set(values) <= levels.keys():
                return None
            return np.array([levels.get(value, column.unseen_code) for value in values])
        if column.is_free_text:
            return None if any(map(column.validate, values)) else np.full(len(values), np.nan)
        try:
            texts = column.type == "date" or column.parse
            return np.array([column.encode(value) for value in values] if texts else values, dtype=np.float64)
        except (OverflowError, ValueError):
            return None

    def encode(self, payload: Rows) -> Matrix:
        """Return the rows as a matrix. Raises RequestError with row, column and reason of each invalid value.

        Rows may lack nullable columns, and may have columns that no model receives.
        """
        matrix = self.try_encode(payload)
        if matrix is None:
            matrix = self.try_encode(self._complete(payload))
        if matrix is None:
            self._raise_errors(payload)
            raise AssertionError(f"Column checks and Marshmallow disagree about these rows: {payload.rows[:3]}")
        return matrix

    def _complete(self, payload: Rows) -> Rows:
        """Return rows without unused columns, and with null for each absent nullable one. Malformed rows stay as they are."""
        if payload.columns is None:
            return Rows(None, [self._complete_record(row) if isinstance(row, dict) else row for row in payload.rows], 0)
        width, absent = len(payload.columns), [name for name in self._nullable if name not in payload.columns]
        if not all(isinstance(row, list | tuple) and len(row) == width for row in payload.rows):
            return payload
        kept = [index for index, name in enumerate(payload.columns) if name not in self._unused]
        rows = [[*(row[index] for index in kept), *[None] * len(absent)] for row in payload.rows]
        return Rows([*(payload.columns[index] for index in kept), *absent], rows, 0)

    def _complete_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {**dict.fromkeys(self._nullable), **{name: value for name, value in record.items() if name not in self._unused}}

    def tabulate(self, payload: Rows) -> Rows:
        """Return valid rows as lists, with the columns that were sent."""
        if payload.columns is not None:
            return payload
        sent = set().union(*payload.rows)
        names = [name for name in (*self.column_names, *self._unused) if name in sent]
        return Rows(names, [[row.get(name) for name in names] for row in payload.rows], payload.extra_keys)

    def _raise_errors(self, payload: Rows) -> None:
        if payload.columns is not None:
            self.require_columns(payload.columns)
        violations: list[Violation] = []
        for row, values in enumerate(payload.rows):
            violations += self._row_violations(row, payload.columns, values)
            if len(violations) > MAX_ERRORS:
                break
        self._count_and_raise(violations)

    def require_columns(self, columns: Sequence[Any]) -> None:
        """Raise RequestError unless the names are those of a table of this schema."""
        names = [str(name) for name in columns]
        needed = [name for name in self.column_names if name not in self._nullable]
        violations = [Violation(None, name, MISSING) for name in needed if name not in names]
        violations += [Violation(None, name, UNKNOWN) for name in names if name not in (*self.column_names, *self._unused)]
        violations += [Violation(None, name, DUPLICATE) for name in self.column_names if names.count(name) > 1]
        self._count_and_raise(violations)

    def _count_and_raise(self, violations: list[Violation]) -> None:
        self._rejected_values.count(violations)
        if violations:
            raise validation_error(violations)

    def _row_violations(self, row: int, columns: list[Any] | None, values: Any) -> list[Violation]:
        if columns is not None:
            if not isinstance(values, list | tuple):
                return [Violation(row, None, "Must be a list.")]
            if len(values) != len(columns):
                return [Violation(row, None, f"Must have {len(columns)} values, one per column (got {len(values)}).")]
            values = dict(zip(columns, values, strict=True))
        try:
            self._row_schema.load(values)
        except ValidationError as error:
            messages: dict[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]
            return [Violation(row, None if name == "_schema" else name, reasons[0]) for name, reasons in messages.items()]
        return []


def _list_values(values: Values, column: Column | None) -> list[Any]:
    """Return the values of a column as `/predict` takes them: NaN is a missing value, and 0 and 1 of a matrix are booleans."""
    listed = (
        values
        if isinstance(values, list)
        else [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]
    )
    if column is not None and column.type == "bool":
        return [bool(value) if type(value) in (int, float) and value in (0, 1) else value for value in listed]
    return listed


def _json_types(column: Column) -> set[type]:
    if column.parse:
        return {*NUMERIC_TYPES, str}
    return NUMERIC_TYPES if column.is_number else {bool} if column.type == "bool" else {str}


def require_row_limit(n_rows: int, max_rows: int) -> None:
    """Raise RequestError if a request has too many rows."""
    if n_rows > max_rows:
        detail = f"The request must have at most {max_rows} rows (got {n_rows})."
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def validation_error(violations: list[Violation]) -> RequestError:
    """Return the error for a body with invalid values, with the first hundred of them."""
    count = f"{len(violations)} invalid value{'s' if len(violations) > 1 else ''}."
    if len(violations) > MAX_ERRORS:
        count = f"More than {MAX_ERRORS} invalid values; the first {MAX_ERRORS} are listed."
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, count, violations[:MAX_ERRORS])
