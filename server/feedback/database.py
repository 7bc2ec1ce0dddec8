"""The joiner's database: which feedback is read, which labels are pending, which rows are counted, and the totals."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from server.feedback.error_totals import ErrorTotals

DATABASE_FILE = "feedback.db"  # in the log directory
DUPLICATES, UNMATCHED = "duplicates", "unmatched"  # rows of the table counts

SCHEMA = """
CREATE TABLE offsets (file TEXT PRIMARY KEY, bytes_read INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pending (request_id TEXT NOT NULL, row INTEGER NOT NULL, value REAL NOT NULL, time REAL NOT NULL);
CREATE TABLE counted (
    request_id TEXT NOT NULL, row INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY (request_id, row)
) WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (
    rank INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE, matched INTEGER NOT NULL, sum_abs_error REAL NOT NULL,
    sum_squared_error REAL NOT NULL, intervals INTEGER NOT NULL, covered INTEGER NOT NULL
);
INSERT INTO counts VALUES ('duplicates', 0), ('unmatched', 0);
PRAGMA user_version = 1;
"""


@dataclass(frozen=True)
class Label:
    """The true value of a row of a request, and when it arrived (unix seconds)."""

    request_id: str
    row: int
    value: float
    time: float


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
        """Return the numbers of duplicate and of unmatched labels."""
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
