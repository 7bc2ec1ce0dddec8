"""The check of rows before they reach the model: by columns where all is well, by Marshmallow where words are needed."""

import sys
from collections.abc import Sequence
from http import HTTPStatus
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from marshmallow import Schema as RowSchema
from marshmallow import ValidationError

from housing.core.errors import Problem
from housing.schema.column import Column, Matrix, Vector
from housing.schema.table_schema import Schema
from server.core.errors import RequestError
from server.validation.marshmallow_schema import request_schema
from server.validation.rejected_values import Refusals
from server.validation.request_body import Rows

MOST_PROBLEMS = 100


LARGEST = sys.float_info.max  # beyond it is infinity alone


NUMBERS, LISTS = {int, float}, {list, tuple}


class Check:
    """The check of one schema's rows."""

    def __init__(self, schema: Schema) -> None:
        self._features = schema.features
        self.names = [column.name for column in schema.features]
        self._words: RowSchema = request_schema(schema)
        self._refusals = Refusals(schema.features)
        self._pick = itemgetter(*self.names) if len(self.names) > 1 else lambda record: (record[self.names[0]],)
        self._all_numbers = all(column.is_number and not column.nullable for column in self._features)
        self._levels = [{name: float(level) for level, name in enumerate(column.categories)} for column in self._features]
        self._least = np.array([-LARGEST if column.min is None else column.min for column in self._features])
        self._most = np.array([LARGEST if column.max is None else column.max for column in self._features])
        self._whole = [place for place, column in enumerate(self._features) if column.type == "int"]

    def matrix(self, given: Rows) -> Matrix | None:
        """Give rows as the matrix that models take, or None where any value is not allowed."""
        rows = self._in_order(given)
        if rows is None:
            return None
        matrix = self._numbers(rows) if self._all_numbers else self._mixed(rows)
        if matrix is None or ((matrix < self._least) | (matrix > self._most)).any():
            return None
        if self._whole:
            whole = matrix[:, self._whole]
            if (np.floor(whole) < whole).any():
                return None
        return matrix

    def _in_order(self, given: Rows) -> list[Any] | None:
        """Give each row's values in the schema's order, or None where a row has others than the schema's columns."""
        if given.columns is None:
            return self._of_records(given.rows)
        if not set(map(type, given.rows)) <= LISTS or set(map(len, given.rows)) != {len(self.names)}:
            return None
        if given.columns == self.names:
            return list(given.rows)
        if set(map(type, given.columns)) != {str} or sorted(given.columns) != sorted(self.names):
            return None
        order = [given.columns.index(name) for name in self.names]
        return [[row[place] for place in order] for row in given.rows]

    def _of_records(self, records: Sequence[Any]) -> list[Any] | None:
        if set(map(type, records)) != {dict} or set(map(len, records)) != {len(self.names)}:
            return None
        try:
            return list(map(self._pick, records))
        except KeyError:
            return None

    @staticmethod
    def _numbers(rows: list[Any]) -> Matrix | None:
        if not set(map(type, chain.from_iterable(rows))) <= NUMBERS:
            return None
        try:
            return np.array(rows, dtype=np.float64)
        except OverflowError:  # an int beyond the largest float
            return None

    def _mixed(self, rows: list[Any]) -> Matrix | None:
        columns = []
        for place, values in enumerate(zip(*rows, strict=True)):
            numbers = self._column(place, values)
            if numbers is None:
                return None
            columns.append(numbers)
        return np.column_stack(columns)

    def _column(self, place: int, values: tuple[Any, ...]) -> Vector | None:
        column, kinds = self._features[place], set(map(type, values))
        if column.nullable:
            kinds.discard(type(None))
        if not kinds <= _types_of(column):
            return None
        if column.type == "category":
            levels = self._levels[place]
            if not set(values) - {None} <= levels.keys():
                return None
            return np.array([levels.get(value, np.nan) for value in values])
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            return None

    def require(self, given: Rows) -> Matrix:
        """Give rows as the matrix. Raises RequestError, which names row, field and reason of what is not allowed."""
        matrix = self.matrix(given)
        if matrix is None:
            self._refuse(given)
            raise AssertionError(f"the columns refuse rows that Marshmallow allows: {given.rows[:3]}")
        return matrix

    def _refuse(self, given: Rows) -> None:
        self._refuse_columns(given)
        problems: list[Problem] = []
        for row, values in enumerate(given.rows):
            problems += self._problems(row, given.columns, values)
            if len(problems) > MOST_PROBLEMS:
                break
        self._count_and_raise(problems)

    def _refuse_columns(self, given: Rows) -> None:
        if given.columns is None:
            return
        names = [name if isinstance(name, str) else str(name) for name in given.columns]
        problems = [Problem(None, name, "is missing") for name in self.names if name not in names]
        problems += [Problem(None, name, "is not a column of this model") for name in names if name not in self.names]
        problems += [Problem(None, name, "is there twice") for name in self.names if names.count(name) > 1]
        self._count_and_raise(problems)

    def _count_and_raise(self, problems: list[Problem]) -> None:
        self._refusals.count(problems)
        if problems:
            raise not_allowed(problems)

    def _problems(self, row: int, columns: list[Any] | None, values: Any) -> list[Problem]:
        if columns is not None:
            if not isinstance(values, list | tuple):
                return [Problem(row, None, "is not a list")]
            if len(values) != len(columns):
                return [Problem(row, None, f"has {len(values)} values; allowed: {len(columns)}, one for each column")]
            values = dict(zip(columns, values, strict=True))
        try:
            self._words.load(values)
        except ValidationError as error:
            messages: dict[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]
            return [Problem(row, None if name == "_schema" else name, reasons[0]) for name, reasons in messages.items()]
        return []


def _types_of(column: Column) -> set[type]:
    return NUMBERS if column.is_number else {bool} if column.type == "bool" else {str}


def not_allowed(problems: list[Problem]) -> RequestError:
    """Give the refusal of a body: it names the first hundred of the problems."""
    count, more = f"{len(problems)} values are", ""
    if len(problems) > MOST_PROBLEMS:
        count, more = f"more than {MOST_PROBLEMS} values are", f"; the first {MOST_PROBLEMS} are named"
    elif len(problems) == 1:
        count = "1 value is"
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{count} not allowed{more}", problems[:MOST_PROBLEMS])
