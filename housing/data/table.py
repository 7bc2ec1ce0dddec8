"""The table: read, checked once at the border, fingerprinted."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from housing.core.errors import ConfigError, HousingError, TableError, Violation
from housing.core.files import sha256
from housing.schema.column import Column, Matrix, Value, Vector
from housing.schema.table_schema import Schema

TRUE_CELLS, FALSE_CELLS = (
    ("True", "TRUE", "true", "1", "1.0"),
    ("False", "FALSE", "false", "0", "0.0"),
)  # what pandas reads as bool


SPLIT_COLUMN, FINGERPRINT_ATTRIBUTE = (
    "housing.split",
    "housing.fingerprint",
)  # in a prepared table: a column, and what its source's SHA-256 was


TABLE_KEYS = (
    "name",
    "description",
    "path",
    "fingerprint",
    "source",
    "columns",
    "slices",
    "places",
    "ratios",
)  # of a table's config


NUMBER_PATTERN = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)  # pandas knows no other digits and spaces


@dataclass(frozen=True, eq=False)  # one table is itself, so that what follows from it can be remembered
class Table:
    """A table that fits its schema."""

    schema: Schema
    matrix: Matrix  # (rows, schema.features)
    target: Vector  # (rows,), in the target's unit
    key: Matrix  # (rows, schema.key): what identifies a row
    fingerprint: str

    def __len__(self) -> int:
        return len(self.target)

    def head(self, n_rows: int) -> "Table":
        """Give the first rows as a table of its own."""
        fingerprint = f"{self.fingerprint}[:{n_rows}]"
        return Table(self.schema, self.matrix[:n_rows], self.target[:n_rows], self.key[:n_rows], fingerprint)

    def take(self, indices: Sequence[int]) -> "Table":
        """Give some of the rows, as a table that stands for no file."""
        return Table(self.schema, self.matrix[indices], self.target[indices], self.key[indices], fingerprint="")

    def row_keys(self) -> list[bytes]:
        """Give for each row what is equal in rows that are equal in every column."""
        encoded = np.column_stack([self.key, self.matrix, self.target])
        return [row.tobytes() for row in np.where(np.isnan(encoded), np.nan, encoded) + 0.0]  # one NaN, one zero


def parse_schema(data: DictConfig) -> Schema:
    """Give the schema that a table's config declares. Raises ConfigError for a key that is all but one that is known."""
    declared: Any = OmegaConf.to_container(data, resolve=True)
    for key in declared.keys() - set(TABLE_KEYS):  # a table may have others, to refer to
        meant = difflib.get_close_matches(str(key), TABLE_KEYS, n=1, cutoff=0.8)
        if meant:
            raise ConfigError(f"table {declared.get('name')}: {key} is not known; is {meant[0]} meant?")
    return Schema.from_dict(declared)


def load(data: DictConfig, max_rows: int | None = None) -> Table:
    """Read and check the table of a config, CSV or prepared; only its first `limit` rows where that is given.

    Raises HousingError where the file is not there, TableError where it does not fit the schema.
    """
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows is {max_rows}; allowed: 1 and more, or null")
    path = Path(data.path)
    if not path.is_file():
        raise HousingError(f"{path} is not there. Get it with: python -m housing.fetch data={data.name}")
    table = _load(path, sha256(path), json.dumps(parse_schema(data).to_dict()))
    return table if max_rows is None else table.head(max_rows)


@lru_cache(maxsize=4)  # the jobs of a sweep share one process and one table
def _load(path: Path, digest: str, schema_json: str) -> Table:
    schema = Schema.from_dict(json.loads(schema_json))
    if path.suffix == ".parquet":
        return validate_frame(schema, *_read_prepared(path))
    return validate_frame(schema, read_csv(path, schema), digest)


def _read_prepared(path: Path) -> tuple[pd.DataFrame, str]:
    """Give the columns of a prepared table, and the fingerprint of the table that it was made of."""
    try:
        frame = pd.read_parquet(path)
        return frame.drop(columns=SPLIT_COLUMN), str(frame.attrs[FINGERPRINT_ATTRIBUTE])
    except (ValueError, KeyError) as error:
        raise TableError(f"{path} is no table that housing.prepare has written: {error}", []) from error


def validate_frame(schema: Schema, frame: pd.DataFrame, digest: str) -> Table:
    """Turn a frame into a table. Raises TableError, which names each value that the schema does not allow."""
    encoded = schema.encode_frame(frame, schema.columns, forbid_others=True)
    if encoded.size == 0:
        raise TableError(f"table {schema.name} has no rows", [])
    return make_table(schema, encoded, digest)


def make_table(schema: Schema, encoded: Matrix, digest: str) -> Table:
    """Make a table of rows that were checked, shape (rows, schema.columns)."""
    position = {column.name: number for number, column in enumerate(schema.columns)}
    matrix = encoded[:, [position[column.name] for column in schema.features]]
    key = encoded[:, [position[column.name] for column in schema.key]]
    return Table(schema, matrix, encoded[:, position[schema.target.name]], key, digest)


def read_csv(path: Path, schema: Schema, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """Read a CSV file with some columns (default: all) typed by the schema; only an empty cell is a missing value.

    Raises TableError for a file that is no table, or has a cell that cannot be read as its column's type.
    """
    columns = schema.columns if columns is None else columns
    cells: Any = {"keep_default_na": False, "na_values": [""], "skip_blank_lines": False, "index_col": False}
    kinds = {"float": np.float64, "int": np.float64, "bool": "boolean", "category": "str"}
    types: Any = {column.name: kinds[column.type] for column in columns}
    try:
        return pd.read_csv(path, dtype=types, **cells)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is not a table of comma-separated values in UTF-8: {str(error).strip()}", []) from error
    except ValueError as error:
        problems = _unparsable_cells(pd.read_csv(path, dtype="str", **cells), columns)
        raise TableError(f"{path} does not fit table {schema.name} (rows count from 0)", problems) from error


def _unparsable_cells(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Violation]:
    """Find the cells that cannot be read as their column's type."""
    columns = [column for column in columns if column.name in frame.columns and column.type != "category"]
    cells = ((row, column, cell) for column in columns for row, cell in enumerate(frame[column.name]) if isinstance(cell, str))
    return [
        Violation(row, column.name, str(column.validate(cell))) for row, column, cell in cells if not _is_parsable(column, cell)
    ]


def _is_parsable(column: Column, cell: str) -> bool:
    return cell in TRUE_CELLS + FALSE_CELLS if column.type == "bool" else NUMBER_PATTERN.fullmatch(cell) is not None


def parse_cell(column: Column, cell: str) -> tuple[Value, str | None]:
    """Read one cell as `read_csv` does; beside the value comes why it is not allowed, or None where it is."""
    value: Value = cell or None
    if cell and column.type != "category" and _is_parsable(column, cell):
        value = cell in TRUE_CELLS if column.type == "bool" else float(cell)
    return value, column.validate(value)
