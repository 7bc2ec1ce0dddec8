"""New rows of a file: rows that fit the schema, and rejected rows with line and reason."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from housing.core.files import require_file
from housing.data.read_options import ReadOptions
from housing.data.reading import Cells, NumberedRow, field_count_reason, read_rows
from housing.data.table import Table, learn_levels, make_table, parse_cell
from housing.schema.column import Record
from housing.schema.table_schema import Schema


@dataclass(frozen=True)
class BadRow:
    """A row that does not fit the schema. `line` is its first line in the file; the header is line 1."""

    line: int
    reason: str
    cells: Cells

    def __str__(self) -> str:
        """Return line and reason."""
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, eq=False)
class NewRows:
    """The rows of a file.

    Attributes
    ----------
    header
        Column names of `cells`, in the order of the file.
    cells, table
        The rows that fit the schema, as text and as numbers, in the same order.
    bad_rows
        The other rows.
    """

    header: list[str]
    cells: list[Cells]
    table: Table
    bad_rows: list[BadRow]

    def __len__(self) -> int:
        """Return the number of rows in the file."""
        return len(self.cells) + len(self.bad_rows)

    @classmethod
    def read(cls, path: Path, schema: Schema, options: ReadOptions) -> Self:
        """Read a file that has all columns of a schema, in any order.

        Raises
        ------
        HousingError
            If the file does not exist.
        TableError
            If it cannot be read, or has other columns.
        """
        require_file(path, f"a file with the columns of table {schema.name}")
        numbered_rows = read_rows(path, options)
        _, header = next(numbered_rows)
        schema.require_table_columns(header)
        return cls.from_cells(header, list(numbered_rows), schema, options)

    @classmethod
    def from_cells(cls, header: list[str], numbered_rows: list[NumberedRow], schema: Schema, options: ReadOptions) -> Self:
        """Separate the rows that fit the schema from the others. Each row comes with its line number."""
        key_columns = [column for column in schema.columns if column.role == "key"]
        good_rows, records, key_values, bad_rows = [], [], [], []
        for line, cells in numbered_rows:
            record, reasons = _parse_row(dict(zip(header, cells, strict=False)), schema, options)
            if len(cells) != len(header):
                reasons = [field_count_reason(header, cells)]
            if reasons:
                bad_rows.append(BadRow(line, " ".join(reasons), cells))
            else:
                good_rows.append(cells)
                records.append(record)
                key_values.append([record[column.name] for column in key_columns])
        learned = [column.name for column in schema.features if column.is_learned]
        schema = learn_levels(schema, {name: [record[name] for record in records] for name in learned})
        target = [schema.target.encode(record[schema.target.name]) for record in records]
        matrix, texts = schema.encode_records(records)[:, : len(schema.features)], schema.texts.from_records(records)
        table = make_table(schema, matrix, np.array(target, dtype=np.float64), key_values, "", texts)
        return cls(header, good_rows, table, bad_rows)


def _parse_row(cells: dict[str, str], schema: Schema, options: ReadOptions) -> tuple[Record, list[str]]:
    """Return the values of a row, and why it does not fit the schema."""
    columns = [column for column in schema.columns if column.role != "ignore"]
    parsed = {column.name: parse_cell(column, cells.get(column.name, ""), options) for column in columns}
    record = {name: value for name, (value, _) in parsed.items()}
    return record, [f"{name}: {reason}" for name, (_, reason) in parsed.items() if reason]
