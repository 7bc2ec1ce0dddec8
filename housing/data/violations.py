"""Violations of a table's schema, collected while its rows are read."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from housing.core.errors import Violation
from housing.schema.column import MISSING
from housing.schema.declaration import NUMERIC_ROLES
from housing.schema.table_schema import Schema


class ViolationLog:
    """The violations of the rows that were read so far. Missing values are only counted by column."""

    def __init__(self) -> None:
        self.listed: list[Violation] = []
        self._missing: dict[str | None, tuple[int, int]] = {}  # number of missing values, and the first row without one

    def add(self, violations: Iterable[Violation], first_row: int = 0) -> None:
        """Add the violations of consecutive rows. Theirs count from `first_row`."""
        for violation in violations:
            row = first_row + (violation.row or 0)
            if violation.reason != MISSING:
                self.listed.append(replace(violation, row=row))
            else:
                count, first = self._missing.get(violation.field, (0, row))
                self._missing[violation.field] = count + 1, first

    def raise_if_any(self, schema: Schema, n_rows: int) -> None:
        """Raise TableError if there is a violation. `n_rows` is the number of rows that were read."""
        n_values = len(self.listed) + sum(count for count, _ in self._missing.values())
        if n_values:
            raise schema.violated([*self._missing_by_column(schema, n_rows), *self.listed], n_values)

    def _missing_by_column(self, schema: Schema, n_rows: int) -> Iterator[Violation]:
        """Yield one violation for each column with missing values: their number, and the attribute that allows them."""
        for column in schema.columns:
            if column.name in self._missing:
                count, first = self._missing[column.name]
                advice = f"The role {column.role} needs all."
                if column.role not in NUMERIC_ROLES:
                    advice = "If they may be, add to the column: nullable: true"
                values = f"{count:,} of {n_rows:,} values are missing, the first in row {first}."
                yield Violation(None, column.name, f"{values} {advice}")
