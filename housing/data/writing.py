"""Writing of tables: CSV, compressed or not, or Parquet, by the ending of the file."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pandas as pd

from housing.core.errors import HousingError
from housing.data.read_options import ReadOptions
from housing.data.reading import open_table
from housing.data.typed_files import EXCEL, PARQUET

ROW_GROUP_ROWS = 1 << 17  # of 20 columns, they take about 30 MB


def write_frames(frames: Iterable[pd.DataFrame], path: Path, options: ReadOptions, suffix: str) -> None:
    """Write one table from frames with its rows, so that `options` read it. Only one frame at a time is in memory.

    Parameters
    ----------
    frames
        At least one frame. All have the same columns, of the same types.
    suffix
        The ending that decides the format. A temporary file needs that of the file to come.

    Raises
    ------
    HousingError
        If the ending is that of an Excel file, or a value cannot be written in the encoding.
    """
    if suffix.lower() == EXCEL:
        raise HousingError("Tables are written as CSV or Parquet only. Choose a path that ends in .csv or .parquet.")
    if suffix.lower() == PARQUET:
        write_parquet(frames, path)
        return
    has_header = options.header != "none"
    # pylint: disable-next=contextmanager-generator-missing-cleanup
    with open_table(path, "wb", suffix) as file, io.TextIOWrapper(file, options.encoding, newline="") as text:
        for frame in frames:
            _append_csv(frame, text, options, has_header)
            has_header = False


def _append_csv(frame: pd.DataFrame, text: io.TextIOWrapper, options: ReadOptions, has_header: bool) -> None:
    try:
        frame.to_csv(text, sep=options.delimiter, decimal=options.decimal, header=has_header, index=False, lineterminator="\n")
    except UnicodeEncodeError as error:
        raise HousingError(f"The table cannot be written in {options.encoding}: {error}") from error


def write_parquet(frames: Iterable[pd.DataFrame], file: Path | IO[bytes], metadata: Mapping[str, str] | None = None) -> None:
    """Write frames as one Parquet file, with further metadata. Only the rows of one row group are in memory."""
    import pyarrow  # pylint: disable=import-outside-toplevel  # 0.2 s that other tables do not need
    from pyarrow import parquet  # pylint: disable=import-outside-toplevel

    row_groups = _row_groups(pyarrow.Table.from_pandas(frame, preserve_index=False) for frame in frames)
    first = next(row_groups)
    schema = first.schema.with_metadata({**(first.schema.metadata or {}), **(metadata or {})})
    with parquet.ParquetWriter(file, schema) as writer:
        writer.write_table(first.cast(schema))
        for rows in row_groups:
            writer.write_table(rows.cast(schema))


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """Concatenate Arrow tables until they have enough rows for a row group. Small row groups make a file larger by half."""
    import pyarrow  # pylint: disable=import-outside-toplevel

    group: list[Any] = []
    for table in tables:
        group.append(table)
        if sum(part.num_rows for part in group) >= ROW_GROUP_ROWS:
            yield pyarrow.concat_tables(group)
            group = []
    if group:
        yield pyarrow.concat_tables(group)
