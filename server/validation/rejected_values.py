"""Rejected values, counted by column and reason. Both labels come from closed lists, so clients cannot create series."""

import re
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Counter

from housing.core.errors import Violation
from housing.schema.column import MISSING, Column

REJECTED_VALUES = Counter("housing_rejected_values_total", "Values that the validation of rows rejected.", ("column", "reason"))
NO_COLUMN = "other"
BODY_REASONS = ("unknown", "other")  # an unknown column; an invalid row or list of columns
DUPLICATE = "Duplicate column."
BOUNDS_MESSAGE = re.compile(r"Must be at (least|most) .*")


class RejectedValues:
    """The counters of a schema's columns, which exist from the start with the value 0."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = {column.name: column for column in columns}
        labels = [(column.name, reason) for column in columns for reason in _reasons(column)]
        labels += [(NO_COLUMN, reason) for reason in BODY_REASONS]
        self._counters = {label: REJECTED_VALUES.labels(*label) for label in labels}

    def count(self, violations: Iterable[Violation]) -> None:
        """Count the violations of a request."""
        for violation in violations:
            self._counters[self._labels(violation)].inc()

    def _labels(self, violation: Violation) -> tuple[str, str]:
        if violation.field is None or violation.reason == DUPLICATE:
            return NO_COLUMN, "other"
        column = self._columns.get(violation.field)
        return (NO_COLUMN, "unknown") if column is None else (column.name, _reason(column, violation.reason))


def _reasons(column: Column) -> Iterator[str]:
    yield "missing"
    yield "category" if column.has_levels else "type"
    if column.is_free_text or (column.is_number and (column.min, column.max) != (None, None)):
        yield "bounds"


def _reason(column: Column, message: str) -> str:
    if message == MISSING:
        return "missing"
    if column.has_levels:
        return "category"
    return "bounds" if BOUNDS_MESSAGE.fullmatch(message) else "type"
