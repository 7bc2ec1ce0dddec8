"""TODO docstring."""

import csv
import io
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from housing.core.errors import ConfigError, HousingError, TableError, VersionError
from housing.core.files import written_whole
from housing.data import dvc, feedback_rows, printing
from housing.data import table as data
from housing.data.drift import drift
from housing.data.dvc import Version
from housing.data.new_rows import BadRow, Cells, NewRows
from housing.data.table import Table
from housing.schema.table_schema import Schema

QUARANTINED = ("file", "line", "reason", "row")


def ingest(cfg: DictConfig) -> int:
    """Add the rows of `file`, or of feedback, whole or not at all, and save the table as a version where it is under DVC.

    Says which rows do not fit, which are there already, and how the others differ from the present ones; gives the
    number of rows that were added. Raises TableError where a row does not fit and `quarantine` does not take it,
    VersionError where the table is another one than git names.
    """
    path, (source, read) = Path(cfg.data.path), _source(cfg)
    with _alone(path, cfg.patience):
        present, version = data.load(cfg.data), _version(path)
        new = read(source, present.schema)
        print(
            f"{source}: {len(new.table) + len(new.bad):,} rows, of which {len(new.table):,} fit table {cfg.data.name}", flush=True
        )
        _set_apart(new.bad, source, path, cfg.quarantine)
        fresh = _not_yet(present, new.table)
        _tell_known(present, new.table, fresh)
        if fresh:
            added = new.table.rows(fresh)
            printing.show_drift(drift(present, added, cfg.drift.risk), len(added), len(present), cfg)
            if version is not None and version.is_in(path):
                dvc.save(path)  # what came from the public source is not in the cache yet
            _append(path, present.schema, new.header, [new.cells[row] for row in fresh])
        print(f"{len(fresh):,} {'row' if len(fresh) == 1 else 'rows'} added to {path}", flush=True)
        if version is not None and not version.is_in(path):
            _save(path, cfg.data.name)
        elif version is None and fresh:
            print(f"the table is not under DVC; to keep its versions: dvc add {shlex.quote(str(path))}")
    return len(fresh)


def _source(cfg: DictConfig) -> tuple[Path, Callable[[Path, Schema], NewRows]]:
    """Give where the new rows are, and what reads them there."""
    if cfg["from"] not in ("file", "feedback"):
        raise ConfigError(f"from is {cfg['from']!r}; allowed: file, feedback")
    if (cfg["from"] == "file") != (cfg.file is not None):
        raise ConfigError(f"file is {cfg.file} and from={cfg['from']}; allowed: file=new.csv, or from=feedback without a file")
    return (Path(cfg.file), NewRows.read) if cfg["from"] == "file" else (Path(cfg.feedback), feedback_rows.read)


def _version(path: Path) -> Version | None:
    """Give the version that git names, which the table must be, if need be with rows behind it that a killed ingest added."""
    version = dvc.named(path)
    if version is not None and not version.begins(path):
        raise VersionError(
            f"{path} is not the version that {dvc.pointer(path).name} names. To get that one: python -m housing.fetch."
            f" To keep the present one: dvc add {path}"
        )
    return version


def _save(path: Path, table: str) -> None:
    """Save the table as a version, and say how that gets into git."""
    dvc.save(path)
    pointer = shlex.quote(str(dvc.pointer(path)))
    print("DVC has the new version. To commit it:")
    for line in (f"dvc push {pointer}", f"git add {pointer}", f"git commit -m {shlex.quote(f'{table}: new rows')}", "git push"):
        print(f"  {line}")


@contextmanager
def _alone(path: Path, patience: float) -> Iterator[None]:
    """Keep others from adding rows to a table. Raises HousingError where one of them takes longer than `patience` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=patience):
            yield
    except Timeout as error:
        raise HousingError(
            f"{path}: another process has been adding rows for {patience} s; try again when it is through"
        ) from error


def _set_apart(bad: Sequence[BadRow], file: Path, path: Path, quarantine: bool) -> None:
    """Show the rows that do not fit, and put them into quarantine. Raises TableError where that is not wanted."""
    printing.show_bad_rows(bad, file)
    if not bad:
        return
    if not quarantine:
        raise TableError(
            f"{len(bad)} rows of {file} do not fit, so nothing is added; quarantine=true keeps them apart and adds the others", []
        )
    place = path.with_name(f"{path.stem}.quarantine.csv")
    rows = [(str(file), str(row.line), row.reason, _as_csv([row.cells]).rstrip("\n")) for row in bad]
    kept = _quarantined(place)
    with written_whole(place) as partial:
        everything = dict.fromkeys([*kept, *rows])  # the same rows again are there once
        partial.write_text(_as_csv([QUARANTINED, *everything]), encoding="utf-8")
    print(f"{len(bad):,} rows that do not fit are kept apart in {place}")


def _quarantined(place: Path) -> list[tuple[str, ...]]:
    if not place.is_file():
        return []
    with place.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def _as_csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _not_yet(present: Table, new: Table) -> list[int]:
    """Give the places of the new rows that are not in the table yet, each once."""
    seen = set(present.identities())
    fresh = []
    for place, identity in enumerate(new.identities()):
        if identity not in seen:
            seen.add(identity)
            fresh.append(place)
    return fresh


def _tell_known(present: Table, new: Table, fresh: Sequence[int]) -> None:
    """Say which rows are left out, and which contradict a present one."""
    if len(fresh) < len(new):
        print(f"{len(new) - len(fresh):,} of them are in the table already, or there twice, and are left out")
    keys = {row.tobytes() for row in present.key}
    again = sum(new.key[place].tobytes() in keys for place in fresh)
    if again:
        print(f"{again:,} of them have the key of a present row and differ elsewhere: both rows stay in the table")


def _append(path: Path, schema: Schema, header: Sequence[str], rows: Sequence[Cells]) -> None:
    """Write the table with rows behind it, in the order of its own columns; whole, it takes the present one's place."""
    for left in path.parent.glob(f".{path.name}-*"):  # of a process that was killed
        left.unlink()
    with path.open(encoding="utf-8-sig", newline="") as file:
        order = [header.index(name) for name in next(csv.reader(file))]
    with written_whole(path) as partial:
        shutil.copyfile(path, partial)
        with partial.open("rb+") as table:
            table.seek(-1, io.SEEK_END)
            ended = table.read(1) == b"\n"
            table.write(b"" if ended else b"\n")
            table.write(_as_csv([[row[place] for place in order] for row in rows]).encode())
        data.check(schema, data.read_csv(partial, schema), digest="")
