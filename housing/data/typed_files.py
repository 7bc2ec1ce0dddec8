"""Typed table files, Parquet and Excel: their values as cells of text, so that every file is read by the same rules."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from housing.core.errors import HousingError, TableError
from housing.data.read_options import ReadOptions

PARQUET, EXCEL = ".parquet", ".xlsx"
BATCH_ROWS = 1 << 13  # as Python objects and text, 20 columns of these rows take about 20 MB

NumberedRow = tuple[int, list[str]]  # the number of the row, the header being row 1, and its cells


def read_parquet(path: Path, options: ReadOptions) -> Iterator[NumberedRow]:
    """Yield the header and the rows of a Parquet file, a batch at a time.

    Raises
    ------
    TableError
        If the file is no Parquet.
    """
    import pyarrow  # pylint: disable=import-outside-toplevel  # 0.2 s that other tables do not need
    from pyarrow import parquet  # pylint: disable=import-outside-toplevel

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:  # by default all row groups that were read stay in memory
            yield 1, list(file.schema_arrow.names)
            number = 2
            for batch in file.iter_batches(BATCH_ROWS):
                columns = [[options.format(value) for value in column.to_pylist()] for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    yield number, list(cells)
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}", []) from error


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file. Raises TableError if it is no Parquet."""
    import pyarrow  # pylint: disable=import-outside-toplevel
    from pyarrow import parquet  # pylint: disable=import-outside-toplevel

    try:
        return list(parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}", []) from error


def count_parquet_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file."""
    from pyarrow import parquet  # pylint: disable=import-outside-toplevel

    return int(parquet.read_metadata(path).num_rows)


def read_excel(path: Path, options: ReadOptions) -> Iterator[NumberedRow]:
    """Yield the header and the rows of a sheet, without the empty rows and columns that Excel keeps beside a table.

    Raises
    ------
    HousingError
        If openpyxl is not installed.
    TableError
        If the file is no Excel file, or has no such sheet.
    """
    with _open_book(path) as book:
        if options.sheet is not None and options.sheet not in book.sheetnames:
            raise TableError(f"{path} has no sheet {options.sheet!r}. Sheets: {', '.join(book.sheetnames)}. Set read.sheet.", [])
        sheet, width = book[options.sheet or book.sheetnames[0]], 0
        for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
            n_cells = max((column for column, value in enumerate(values, start=1) if value is not None), default=0)
            if n_cells and number > options.skip_lines:
                width = width or n_cells
                yield number, [options.format(value) for value in values[: max(width, n_cells)]]


def sheet_names(path: Path) -> list[str]:
    """Return the names of the sheets of an Excel file. Raises as `read_excel`."""
    with _open_book(path) as book:
        return list(book.sheetnames)


@contextmanager
def _open_book(path: Path) -> Iterator[Any]:
    try:
        import openpyxl  # pylint: disable=import-outside-toplevel  # an extra
        from openpyxl.utils.exceptions import InvalidFileException  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise HousingError(
            f"{path}: Excel files need the package openpyxl. Install it: pip install 'housing[excel]'. Or save the sheet as CSV."
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, BadZipFile, KeyError, ValueError, OSError) as error:
        raise TableError(f"{path} cannot be read as Excel: {error}", []) from error
    try:
        yield book
    finally:
        book.close()
