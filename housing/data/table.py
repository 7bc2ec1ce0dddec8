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

from housing.core.errors import ConfigError, HousingError, Problem, TableError
from housing.core.files import sha256
from housing.schema.column import Column, Matrix, Value, Vector
from housing.schema.table_schema import Schema

TRUE, FALSE = ("True", "TRUE", "true", "1", "1.0"), ("False", "FALSE", "false", "0", "0.0")  # what pandas reads as bool


PART, FINGERPRINT = "housing.part", "housing.fingerprint"  # in a prepared table: a column, and what its source's SHA-256 was


KEYS = ("name", "description", "path", "fingerprint", "source", "columns", "slices", "places", "ratios")  # of a table's config


NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)  # pandas knows no other digits and spaces


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

    def head(self, rows: int) -> "Table":
        """Give the first rows as a table of its own."""
        fingerprint = f"{self.fingerprint}[:{rows}]"
        return Table(self.schema, self.matrix[:rows], self.target[:rows], self.key[:rows], fingerprint)

    def rows(self, places: Sequence[int]) -> "Table":
        """Give some of the rows, as a table that stands for no file."""
        return Table(self.schema, self.matrix[places], self.target[places], self.key[places], fingerprint="")

    def identities(self) -> list[bytes]:
        """Give for each row what is equal in rows that are equal in every column."""
        everything = np.column_stack([self.key, self.matrix, self.target])
        return [row.tobytes() for row in np.where(np.isnan(everything), np.nan, everything) + 0.0]  # one NaN, one zero


def schema_of(data: DictConfig) -> Schema:
    """Give the schema that a table's config declares. Raises ConfigError for a key that is all but one that is known."""
    declared: Any = OmegaConf.to_container(data, resolve=True)
    for key in declared.keys() - set(KEYS):  # a table may have others, to refer to
        meant = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0.8)
        if meant:
            raise ConfigError(f"table {declared.get('name')}: {key} is not known; is {meant[0]} meant?")
    return Schema.from_dict(declared)


def load(data: DictConfig, limit: int | None = None) -> Table:
    """Read and check the table of a config, CSV or prepared; only its first `limit` rows where that is given.

    Raises HousingError where the file is not there, TableError where it does not fit the schema.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; allowed: 1 and more, or null")
    path = Path(data.path)
    if not path.is_file():
        raise HousingError(f"{path} is not there. Get it with: python -m housing.fetch data={data.name}")
    table = _load(path, sha256(path), json.dumps(schema_of(data).to_dict()))
    return table if limit is None else table.head(limit)


@lru_cache(maxsize=4)  # the jobs of a sweep share one process and one table
def _load(path: Path, digest: str, declared: str) -> Table:
    schema = Schema.from_dict(json.loads(declared))
    if path.suffix == ".parquet":
        return check(schema, *_read_prepared(path))
    return check(schema, read_csv(path, schema), digest)


def _read_prepared(path: Path) -> tuple[pd.DataFrame, str]:
    """Give the columns of a prepared table, and the fingerprint of the table that it was made of."""
    try:
        frame = pd.read_parquet(path)
        return frame.drop(columns=PART), str(frame.attrs[FINGERPRINT])
    except (ValueError, KeyError) as error:
        raise TableError(f"{path} is no table that housing.prepare has written: {error}", []) from error


def check(schema: Schema, frame: pd.DataFrame, digest: str) -> Table:
    """Turn a frame into a table. Raises TableError, which names each value that the schema does not allow."""
    everything = schema.encode_frame(frame, schema.columns, forbid_others=True)
    if everything.size == 0:
        raise TableError(f"table {schema.name} has no rows", [])
    return table_of(schema, everything, digest)


def table_of(schema: Schema, everything: Matrix, digest: str) -> Table:
    """Make a table of rows that were checked, shape (rows, schema.columns)."""
    place = {column.name: number for number, column in enumerate(schema.columns)}
    matrix = everything[:, [place[column.name] for column in schema.features]]
    key = everything[:, [place[column.name] for column in schema.key]]
    return Table(schema, matrix, everything[:, place[schema.target.name]], key, digest)


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
        problems = _unreadable(pd.read_csv(path, dtype="str", **cells), columns)
        raise TableError(f"{path} does not fit table {schema.name} (rows count from 0)", problems) from error


def _unreadable(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Problem]:
    """Find the cells that cannot be read as their column's type."""
    columns = [column for column in columns if column.name in frame.columns and column.type != "category"]
    cells = ((row, column, cell) for column in columns for row, cell in enumerate(frame[column.name]) if isinstance(cell, str))
    return [Problem(row, column.name, str(column.reason(cell))) for row, column, cell in cells if not _readable(column, cell)]


def _readable(column: Column, cell: str) -> bool:
    return cell in TRUE + FALSE if column.type == "bool" else NUMBER.fullmatch(cell) is not None


def read_cell(column: Column, cell: str) -> tuple[Value, str | None]:
    """Read one cell as `read_csv` does; beside the value comes why it is not allowed, or None where it is."""
    value: Value = cell or None
    if cell and column.type != "category" and _readable(column, cell):
        value = cell in TRUE if column.type == "bool" else float(cell)
    return value, column.reason(value)
