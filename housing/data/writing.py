"""Writing of tables: CSV, compressed or not, or Parquet, by the ending of the file."""

from pathlib import Path

import pandas as pd

from housing.core.errors import HousingError
from housing.data.read_options import ReadOptions
from housing.data.reading import open_table
from housing.data.typed_files import EXCEL, PARQUET


def write_frame(frame: pd.DataFrame, path: Path, options: ReadOptions, suffix: str) -> None:
    """Write a frame so that `options` read it.

    Parameters
    ----------
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
        frame.to_parquet(path, index=False)
        return
    header = options.header != "none"
    try:
        with open_table(path, "wb", suffix) as stream:
            frame.to_csv(
                stream,
                sep=options.delimiter,
                decimal=options.decimal,
                encoding=options.encoding,
                header=header,
                index=False,
                lineterminator="\n",
            )
    except UnicodeEncodeError as error:
        raise HousingError(f"The table cannot be written in {options.encoding}: {error}") from error
