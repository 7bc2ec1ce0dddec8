"""Rows of a file that want to join a table: which fit, and line and reason of each that does not."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from housing.core.errors import HousingError, TableError
from housing.data.table import Table, make_table, parse_cell
from housing.schema.column import Record
from housing.schema.table_schema import Schema

RowCells = list[str]


@dataclass(frozen=True)
class BadRow:
    """A row that does not fit, and why. `line` is its first line in the file; the header is line 1."""

    line: int
    reason: str
    cells: RowCells

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, eq=False)
class NewRows:
    """The rows of a file: `cells` of those that fit, as they stand below `header`, their numbers as a table, and the bad ones."""

    header: list[str]
    cells: list[RowCells]
    table: Table
    bad_rows: list[BadRow]

    @classmethod
    def read(cls, path: Path, schema: Schema) -> Self:
        """Read a CSV file with all columns of a schema, in any order.

        Raises HousingError where it is not there, TableError where it is no such file.
        """
        if not path.is_file():
            raise HousingError(f"file={path} is not there")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                numbered = _numbered_rows(file)
                _, header = next(numbered, (1, []))
                schema.require_columns(header, schema.columns, forbid_others=True)
                return cls.from_cells(header, list(numbered), schema)
        except (csv.Error, UnicodeDecodeError) as error:
            raise TableError(f"{path} is not a table of comma-separated values in UTF-8: {error}", []) from error

    @classmethod
    def from_cells(cls, header: list[str], numbered_rows: list[tuple[int, RowCells]], schema: Schema) -> Self:
        """Tell the rows that fit from those that do not; each comes with the number of its line."""
        good, records, bad = [], [], []
        for line, cells in numbered_rows:
            record, reasons = _parse_row(dict(zip(header, cells, strict=False)), schema)
            if len(cells) != len(header):
                reasons = [f"has {len(cells)} fields; the header has {len(header)}"]
            if reasons:
                bad.append(BadRow(line, "; ".join(reasons), cells))
            else:
                good.append(cells)
                records.append([column.encode(record[column.name]) for column in schema.columns])
        encoded = np.array(records, dtype=np.float64).reshape(len(records), len(schema.columns))
        return cls(header, good, make_table(schema, encoded, digest=""), bad)


def _numbered_rows(file: Iterator[str]) -> Iterator[tuple[int, RowCells]]:
    """Give each row with its first line; a quoted cell may go over several."""
    reader = csv.reader(file, strict=True)
    line = 1
    for cells in reader:
        yield line, cells
        line = reader.line_num + 1


def _parse_row(cells: dict[str, str], schema: Schema) -> tuple[Record, list[str]]:
    """Read the cells of a row; beside their values come the reasons against them."""
    parsed = {column.name: parse_cell(column, cells.get(column.name, "")) for column in schema.columns}
    return {name: value for name, (value, _) in parsed.items()}, [f"{name}: {why}" for name, (_, why) in parsed.items() if why]
