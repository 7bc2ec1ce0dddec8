"""Ingestion: validate new rows, append them to the table once, and save the table as a new version."""

import csv
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from omegaconf import DictConfig

from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError, DataVersionError, HousingError, TableError
from housing.core.files import atomic_write, sha256
from housing.core.locks import LockTimeout, file_lock
from housing.core.printable import show
from housing.data import dvc
from housing.data.dvc import Version
from housing.data.reading import Cells, append_rows, base_name, format_csv, open_table, read_rows
from housing.data.settings import TableSettings
from housing.data.table import Table, read_frame, validate_frame
from housing.data.typed_files import EXCEL, PARQUET
from housing.ingestion import printing
from housing.ingestion.drift import Drift, DriftSettings, measure_drift
from housing.ingestion.feedback_rows import JoinedRow, parse_joined_rows
from housing.ingestion.new_rows import BadRow, NewRows
from housing.ingestion.table_index import TableIndex, hash_keys, hash_rows

QUARANTINE_HEADER = ("file", "line", "reason", "row")


@dataclass(frozen=True)
class IngestionSettings:
    """Settings of `conf/ingest.yaml`.

    Attributes
    ----------
    file
        The file with new rows, or None to take the feedback of a server.
    feedback
        The server's log folder.
    quarantine
        Whether rows that do not fit are set aside. Otherwise a single one keeps all rows out.
    """

    table: TableSettings
    file: Path | None
    feedback: Path
    quarantine: bool = False
    lock_timeout_seconds: float = 60
    drift: DriftSettings = field(default_factory=DriftSettings)

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of `housing.ingest`.

        Raises
        ------
        ConfigError
            If `source` and `file` contradict each other.
        """
        if cfg.source not in ("file", "feedback"):
            raise ConfigError(f"source must be file or feedback (got {cfg.source!r})")
        if cfg.source == "file" and cfg.file is None:
            raise ConfigError("source=file needs a file: file=new.csv. To take the server's feedback: source=feedback")
        if cfg.source == "feedback" and cfg.file is not None:
            raise ConfigError(f"source=feedback takes no file (got file={cfg.file})")
        return cls(
            table=TableSettings.from_config(cfg.data),
            file=None if cfg.file is None else Path(cfg.file),
            feedback=Path(cfg.feedback),
            quarantine=cfg.quarantine,
            lock_timeout_seconds=cfg.lock_timeout_seconds,
            drift=DriftSettings.from_config(cfg.drift),
        )


@dataclass(frozen=True)
class IngestedRows:
    """The new rows of an ingestion.

    Attributes
    ----------
    origin
        The file or the log folder that they come from.
    table
        The file of the table.
    read
        Rows that were read.
    added
        Rows that were appended to the table.
    duplicates
        Rows that the table had already, or that occur twice.
    rejected
        Rows that do not fit the table. They are set aside.
    drift
        The drift of each column, if rows were added.
    """

    origin: Path
    table: Path
    read: int
    added: int
    duplicates: int
    rejected: int
    drift: list[Drift]


def ingest(settings: IngestionSettings, read_joined_rows: Callable[[Path], Iterable[JoinedRow]]) -> IngestedRows:
    """Append new rows to the table atomically, save it as a version if it is under DVC, and return how many were added.

    Prints rejected rows, duplicates, and the drift of the added rows. `read_joined_rows` reads a server's log folder.

    Raises
    ------
    TableError
        If a row does not fit and `quarantine` is off.
    DataVersionError
        If the table is not the version that git names.
    """
    name, path = settings.table.name, settings.table.path
    _require_appendable(settings.table)
    with _exclusive(path, settings.lock_timeout_seconds):
        index, version = TableIndex.open(settings.table), _expected_version(path, name)
        new_rows, origin = _read_new_rows(settings, read_joined_rows)
        show(f"{origin}: {len(new_rows):,} rows, {len(new_rows.table):,} fit table {name}")
        _quarantine(new_rows.bad_rows, origin, path, settings.quarantine)
        indices = _find_unknown_rows(index, new_rows.table)
        added = new_rows.table.take(indices)
        _report_duplicates(index, len(new_rows.table), added)
        drifts: list[Drift] = []
        if len(added):
            drifts = measure_drift(index.reference, index.encode(added), settings.drift.significance)
            printing.show_drift(drifts, len(added), index.n_rows, settings.drift)
            if version is not None and version.matches(path):
                dvc.add(path)  # a table from its public source is not in DVC's cache yet
            if version is not None and path.is_symlink():  # cache.type=symlink: the rows would be added to DVC's cache
                dvc.unprotect(path)
            _append(settings.table, new_rows.header, [new_rows.cells[row] for row in indices], added)
            index.add(added, sha256(path))
        show(f"{len(added):,} {'row' if len(added) == 1 else 'rows'} added to {path}")
        if version is not None and not version.matches(path):
            _save_version(path, name)
        elif version is None and len(added):
            show(f"The table is not under DVC. To keep its versions: dvc add {shlex.quote(str(path))}")
    n_fitting = len(new_rows.table)
    return IngestedRows(origin, path, len(new_rows), len(added), n_fitting - len(added), len(new_rows.bad_rows), drifts)


def _require_appendable(table: TableSettings) -> None:
    if table.path.suffix.lower() in (PARQUET, EXCEL):
        raise ConfigError(
            f"Rows can be appended to a CSV file only (got data.path={table.path})."
            " Append them to the table that it was made from."
        )
    if table.read.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        raise ConfigError(
            f"Rows cannot be appended in {table.read.encoding} (data.path={table.path}). Convert the table to UTF-8."
        )


def _read_new_rows(settings: IngestionSettings, read_joined_rows: Callable[[Path], Iterable[JoinedRow]]) -> tuple[NewRows, Path]:
    """Return the new rows, and the file or folder that they come from."""
    schema, options, folder = settings.table.schema, settings.table.read, settings.feedback
    if settings.file is not None:
        return NewRows.read(settings.file, schema, options), settings.file
    return parse_joined_rows(read_joined_rows(folder), schema, options, folder), folder


def _expected_version(path: Path, table: str) -> Version | None:
    """Return the version that git names. The table must be this version, possibly with rows that a killed ingest appended."""
    version = dvc.tracked_version(path)
    if version is not None and not version.is_prefix_of(path):
        raise DataVersionError(
            f"{path} differs from the version in {dvc.dvc_file(path).name}."
            f" To get that version: {next_command('fetch', table=table)}\n"
            f"To keep the present table: dvc add {path}"
        )
    return version


def _save_version(path: Path, table: str) -> None:
    """Save the table as a version, and print the commands that commit it."""
    dvc.add(path)
    pointer = shlex.quote(str(dvc.dvc_file(path)))
    show("The table is saved in DVC's cache. To commit the new version:")
    for line in (f"dvc push {pointer}", f"git add {pointer}", f"git commit -m {shlex.quote(f'{table}: new rows')}", "git push"):
        show(f"  {line}")


@contextmanager
def _exclusive(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Lock the table against other ingests."""
    try:
        with file_lock(path.with_name(f".{path.name}.lock"), timeout_seconds):
            yield
    except LockTimeout as error:
        raise HousingError(
            f"{path} is locked: another process has been adding rows for {timeout_seconds} s. Try again when it has finished."
        ) from error


def _quarantine(bad_rows: Sequence[BadRow], origin: Path, path: Path, quarantine: bool) -> None:
    """Print the rows that do not fit, and set them aside in a file next to the table."""
    printing.show_bad_rows(bad_rows, origin)
    if not bad_rows:
        return
    if not quarantine:
        raise TableError(
            f"{len(bad_rows)} rows of {origin} do not fit, so no row was added. Correct them, or set them aside: quarantine=true",
            [],
        )
    quarantine_file = path.with_name(f"{base_name(path)}.quarantine.csv")
    rows = [(str(origin), str(row.line), row.reason, format_csv([row.cells]).rstrip("\n")) for row in bad_rows]
    unique_rows = dict.fromkeys([*_read_quarantine(quarantine_file), *rows])  # ingesting a file again adds no row twice
    with atomic_write(quarantine_file) as partial:
        partial.write_text(format_csv([QUARANTINE_HEADER, *unique_rows]), encoding="utf-8")
    show(f"{len(bad_rows):,} rows that do not fit are in {quarantine_file}")


def _read_quarantine(path: Path) -> list[tuple[str, ...]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def _find_unknown_rows(index: TableIndex, new: Table) -> list[int]:
    """Return the indices of the new rows that are not in the table yet, each distinct row once."""
    hashes = hash_rows(new)
    is_unknown = ~index.find_rows(hashes)
    is_unknown[np.delete(np.arange(len(hashes)), np.unique(hashes, return_index=True)[1])] = False
    return np.flatnonzero(is_unknown).tolist()


def _report_duplicates(index: TableIndex, n_new: int, added: Table) -> None:
    """Print the number of duplicates, and of rows that share their key with a present row."""
    if len(added) < n_new:
        show(f"{n_new - len(added):,} duplicates skipped")
    n_conflicts = int(index.find_keys(hash_keys(added)).sum())
    if n_conflicts:
        show(f"{n_conflicts:,} new rows have the key of a present row but other values; the table keeps both")


def _append(settings: TableSettings, header: Sequence[str], rows: Sequence[Cells], added: Table) -> None:
    """Append rows to the CSV file atomically, in the column order of the file. `added` has their values."""
    path, target = settings.path, settings.path.resolve()
    for stale_file in target.parent.glob(f".{target.name}-*"):  # left by a process that was killed
        stale_file.unlink()
    _, present_header = next(read_rows(path, settings.read))
    order = [header.index(name) if name in header else -1 for name in present_header]  # -1: an ignored column is left empty
    cells = [[[*row, ""][index] for index in order] for row in rows]
    with atomic_write(path) as partial:
        _require_readable(settings, present_header, cells, added, partial)
        shutil.copyfile(path, partial)
        append_rows(partial, cells, settings.read, path.suffix)


def _require_readable(settings: TableSettings, header: Cells, rows: Sequence[Cells], added: Table, partial: Path) -> None:
    """Write the rows as a table of their own to `partial`, and require that it is read as the rows that were accepted.

    Raises
    ------
    TableError
        If it is not, for example because the first cell of a row is among `read.skip_rows`.
    """
    options, suffix = replace(settings.read, skip_lines=0), settings.path.suffix
    with open_table(partial, "wb", suffix) as file:
        file.write(format_csv([] if options.header == "none" else [header], options.delimiter).encode(options.encoding))
    append_rows(partial, rows, options, suffix)
    frame = read_frame(partial, settings.schema, options, suffix)
    is_same = len(frame) == len(rows) and np.array_equal(
        hash_rows(validate_frame(settings.schema, frame, digest="")), hash_rows(added)
    )
    if not is_same:
        raise TableError(f"The new rows would be read as other rows from {settings.path}. Check read: of the table's YAML.", [])
