"""The table: reading, validation against the schema, and its fingerprint."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from housing.core.errors import ConfigError, HousingError, TableError, Violation
from housing.core.files import sha256
from housing.data.settings import TableSettings
from housing.schema.column import Column, Matrix, Value, Vector
from housing.schema.table_schema import Schema

# The cells that pandas reads as bool.
TRUE_CELLS = ("True", "TRUE", "true", "1", "1.0")
FALSE_CELLS = ("False", "FALSE", "false", "0", "0.0")

# pandas parses ASCII digits only, and no spaces beyond ASCII.
NUMBER_PATTERN = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

# A prepared table has one more column, and the fingerprint of the table that it was prepared from.
SPLIT_COLUMN = "housing.split"
FINGERPRINT_ATTRIBUTE = "housing.fingerprint"


@dataclass(frozen=True, eq=False)  # compared by identity, so that splits of a table can be cached
class Table:
    """A table that fits its schema.

    Attributes
    ----------
    matrix
        Features, shape (rows, len(schema.features)).
    target
        Shape (rows,), in the target's unit.
    key
        Columns that identify a row, shape (rows, len(schema.key)).
    fingerprint
        SHA-256 of the file, or "" for rows that are no file.
    """

    schema: Schema
    matrix: Matrix
    target: Vector
    key: Matrix
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.target)

    def head(self, n_rows: int) -> "Table":
        """Return the first rows, with a fingerprint of their own."""
        fingerprint = f"{self.fingerprint}[:{n_rows}]"
        return Table(self.schema, self.matrix[:n_rows], self.target[:n_rows], self.key[:n_rows], fingerprint)

    def take(self, indices: Sequence[int]) -> "Table":
        """Return some rows, without a fingerprint."""
        return Table(self.schema, self.matrix[indices], self.target[indices], self.key[indices], fingerprint="")

    def row_keys(self) -> list[bytes]:
        """Return a value for each row that is equal for rows with equal values in every column."""
        encoded = np.column_stack([self.key, self.matrix, self.target])
        return [row.tobytes() for row in np.where(np.isnan(encoded), np.nan, encoded) + 0.0]  # one NaN, one zero


def load(data: DictConfig, max_rows: int | None = None) -> Table:
    """Read the table that a config of `conf/data` declares. See `read_table`."""
    return read_table(TableSettings.from_config(data), max_rows)


def read_table(settings: TableSettings, max_rows: int | None = None) -> Table:
    """Read and validate a table, CSV or prepared, or only its first `max_rows` rows.

    Raises
    ------
    HousingError
        If the file does not exist.
    TableError
        If it does not fit the schema.
    """
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows must be 1 or more, or null (got {max_rows})")
    path = settings.path
    if not path.is_file():
        raise HousingError(f"{path} does not exist. Get it with: python -m housing.fetch data={settings.name}")
    table = _read_table(path, sha256(path), json.dumps(settings.schema.to_dict()))
    return table if max_rows is None else table.head(max_rows)


@lru_cache(maxsize=4)  # the jobs of a sweep share one process and one table
def _read_table(path: Path, digest: str, schema_json: str) -> Table:
    schema = Schema.from_dict(json.loads(schema_json))
    if path.suffix == ".parquet":
        return validate_frame(schema, *_read_prepared(path))
    return validate_frame(schema, read_csv(path, schema), digest)


def _read_prepared(path: Path) -> tuple[pd.DataFrame, str]:
    """Return the columns of a prepared table, and the fingerprint of the table that it was prepared from."""
    try:
        frame = pd.read_parquet(path)
        return frame.drop(columns=SPLIT_COLUMN), str(frame.attrs[FINGERPRINT_ATTRIBUTE])
    except (ValueError, KeyError) as error:
        raise TableError(
            f"{path} was not written by housing.prepare ({error}). Write it with: python -m housing.prepare", []
        ) from error


def validate_frame(schema: Schema, frame: pd.DataFrame, digest: str) -> Table:
    """Convert a frame to a table.

    Raises
    ------
    TableError
        If a value violates the schema. The message lists each violation.
    """
    encoded = schema.encode_frame(frame, schema.columns, forbid_others=True)
    if encoded.size == 0:
        raise TableError(f"Table {schema.name} has no rows", [])
    return make_table(schema, encoded, digest)


def make_table(schema: Schema, encoded: Matrix, digest: str) -> Table:
    """Return a table of validated rows, shape (rows, len(schema.columns))."""
    position = {column.name: index for index, column in enumerate(schema.columns)}
    matrix = encoded[:, [position[column.name] for column in schema.features]]
    key = encoded[:, [position[column.name] for column in schema.key]]
    return Table(schema, matrix, encoded[:, position[schema.target.name]], key, digest)


def read_csv(path: Path, schema: Schema, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """Read a CSV file, with `columns` (default: all) typed by the schema. Only an empty cell is a missing value.

    Raises
    ------
    TableError
        If the file is not CSV in UTF-8, or a cell cannot be parsed as its column's type.
    """
    columns = schema.columns if columns is None else columns
    options: Any = {"keep_default_na": False, "na_values": [""], "skip_blank_lines": False, "index_col": False}
    dtypes = {"float": np.float64, "int": np.float64, "bool": "boolean", "category": "str"}
    dtype_of_column: Any = {column.name: dtypes[column.type] for column in columns}
    try:
        return pd.read_csv(path, dtype=dtype_of_column, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is not a CSV file in UTF-8: {str(error).strip()}", []) from error
    except ValueError as error:
        violations = _unparsable_cells(pd.read_csv(path, dtype="str", **options), columns)
        raise TableError(f"{path} violates the schema of table {schema.name} (rows count from 0):", violations) from error


def _unparsable_cells(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Violation]:
    typed_columns = [column for column in columns if column.name in frame.columns and column.type != "category"]
    return [
        Violation(row, column.name, str(column.validate(cell)))
        for column in typed_columns
        for row, cell in enumerate(frame[column.name])
        if isinstance(cell, str) and not _is_parsable(column, cell)
    ]


def _is_parsable(column: Column, cell: str) -> bool:
    return cell in TRUE_CELLS + FALSE_CELLS if column.type == "bool" else NUMBER_PATTERN.fullmatch(cell) is not None


def parse_cell(column: Column, cell: str) -> tuple[Value, str | None]:
    """Parse one cell as `read_csv` does. Return its value, and why the schema does not allow it, or None if it does."""
    value: Value = cell or None
    if cell and column.type != "category" and _is_parsable(column, cell):
        value = cell in TRUE_CELLS if column.type == "bool" else float(cell)
    return value, column.validate(value)
