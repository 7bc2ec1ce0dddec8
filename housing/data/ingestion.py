"""TODO docstring."""

import csv
import io
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from housing.core.errors import ConfigError, DataVersionError, HousingError, TableError
from housing.core.files import atomic_write
from housing.data import dvc, feedback_rows, printing
from housing.data import table as data
from housing.data.drift import measure_drift
from housing.data.dvc import Version
from housing.data.new_rows import BadRow, NewRows, RowCells
from housing.data.table import Table
from housing.schema.table_schema import Schema

QUARANTINE_HEADER = ("file", "line", "reason", "row")

ReadJoinedRows = Callable[[Path], Iterable[Mapping[str, Any]]]  # of the log folder of a server


def ingest(cfg: DictConfig, read_joined_rows: ReadJoinedRows) -> int:
    """Add the rows of `file`, or of feedback, whole or not at all, and save the table as a version where it is under DVC.

    Says which rows do not fit, which are there already, and how the others differ from the present ones; gives the
    number of rows that were added. Raises TableError where a row does not fit and `quarantine` does not take it,
    DataVersionError where the table is another one than git names.
    """
    path, (source, read) = Path(cfg.data.path), _select_reader(cfg, read_joined_rows)
    with _exclusive(path, cfg.lock_timeout):
        present, version = data.load(cfg.data), _expected_version(path)
        new = read(source, present.schema)
        print(
            f"{source}: {len(new.table) + len(new.bad_rows):,} rows, of which {len(new.table):,} fit table {cfg.data.name}",
            flush=True,
        )
        _quarantine(new.bad_rows, source, path, cfg.quarantine)
        new_indices = _new_rows(present, new.table)
        _report_duplicates(present, new.table, new_indices)
        if new_indices:
            added = new.table.take(new_indices)
            printing.show_drift(measure_drift(present, added, cfg.drift.significance), len(added), len(present), cfg)
            if version is not None and version.matches(path):
                dvc.add(path)  # what came from the public source is not in the cache yet
            _append(path, present.schema, new.header, [new.cells[row] for row in new_indices])
        print(f"{len(new_indices):,} {'row' if len(new_indices) == 1 else 'rows'} added to {path}", flush=True)
        if version is not None and not version.matches(path):
            _save_version(path, cfg.data.name)
        elif version is None and new_indices:
            print(f"the table is not under DVC; to keep its versions: dvc add {shlex.quote(str(path))}")
    return len(new_indices)


def _select_reader(cfg: DictConfig, read_joined_rows: ReadJoinedRows) -> tuple[Path, Callable[[Path, Schema], NewRows]]:
    """Give where the new rows are, and what reads them there."""
    if cfg.source not in ("file", "feedback"):
        raise ConfigError(f"source is {cfg.source!r}; allowed: file, feedback")
    if (cfg.source == "file") != (cfg.file is not None):
        raise ConfigError(f"file is {cfg.file} and source={cfg.source}; allowed: file=new.csv, or source=feedback without a file")
    if cfg.source == "file":
        return Path(cfg.file), NewRows.read
    return Path(cfg.feedback), lambda folder, schema: feedback_rows.to_new_rows(read_joined_rows(folder), folder, schema)


def _expected_version(path: Path) -> Version | None:
    """Give the version that git names, which the table must be, if need be with rows behind it that a killed ingest added."""
    version = dvc.tracked_version(path)
    if version is not None and not version.is_prefix_of(path):
        raise DataVersionError(
            f"{path} is not the version that {dvc.dvc_file(path).name} names. To get that one: python -m housing.fetch."
            f" To keep the present one: dvc add {path}"
        )
    return version


def _save_version(path: Path, table: str) -> None:
    """Save the table as a version, and say how that gets into git."""
    dvc.add(path)
    pointer = shlex.quote(str(dvc.dvc_file(path)))
    print("DVC has the new version. To commit it:")
    for line in (f"dvc push {pointer}", f"git add {pointer}", f"git commit -m {shlex.quote(f'{table}: new rows')}", "git push"):
        print(f"  {line}")


@contextmanager
def _exclusive(path: Path, lock_timeout: float) -> Iterator[None]:
    """Keep others from adding rows to a table. Raises HousingError where one of them takes longer than `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=lock_timeout):
            yield
    except Timeout as error:
        raise HousingError(
            f"{path}: another process has been adding rows for {lock_timeout} s; try again when it is through"
        ) from error


def _quarantine(bad_rows: Sequence[BadRow], file: Path, path: Path, quarantine: bool) -> None:
    """Show the rows that do not fit, and put them into quarantine. Raises TableError where that is not wanted."""
    printing.show_bad_rows(bad_rows, file)
    if not bad_rows:
        return
    if not quarantine:
        raise TableError(
            f"{len(bad_rows)} rows of {file} do not fit, so nothing is added; quarantine=true keeps them apart and adds the others",
            [],
        )
    quarantine_file = path.with_name(f"{path.stem}.quarantine.csv")
    rows = [(str(file), str(row.line), row.reason, _to_csv([row.cells]).rstrip("\n")) for row in bad_rows]
    quarantined = _read_quarantine(quarantine_file)
    with atomic_write(quarantine_file) as partial:
        everything = dict.fromkeys([*quarantined, *rows])  # the same rows again are there once
        partial.write_text(_to_csv([QUARANTINE_HEADER, *everything]), encoding="utf-8")
    print(f"{len(bad_rows):,} rows that do not fit are kept apart in {quarantine_file}")


def _read_quarantine(path: Path) -> list[tuple[str, ...]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def _to_csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _new_rows(present: Table, new: Table) -> list[int]:
    """Give the places of the new rows that are not in the table yet, each once."""
    seen = set(present.row_keys())
    indices = []
    for index, identity in enumerate(new.row_keys()):
        if identity not in seen:
            seen.add(identity)
            indices.append(index)
    return indices


def _report_duplicates(present: Table, new: Table, new_indices: Sequence[int]) -> None:
    """Say which rows are left out, and which contradict a present one."""
    if len(new_indices) < len(new):
        print(f"{len(new) - len(new_indices):,} of them are in the table already, or there twice, and are left out")
    keys = {row.tobytes() for row in present.key}
    n_conflicts = sum(new.key[place].tobytes() in keys for place in new_indices)
    if n_conflicts:
        print(f"{n_conflicts:,} of them have the key of a present row and differ elsewhere: both rows stay in the table")


def _append(path: Path, schema: Schema, header: Sequence[str], rows: Sequence[RowCells]) -> None:
    """Write the table with rows behind it, in the order of its own columns; whole, it takes the present one's place."""
    for stale_file in path.parent.glob(f".{path.name}-*"):  # of a process that was killed
        stale_file.unlink()
    with path.open(encoding="utf-8-sig", newline="") as file:
        order = [header.index(name) for name in next(csv.reader(file))]
    with atomic_write(path) as partial:
        shutil.copyfile(path, partial)
        with partial.open("rb+") as table:
            table.seek(-1, io.SEEK_END)
            ended = table.read(1) == b"\n"
            table.write(b"" if ended else b"\n")
            table.write(_to_csv([[row[place] for place in order] for row in rows]).encode())
        data.validate_frame(schema, data.read_csv(partial, schema), digest="")
