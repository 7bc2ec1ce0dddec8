"""The joiner's database: which feedback is read, which labels are pending, which rows are counted, and the totals.

It holds nothing that the log files do not: a damaged database is set aside, and a new one is built from them.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path

from housing.feedback.error_totals import DUPLICATES, MALFORMED, MAX_SUM, UNMATCHED, ErrorTotals
from housing.feedback.label import Label

DATABASE_FILE = "feedback.db"  # in the log directory
DAMAGED = "damaged"  # followed by the time, in the name of a database that was set aside
SCHEMA_VERSION = 2

# Types and checks let an integrity check find damage that leaves the file readable.
SCHEMA = f"""
CREATE TABLE offsets (file TEXT PRIMARY KEY, bytes_read INTEGER NOT NULL CHECK (bytes_read >= 0)) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
    request_id TEXT NOT NULL, row INTEGER NOT NULL CHECK (row >= 0), value REAL NOT NULL, time REAL NOT NULL
) STRICT;
CREATE TABLE counted (
    request_id TEXT NOT NULL, row INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY (request_id, row)
) STRICT, WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL CHECK (value >= 0)) STRICT, WITHOUT ROWID;
CREATE TABLE totals (
    rank INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE, matched INTEGER NOT NULL CHECK (matched >= 0),
    sum_abs_error REAL NOT NULL CHECK (sum_abs_error BETWEEN 0 AND {MAX_SUM}),
    sum_squared_error REAL NOT NULL CHECK (sum_squared_error BETWEEN 0 AND {MAX_SUM}),
    intervals INTEGER NOT NULL CHECK (intervals >= 0), covered INTEGER NOT NULL CHECK (covered >= 0)
) STRICT;
INSERT INTO counts VALUES ('{DUPLICATES}', 0), ('{UNMATCHED}', 0), ('{MALFORMED}', 0);
PRAGMA user_version = {SCHEMA_VERSION};
"""  # nosec B608  # all values are constants of this package
TABLES = [("counted",), ("counts",), ("offsets",), ("pending",), ("totals",)]


def set_aside_if_damaged(directory: Path) -> Path | None:
    """Rename the database of a directory if it is damaged, and return its new path.

    Raises OSError or sqlite3.Error if it cannot be read at present, for example while the disk is full.
    """
    path = directory / DATABASE_FILE
    if not path.exists() or _is_intact(path):
        return None
    target = path.with_name(f"{DATABASE_FILE}.{DAMAGED}-{time.time_ns()}")
    for suffix in ("-wal", "-shm"):  # of this database: SQLite would apply them to the new one
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return path.rename(target)


def count_damaged(directory: Path) -> int:
    """Return the number of databases that were set aside and still exist."""
    return sum(not path.name.endswith(("-wal", "-shm")) for path in directory.glob(f"{DATABASE_FILE}.{DAMAGED}-*"))


def is_transient(error: sqlite3.Error) -> bool:
    """Return whether an error comes from the disk, memory or another process, and not from the file's content."""
    codes = ("BUSY", "LOCKED", "NOMEM", "READONLY", "INTERRUPT", "IOERR", "FULL", "CANTOPEN", "PERM", "PROTOCOL")
    code = getattr(error, "sqlite_errorcode", None)  # of this module's own errors, such as invalid UTF-8, there is none
    return code is not None and code & 0xFF in {getattr(sqlite3, f"SQLITE_{name}") for name in codes}


def _is_intact(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
            if not tables and version == 0:
                return True  # just created
            names = connection.execute("SELECT name FROM counts ORDER BY name").fetchall()
            is_complete = (version, tables) == (SCHEMA_VERSION, TABLES)
            is_complete &= names == [(DUPLICATES,), (MALFORMED,), (UNMATCHED,)]
            return is_complete and connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError as error:
        if is_transient(error):
            raise
        return False


class FeedbackDatabase:
    """A SQLite file with write-ahead log. A transaction that is cut off, by `kill -9` or a power failure, changes nothing."""

    def __init__(self, directory: Path) -> None:
        """Open or create the database. Raises sqlite3.Error if that fails."""
        self._connection = sqlite3.connect(directory / DATABASE_FILE, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk: a label is never counted twice
        if self._connection.execute("PRAGMA user_version").fetchone() == (0,):
            self._connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply all changes of the block, or none if it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def offsets(self) -> dict[str, int]:
        """Return how many bytes of each feedback file are read."""
        return dict(self._connection.execute("SELECT file, bytes_read FROM offsets"))

    def set_offsets(self, offsets: Mapping[str, int]) -> None:
        """Replace the offsets of all feedback files."""
        self._connection.execute("DELETE FROM offsets")
        self._connection.executemany("INSERT INTO offsets VALUES (?, ?)", offsets.items())

    def pending(self) -> list[Label]:
        """Return the labels whose prediction was not found yet, oldest first."""
        rows = self._connection.execute("SELECT request_id, row, value, time FROM pending ORDER BY time, rowid")
        return [Label(*row) for row in rows]

    def set_pending(self, labels: Iterable[Label]) -> None:
        """Replace the pending labels."""
        self._connection.execute("DELETE FROM pending")
        self._connection.executemany("INSERT INTO pending VALUES (?, ?, ?, ?)", map(astuple, labels))

    def count_once(self, request_id: str, row: int, file: str) -> bool:
        """Mark a row of a prediction-log file as counted; return False if it already was."""
        cursor = self._connection.execute("INSERT OR IGNORE INTO counted VALUES (?, ?, ?)", (request_id, row, file))
        return cursor.rowcount == 1

    def forget_files_except(self, files: Collection[str]) -> None:
        """Remove the marks of prediction-log files that no longer exist: nothing of them can be counted again."""
        known = self._connection.execute("SELECT DISTINCT file FROM counted").fetchall()
        self._connection.executemany("DELETE FROM counted WHERE file = ?", [(name,) for (name,) in known if name not in files])

    def counts(self) -> dict[str, int]:
        """Return the numbers of duplicate labels, unmatched labels and malformed lines."""
        return dict(self._connection.execute("SELECT name, value FROM counts"))

    def increase(self, name: str, by: int) -> None:
        """Add to one of the counts."""
        self._connection.execute("UPDATE counts SET value = value + ? WHERE name = ?", (by, name))

    def totals(self) -> dict[str, ErrorTotals]:
        """Return the totals by version, the most recent version last."""
        rows = self._connection.execute(
            "SELECT version, matched, sum_abs_error, sum_squared_error, intervals, covered FROM totals ORDER BY rank"
        )
        return {version: ErrorTotals(*sums) for version, *sums in rows}

    def set_totals(self, totals: Mapping[str, ErrorTotals]) -> None:
        """Replace the totals by version."""
        self._connection.execute("DELETE FROM totals")
        rows = [(rank, version, *astuple(sums)) for rank, (version, sums) in enumerate(totals.items())]
        self._connection.executemany("INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
