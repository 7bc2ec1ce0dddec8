"""The joiner's database: which feedback is read, which labels are pending, which rows are counted, and the totals.

It holds nothing that the log files do not: a damaged database is set aside, and a new one is built from them.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from housing.feedback import local_database
from housing.feedback.error_totals import DUPLICATES, MALFORMED, MAX_SUM, UNMATCHED, ErrorTotals
from housing.feedback.label import Label
from housing.feedback.local_database import LocalDatabase

DATABASE_FILE = "feedback.db"  # in the log directory
SCHEMA_VERSION = 3

ADAPTATIONS = "CREATE TABLE adaptations (version TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;"
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
{ADAPTATIONS}
INSERT INTO counts VALUES ('{DUPLICATES}', 0), ('{UNMATCHED}', 0), ('{MALFORMED}', 0);
PRAGMA user_version = {SCHEMA_VERSION};
"""  # nosec B608  # all values are constants of this package
UPGRADE = f"BEGIN; {ADAPTATIONS} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"  # of version 2
TABLES = ["adaptations", "counted", "counts", "offsets", "pending", "totals"]


def set_aside_if_damaged(directory: Path) -> Path | None:
    """Rename the database of a directory if it is damaged, and return its new path.

    Raises OSError or sqlite3.Error if it cannot be read at present, for example while the disk is full.
    """
    path = directory / DATABASE_FILE
    if path.exists():
        _upgrade(path)
    if not path.exists() or local_database.is_intact(path, SCHEMA_VERSION, TABLES, _has_all_counts):
        return None
    return local_database.set_aside(path)


def _upgrade(path: Path) -> None:
    """Add what version 2 did not have. A damaged file stays as it is."""
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError):  # the check names the reason
        if connection.execute("PRAGMA user_version").fetchone() == (2,):
            connection.executescript(UPGRADE)


def _has_all_counts(connection: sqlite3.Connection) -> bool:
    names = connection.execute("SELECT name FROM counts ORDER BY name").fetchall()
    return names == [(DUPLICATES,), (MALFORMED,), (UNMATCHED,)]


def read_counts(directory: Path) -> dict[str, int]:
    """Return the numbers of duplicate labels, unmatched labels and malformed lines since the database began.

    Raises sqlite3.Error if it cannot be read. Without a database there are none.
    """
    path = directory / DATABASE_FILE
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT name, value FROM counts"))


class FeedbackDatabase(LocalDatabase):
    """The database of a log directory."""

    def __init__(self, directory: Path) -> None:
        """Open or create the database. Raises sqlite3.Error if that fails."""
        super().__init__(directory / DATABASE_FILE, SCHEMA)

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

    def adaptations(self) -> dict[str, dict[str, Any]]:
        """Return the state of adaptive intervals by version."""
        return {
            version: json.loads(state) for version, state in self._connection.execute("SELECT version, state FROM adaptations")
        }

    def set_adaptation(self, version: str, state: Mapping[str, Any]) -> None:
        """Replace the state of a version's adaptive intervals."""
        self._connection.execute("INSERT OR REPLACE INTO adaptations VALUES (?, ?)", (version, json.dumps(state)))

    def remove_adaptation(self, version: str) -> None:
        """Forget a version's adaptive intervals."""
        self._connection.execute("DELETE FROM adaptations WHERE version = ?", (version,))
