"""Loading of a table by the engine of a config: into memory, or in chunks into a file of encoded columns."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from pyarrow import parquet

from housing.core.errors import ConfigError
from housing.core.files import sha256
from housing.core.validators import integer, optional
from housing.data import table as tables
from housing.data.read_options import ReadOptions
from housing.data.reading import BATCH_ROWS
from housing.data.settings import TableSettings
from housing.data.table import (
    SPLIT_COLUMN,
    Table,
    check_rows,
    encode_times,
    exact_values,
    key_bytes,
    labelled_rows,
    learn_levels,
    read_weights,
    report_unlabelled,
    require_file,
    row_bytes,
)
from housing.data.violations import ViolationLog
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.streaming.conversion import as_parquet
from housing.streaming.disk_matrix import UNSEEN, ColumnFile, DiskMatrix
from housing.streaming.frames import read_parquet_frames
from housing.streaming.settings import StreamSettings
from housing.streaming.streamed_table import StreamedTable

MAX_VIOLATIONS = 10_000  # then the rest of the file is not read: a wrong column violates the schema in each row
SPLITS = ("split_by_hash", "split_by_time", "random_split", "spatial_block_split")

Frames = Callable[..., Iterator[pd.DataFrame]]


def load(cfg: DictConfig) -> Table:
    """Read the table of a command's config with its engine.

    Raises
    ------
    HousingError
        If the file does not exist.
    TableError
        If it does not fit the schema.
    ConfigError
        If the engine cannot read or split such a table.
    """
    engine = StreamSettings.from_config(cfg.get("engine"))
    if engine is None:
        return tables.load(cfg.data, cfg.max_rows)
    _require_split(cfg.split)
    return read_streamed(TableSettings.from_config(cfg.data), engine, cfg.max_rows)


def _require_split(split: DictConfig) -> None:
    function = str(split["_target_"]).rpartition(".")[2]
    if function not in SPLITS:
        raise ConfigError(
            f"engine=stream and dask have split=hash, time, random and blocks (got {function}"
            ", which needs the keys of all rows at once)."
            " Use one of these, or engine=memory."
        )


def read_streamed(settings: TableSettings, engine: StreamSettings, max_rows: int | None = None) -> StreamedTable:
    """Check and encode a table in chunks. See `load`."""
    optional(integer(1)).validate("max_rows", max_rows)
    for index in settings.schema.texts.names:
        name = settings.schema.features[index].name
        raise ConfigError(
            f"engine=stream and dask have no features of type text (column {name})."
            f" Declare {name}: {{role: ignore}}, or use engine=memory."
        )
    fingerprint = sha256(require_file(settings))
    path, options = as_parquet(settings, fingerprint)
    if SPLIT_COLUMN in parquet.read_schema(path).names:
        raise ConfigError(
            f"engine=stream and dask read the table itself, not the prepared {path}. Set data.path to the original file."
        )
    fingerprint = fingerprint if max_rows is None else f"{fingerprint}[:{max_rows}]"
    return _read_streamed(path, json.dumps(settings.schema.to_dict()), options, engine, max_rows, fingerprint)


@lru_cache(maxsize=1)  # the jobs of a sweep share one process and one table
def _read_streamed(  # pylint: disable=too-many-arguments,too-many-positional-arguments
    path: Path, schema_json: str, options: ReadOptions, engine: StreamSettings, max_rows: int | None, fingerprint: str
) -> StreamedTable:
    schema = Schema.from_dict(json.loads(schema_json))
    frames = partial(read_parquet_frames, path, schema, options, engine.chunk_rows)
    rows = _encode(schema, frames, parquet.read_metadata(path).num_rows, max_rows)
    whole = schema.with_levels(rows.levels) if rows.levels else schema
    codes = {
        index: _table_codes(rows.provisional[column.name], whole, index)
        for index, column in enumerate(schema.features)
        if column.is_learned
    }
    matrix = DiskMatrix(rows.file, len(rows.target), codes=codes)
    return StreamedTable(
        whole,
        cast(Matrix, matrix),
        rows.target,
        None,
        fingerprint,
        rows.weight,
        rows.times,
        settings=engine,
        whole=whole,
        codes=codes,
        read_keys=partial(_read_keys, whole, frames, matrix),
    )


@dataclass
class _EncodedRows:
    """The rows of a file.

    Attributes
    ----------
    levels
        The number of rows of each level, by the name of a column whose levels are learned.
    provisional
        The codes of these levels in the file, in the order in which they occurred.
    """

    file: ColumnFile
    target: Vector
    weight: Vector | None
    times: Vector | None
    levels: dict[str, Counter[str]] = field(default_factory=dict)
    provisional: dict[str, dict[str, int]] = field(default_factory=dict)


def _encode(schema: Schema, frames: Frames, n_rows: int, max_rows: int | None) -> _EncodedRows:
    """Check all rows, and write the encoded features of those with a target to a file."""
    kept = min(n_rows, max_rows or n_rows)
    rows = _EncodedRows(ColumnFile(kept, len(schema.features)), np.empty(kept), None, None)
    violations, n_read, n_labelled, n_kept = ViolationLog(), 0, 0, 0
    weights: list[Vector] = []
    times: list[Vector] = []
    for frame in frames():
        schema.require_table_columns(list(frame.columns))
        learned = {column.name: exact_values(frame[column.name]) for column in schema.features if column.is_learned}
        chunk_schema = learn_levels(schema, learned)
        checked = check_rows(chunk_schema, frame)
        violations.add(checked.violations, n_read)
        n_read += len(frame)
        n_labelled += len(checked.labelled)
        if len(violations.listed) > MAX_VIOLATIONS:
            break
        labelled = checked.labelled[: kept - n_kept]
        _count_levels(rows, chunk_schema)
        matrix = checked.matrix[labelled]
        _use_provisional_codes(rows, chunk_schema, matrix)
        rows.file.write(n_kept, matrix)
        rows.target[n_kept : n_kept + len(labelled)] = checked.target[: len(labelled)]
        frame = frame.iloc[labelled]
        weights += [numbers for numbers in [read_weights(schema, frame)] if numbers is not None]
        times += [numbers for numbers in [encode_times(schema, frame)] if numbers is not None]
        n_kept += len(labelled)
    violations.raise_if_any(schema, n_read)
    report_unlabelled(schema, n_read, n_labelled)
    rows.target = rows.target[:n_kept]
    rows.weight = np.concatenate(weights) if weights else None
    rows.times = np.concatenate(times) if times else None
    return rows


def _count_levels(rows: _EncodedRows, chunk_schema: Schema) -> None:
    for name, counts in chunk_schema.levels.items():
        rows.levels.setdefault(name, Counter()).update(counts)
        codes = rows.provisional.setdefault(name, {})
        for level in counts:
            codes.setdefault(level, len(codes))


def _use_provisional_codes(rows: _EncodedRows, chunk_schema: Schema, matrix: Matrix) -> None:
    """Replace the codes of a chunk's levels by those of the file."""
    for index, column in enumerate(chunk_schema.features):
        if column.is_learned:
            known = rows.provisional[column.name]
            codes = np.array([*(known[level] for level in column.categories), UNSEEN, np.nan])
            numbers = matrix[:, index]
            matrix[:, index] = codes[np.where(np.isnan(numbers), len(codes) - 1, numbers).astype(np.intp)]


def _table_codes(provisional: dict[str, int], whole: Schema, index: int) -> Vector:
    """Return the codes by the schema of all rows of the levels in the file, of unseen and of missing values."""
    column = whole.features[index]
    return np.array([*map(column.encode, provisional), column.unseen_code, np.nan])


def _read_keys(schema: Schema, frames: Frames, matrix: DiskMatrix) -> Iterator[list[bytes]]:
    """Yield the keys of consecutive rows: those of the encoded features, or of the columns with the role key."""
    columns = [column for column in schema.columns if column.role == "key"]
    if not columns:
        for start in range(0, len(matrix), BATCH_ROWS):
            yield row_bytes(schema, matrix[start : start + BATCH_ROWS], {})
        return
    remaining = len(matrix)
    for frame in frames([*(column.name for column in columns), schema.target.name]):
        labelled = frame.iloc[labelled_rows(schema, frame)[:remaining]]
        values = [exact_values(labelled[column.name]) for column in columns]
        yield [b"".join(map(key_bytes, columns, row)) for row in zip(*values, strict=True)]
        remaining -= len(labelled)
