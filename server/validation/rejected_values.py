"""Counts values that the check refuses, by column and reason. Both labels are from closed lists: a caller makes no series."""

import re
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Counter

from housing.core.errors import Violation
from housing.schema.column import Column

REJECTED_VALUES = Counter("housing_rejected_values_total", "Values that the check of rows refused.", ("column", "reason"))


NO_COLUMN = "other"


BODY_REASONS = ("unknown", "other")  # a name that the schema does not have; a row or a list of columns that is none


BOUNDS_MESSAGE = re.compile(r"\S+ is (below|above) \S+")


class RejectedValues:
    """The counters of a schema's columns; they exist at 0 as soon as this is made."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = {column.name: column for column in columns}
        labels = [(column.name, reason) for column in columns for reason in _reasons(column)]
        self._counters = {
            each: REJECTED_VALUES.labels(*each) for each in [*labels, *((NO_COLUMN, reason) for reason in BODY_REASONS)]
        }

    def count(self, problems: Iterable[Violation]) -> None:
        """Count what is wrong with the rows of a request."""
        for problem in problems:
            self._counters[self._labels(problem)].inc()

    def _labels(self, problem: Violation) -> tuple[str, str]:
        if problem.field is None or problem.reason == "is there twice":
            return NO_COLUMN, "other"
        column = self._columns.get(problem.field)
        return (NO_COLUMN, "unknown") if column is None else (column.name, _reason(column, problem.reason))


def _reasons(column: Column) -> Iterator[str]:
    yield "missing"
    yield "category" if column.type == "category" else "type"
    if column.is_number and (column.min, column.max) != (None, None):
        yield "bounds"


def _reason(column: Column, message: str) -> str:
    if message == "is missing":
        return "missing"
    if column.type == "category":
        return "category"
    return "bounds" if BOUNDS_MESSAGE.fullmatch(message) else "type"
