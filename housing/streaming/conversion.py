"""Conversion of a table's file to Parquet, once, so that each later command reads typed columns in row groups."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from pyarrow import parquet

from housing.core.files import atomic_write_unnamed, short_path
from housing.core.locks import machine_lock
from housing.core.printable import show
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.settings import TableSettings
from housing.data.table import read_typed_batches
from housing.data.typed_files import PARQUET
from housing.data.writing import write_parquet

SUFFIX = ".converted.parquet"
ORIGIN = "housing.converted_from"  # metadata of a converted file: what it was made of
PROGRESS_ROWS = 1_000_000  # between two lines of progress


def as_parquet(settings: TableSettings, fingerprint: str) -> tuple[Path, ReadOptions]:
    """Return the Parquet file with the rows of a table, and how its cells are written.

    Another file than Parquet is converted to a Parquet file beside it, unless that is up to date.

    Raises
    ------
    TableError
        If the file cannot be read, or lacks columns of the schema.
    """
    if settings.path.suffix.lower() == PARQUET:
        return settings.path, settings.read
    converted = settings.path.with_name(settings.path.name + SUFFIX)
    origin = _origin(settings, fingerprint)
    with machine_lock(str(converted.absolute()), kind="conversions"):
        if not (converted.is_file() and _read_origin(converted) == origin):
            show(f"Converting {short_path(settings.path)} to Parquet, once: {short_path(converted)}")
            with atomic_write_unnamed(converted) as file:
                write_parquet(_typed_frames(settings), file, {ORIGIN: origin})
    return converted, PLAIN


def _origin(settings: TableSettings, fingerprint: str) -> str:
    """Return a hash of the file and of what decides how its cells become values."""
    columns = [(column.name, column.type, column.role, column.parse) for column in settings.schema.columns]
    content = json.dumps([fingerprint, columns, asdict(settings.read)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read_origin(path: Path) -> str | None:
    metadata = parquet.read_metadata(path).metadata or {}
    return metadata[ORIGIN.encode()].decode() if ORIGIN.encode() in metadata else None


def _typed_frames(settings: TableSettings) -> Iterator[pd.DataFrame]:
    """Yield the rows of the file with the columns that the schema declares and does not ignore."""
    ignored = [column.name for column in settings.schema.columns if column.role == "ignore"]
    n_rows = 0
    for batch in read_typed_batches(settings.path, settings.schema, settings.read):
        settings.schema.require_table_columns(list(batch))
        frame = pd.DataFrame(batch).drop(columns=ignored, errors="ignore")
        yield frame
        n_rows += len(frame)
        if n_rows // PROGRESS_ROWS > (n_rows - len(frame)) // PROGRESS_ROWS:
            show(f"  {n_rows:,} rows")
