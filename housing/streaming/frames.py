"""Frames of a Parquet file: its rows, a chunk at a time, typed as `housing.data.table.read_frame` types them.

Values that are numbers already are taken as they are. All others become text first, each different value of a chunk once, and
are parsed like the cells of a CSV file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from housing.core.errors import TableError, Violation
from housing.data.read_options import ReadOptions
from housing.data.table import parse_cell, parse_column, read_typed_batches, unparsable
from housing.schema.column import Column
from housing.schema.table_schema import Schema


def read_parquet_frames(
    path: Path, schema: Schema, options: ReadOptions, chunk_rows: int, names: Sequence[str] | None = None
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a Parquet file as frames of up to `chunk_rows` rows, at least one. Errors are raised after the last row.

    Parameters
    ----------
    path, schema, options
        As of `housing.data.table.read_frame`.
    chunk_rows
        The number of rows that are in memory at once.
    names
        The columns to read, or None for all.

    Raises
    ------
    TableError
        If the file is no Parquet, or a value cannot have the type of its column.
    """
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:  # by default all row groups that were read stay in memory
            header = list(file.schema_arrow.names)
            if options.header == "none" or options.skip_rows or options.strip or len(set(header)) < len(header):
                for batch in read_typed_batches(path, schema, options):  # these options need whole rows of text
                    yield pd.DataFrame(batch)
                return
            yield from _read_frames(file, path, schema, options, chunk_rows, header if names is None else list(names))
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}", []) from error


def _read_frames(
    file: Any, path: Path, schema: Schema, options: ReadOptions, chunk_rows: int, names: list[str]
) -> Iterator[pd.DataFrame]:
    declared = {column.name: column for column in schema.columns if column.role != "ignore"}
    missing = dict(zip(names, options.missing_cells(names) or [frozenset[str]()] * len(names), strict=True))
    ignored = {column.name for column in schema.columns if column.role == "ignore"}
    read = [name for name in names if name not in ignored]
    violations: list[Violation] = []
    start = 0
    for batch in file.iter_batches(chunk_rows, columns=read):
        parsed: dict[str, Any] = {}
        for name in read:
            values = batch.column(name)
            if name in declared:
                parsed[name], of_column = _parse(declared[name], values, options, missing[name])
                violations += [Violation(start + row, name, reason) for row, reason in of_column]
            else:
                parsed[name] = pd.Series([None] * len(values), dtype="str")  # an undeclared column is refused by its name
        start += batch.num_rows
        if not violations:
            yield pd.DataFrame(parsed, copy=False)
    if violations:
        violations.sort(key=lambda violation: violation.row or 0)
        raise unparsable(path, schema, violations)
    if not start:
        yield pd.DataFrame({name: pd.Series([], dtype="str") for name in read})


def _parse(column: Column, values: Any, options: ReadOptions, missing: frozenset[str]) -> tuple[Any, list[tuple[int, str]]]:
    """Return the values of a column, and row and reason of each value that its type cannot hold."""
    numbers = None if missing else _try_numbers(column, values)
    if numbers is not None:
        return numbers, []
    cells, index = _as_cells(values, options)
    cells = ["" if cell.strip() in missing else cell for cell in cells] if missing else cells
    parsed, invalid = parse_column(column, cells, options)
    if invalid:
        reasons = {cell: str(parse_cell(column, cells[cell], options)[1]) for cell in invalid}
        rows = np.flatnonzero(np.isin(index, invalid))
        return None, [(int(row), reasons[int(index[row])]) for row in rows]
    return (parsed[index] if isinstance(parsed, np.ndarray) else parsed.take(index).reset_index(drop=True)), []


def _try_numbers(column: Column, values: Any) -> Any:
    """Return a column of numbers as it is stored, or None if its values need a closer look."""
    is_integer = pyarrow.types.is_signed_integer(values.type)
    if not column.is_number or not (is_integer or pyarrow.types.is_floating(values.type)):
        return None
    if column.is_identifier:
        is_exact = is_integer and column.type == "int" and not values.null_count
        return pd.Series(values.to_pandas(), dtype="Int64") if is_exact else None
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return None if (np.abs(numbers) > column.limit).any() else numbers


def _as_cells(values: Any, options: ReadOptions) -> tuple[list[str], NDArray[np.intp]]:
    """Return the different values as cells of text, and the cell of each row."""
    if pyarrow.types.is_nested(values.type):
        cells = [options.format(value) for value in values.to_pylist()]
        return cells, np.arange(len(cells))
    encoded = values if pyarrow.types.is_dictionary(values.type) else values.dictionary_encode()
    cells = [options.format(value) for value in encoded.dictionary.to_pylist()]
    if not encoded.indices.null_count:
        return cells, encoded.indices.to_numpy(zero_copy_only=False).astype(np.intp)
    return [*cells, ""], encoded.indices.fill_null(len(cells)).to_numpy(zero_copy_only=False).astype(np.intp)
