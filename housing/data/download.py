"""Download of a table: from DVC's cache or remote, or else from its public source."""

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from housing.core.errors import DataVersionError, DownloadError, HousingError
from housing.core.files import atomic_write, sha256
from housing.core.printable import show
from housing.data import dvc
from housing.data.reading import count_rows
from housing.data.settings import TableSettings, TableSource

if TYPE_CHECKING:
    import pandas as pd

EX_UNAVAILABLE = 69  # exit code of sysexits.h for a service that is unavailable


@dataclass(frozen=True)
class FetchedTable:
    """A table's file.

    Attributes
    ----------
    state
        Where the file comes from, or "is up to date".
    fingerprint
        Its SHA-256 checksum.
    published_fingerprint
        The checksum that the table's YAML pins, or None.
    """

    table: str
    path: Path
    state: str
    rows: int
    fingerprint: str
    published_fingerprint: str | None

    def __str__(self) -> str:
        note = ""
        if self.published_fingerprint is not None:
            is_published = self.fingerprint == self.published_fingerprint
            note = "  (as published)" if is_published else f"  (modified; published: {self.published_fingerprint})"
        return f"table {self.table}: {self.path} {self.state}\nrows {self.rows:,}\nfingerprint {self.fingerprint}{note}"


def fetch_table(table: TableSettings) -> FetchedTable:
    """Download the table unless its file is up to date, and return its location, rows and fingerprint.

    A table under DVC is pulled. If DVC does not have it, the public source is used, provided that it serves the same version.
    The file is written atomically.

    Raises
    ------
    HousingError
        If the table has no source, or its source serves another table than the pinned one.
    DataVersionError
        If the file has changes that DVC does not know.
    DownloadError
        If the public source is unavailable or serves another version.
    """
    path = table.path
    version = dvc.tracked_version(path)
    if path.is_file() and (version is None or version.matches(path)):
        return describe_file(table, "is up to date")
    if version is not None and _pull_with_dvc(table):
        return describe_file(table, "pulled by DVC")
    if table.source is None:
        raise HousingError(f"{path} does not exist, and table {table.name} has no source. Put the file there.")
    show(f"downloading table {table.name} from {table.source.name}")
    _write(_download(table, table.source), table, version)
    return describe_file(table, f"downloaded from {table.source.name}")


def _pull_with_dvc(table: TableSettings) -> bool:
    """Pull the version that git names. Return False if DVC does not have it but the public source may."""
    path = table.path
    show(f"pulling {path.name} with DVC")
    try:
        dvc.pull(path)
    except DataVersionError as error:
        if path.is_file():
            raise DataVersionError(
                f"{path} differs from the version in {dvc.dvc_file(path).name}, and DVC could not replace it.\n  {error}\n"
                f"  To keep the present table: dvc add {path}. To discard it: remove the file and fetch again."
            ) from error
        if table.source is None:
            raise
        show(f"DVC has no copy, using the public source: {error}")
        return False
    return True


def _download(table: TableSettings, source: TableSource) -> "pd.DataFrame":
    # pylint: disable=import-outside-toplevel  # slow, and not needed if the file is up to date
    import numpy as np
    import pandas as pd

    names = [column.name for column in table.schema.columns]
    try:
        content = source.download()
    except (OSError, HTTPException) as error:
        raise DownloadError(f"Could not download table {table.name}: {type(error).__name__}: {error}") from error
    if isinstance(content, pd.DataFrame):
        return content
    if hasattr(content, "target"):  # a Bunch of scikit-learn
        columns = [*content.feature_names, *content.target_names]
        return pd.DataFrame(np.column_stack([content.data, content.target]), columns=columns)[names]
    return pd.DataFrame(content, columns=names)


def _write(frame: "pd.DataFrame", table: TableSettings, version: dvc.Version | None) -> None:
    # pylint: disable=import-outside-toplevel  # they import pandas
    from housing.data.table import validate_frame
    from housing.data.writing import write_frames

    validate_frame(table.schema, frame, digest="")
    with atomic_write(table.path) as partial:
        write_frames([frame], partial, table.read, table.path.suffix)
        fingerprint = sha256(partial)
        if table.fingerprint is not None and fingerprint != table.fingerprint:
            raise HousingError(
                f"Table {table.name}: the source serves a table with fingerprint {fingerprint}, expected {table.fingerprint}."
                f" If the new table is right, change fingerprint in conf/data/{table.name}.yaml."
            )
        if version is not None and not version.matches(partial):
            pointer = dvc.dvc_file(table.path).name
            raise DownloadError(
                f"Could not download table {table.name}: the public source serves another version than {pointer} names"
            )


def describe_file(table: TableSettings, state: str) -> FetchedTable:
    """Return the table's location, row count and fingerprint."""
    return FetchedTable(table.name, table.path, state, count_rows(table.path, table.read), sha256(table.path), table.fingerprint)
