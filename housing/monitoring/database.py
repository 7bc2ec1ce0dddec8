"""The monitor's database: what is read, rows of windows that are not full yet, results and states of analyses, and counters."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housing.feedback import local_database
from housing.feedback.local_database import LocalDatabase
from housing.monitoring.analysis import LoggedRow, State

DATABASE_FILE = "monitor.db"  # in the log directory
SCHEMA_VERSION = 2
HOUR_SECONDS = 3600
RECORDED = ""  # the counter of an hour without increases

INCREASES = """
CREATE TABLE increases (
    hour INTEGER NOT NULL, counter TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (hour, counter)
) STRICT, WITHOUT ROWID;
"""
SCHEMA = f"""
CREATE TABLE offsets (file TEXT PRIMARY KEY, bytes_read INTEGER NOT NULL CHECK (bytes_read >= 0)) STRICT, WITHOUT ROWID;
CREATE TABLE rows (key TEXT NOT NULL, time REAL NOT NULL, prediction REAL NOT NULL, record TEXT NOT NULL) STRICT;
CREATE INDEX rows_of_key ON rows (key);
CREATE TABLE results (
    analysis TEXT NOT NULL, key TEXT NOT NULL, first_time REAL NOT NULL, last_time REAL NOT NULL, n_rows INTEGER NOT NULL,
    result TEXT NOT NULL
) STRICT;
CREATE INDEX results_of_key ON results (analysis, key, last_time);
CREATE TABLE states (
    analysis TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (analysis, key)
) STRICT, WITHOUT ROWID;
{INCREASES}
CREATE TABLE counts (
    name TEXT NOT NULL, label TEXT NOT NULL, value INTEGER NOT NULL CHECK (value >= 0), PRIMARY KEY (name, label)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""
UPGRADE = f"BEGIN; {INCREASES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"  # of version 1
TABLES = ["counts", "increases", "offsets", "results", "rows", "states"]


@dataclass(frozen=True)
class Result:
    """The result of an analysis of one window. `key` is the version, after the model's name and a colon if it has one."""

    analysis: str
    key: str
    first_time: float
    last_time: float
    n_rows: int
    result: State


def set_aside_if_damaged(directory: Path) -> Path | None:
    """Rename the database of a log directory if it is damaged, and return its new path."""
    path = directory / DATABASE_FILE
    if path.exists():
        _upgrade(path)
    if not path.exists() or local_database.is_intact(path, SCHEMA_VERSION, TABLES, lambda connection: True):
        return None
    return local_database.set_aside(path)


def _upgrade(path: Path) -> None:
    """Add what version 1 did not have. A damaged file stays as it is."""
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError):  # the check names the reason
        if connection.execute("PRAGMA user_version").fetchone() == (1,):
            connection.executescript(UPGRADE)


def read_results(directory: Path, since: float = float("-inf"), until: float = float("inf")) -> list[Result]:
    """Return the results of windows that overlap a period, as `iter_results` yields them."""
    return list(iter_results(directory, since, until))


def iter_results(directory: Path, since: float = float("-inf"), until: float = float("inf")) -> Iterator[Result]:
    """Yield the results of windows that overlap a period (Unix seconds), oldest first, while a monitor may write more.

    Raises sqlite3.Error if the database cannot be read. Without a database there are none.
    """
    path = directory / DATABASE_FILE
    if not path.exists():
        return
    with closing(_connect(path)) as connection:
        query = "SELECT * FROM results WHERE last_time >= ? AND first_time < ? ORDER BY last_time, rowid"
        for analysis, key, first, last, n_rows, text in connection.execute(query, (since, until)):
            yield Result(analysis, key, first, last, n_rows, json.loads(text))


def read_increases(directory: Path, since: float, until: float) -> dict[int, dict[str, float]]:
    """Return the increases of counters by hour, for hours that overlap a period (Unix seconds) and were recorded.

    Raises sqlite3.Error if the database cannot be read. Without a database there are none.
    """
    by_hour: dict[int, dict[str, float]] = {}
    path = directory / DATABASE_FILE
    if not path.exists():
        return by_hour
    with closing(_connect(path)) as connection:
        query = "SELECT * FROM increases WHERE hour > ? AND hour < ? ORDER BY hour"
        for hour, counter, value in connection.execute(query, (since - HOUR_SECONDS, until)):
            by_hour.setdefault(hour, {})
            if counter != RECORDED:
                by_hour[hour][counter] = value
    return by_hour


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection for reading, while a monitor may write."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


class MonitorDatabase(LocalDatabase):
    """The database of a log directory."""

    def __init__(self, directory: Path) -> None:
        """Open or create the database. Raises sqlite3.Error if that fails."""
        super().__init__(directory / DATABASE_FILE, SCHEMA)

    def set_offset(self, file: str, bytes_read: int) -> None:
        """Store how many bytes of a file are read."""
        self._connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?)", (file, bytes_read))

    def forget_files(self, files: Iterable[str]) -> None:
        """Remove the offsets of files that no longer exist."""
        self._connection.executemany("DELETE FROM offsets WHERE file = ?", [(file,) for file in files])

    def add_rows(self, key: str, rows: Iterable[LoggedRow]) -> None:
        """Add rows to the window of a version."""
        values = [(key, row.time, row.prediction, json.dumps(row.record)) for row in rows]
        self._connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", values)

    def waiting(self) -> dict[str, int]:
        """Return the number of rows that no window has taken yet, by version."""
        return dict(self._connection.execute("SELECT key, count(*) FROM rows GROUP BY key"))

    def take_rows(self, key: str, count: int) -> list[LoggedRow]:
        """Remove and return the oldest rows of a version, in order of time."""
        query = "SELECT rowid, time, prediction, record FROM rows WHERE key = ? ORDER BY rowid LIMIT ?"
        rows = self._connection.execute(query, (key, count)).fetchall()
        self._connection.executemany("DELETE FROM rows WHERE rowid = ?", [row[:1] for row in rows])
        taken = [LoggedRow(time, json.loads(record), prediction) for _, time, prediction, record in rows]
        return sorted(taken, key=lambda row: row.time)

    def add_result(self, result: Result) -> None:
        """Store the result of a window."""
        window = result.first_time, result.last_time, result.n_rows
        values = result.analysis, result.key, *window, json.dumps(result.result, allow_nan=False)
        self._connection.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)", values)

    def latest_result(self, analysis: str, key: str) -> State:
        """Return the latest result of an analysis for a version, or an empty one."""
        query = "SELECT result FROM results WHERE analysis = ? AND key = ? ORDER BY last_time DESC, rowid DESC LIMIT 1"
        return self._read_json(query, analysis, key)

    def remove_old(self, before: float) -> None:
        """Remove the results of windows that ended, and the increases of hours that began, before a time (Unix seconds)."""
        self._connection.execute("DELETE FROM results WHERE last_time < ?", (before,))
        self._connection.execute("DELETE FROM increases WHERE hour < ?", (before,))

    def add_increases(self, hour: int, increases: Mapping[str, float]) -> None:
        """Add the increases of counters to those of an hour (Unix seconds). It is then recorded, even without any."""
        query = "INSERT INTO increases VALUES (?, ?, ?) ON CONFLICT (hour, counter) DO UPDATE SET value = value + excluded.value"
        values = [(hour, counter, value) for counter, value in increases.items()]
        self._connection.executemany(query, [(hour, RECORDED, 0.0), *values])

    def state(self, analysis: str, key: str) -> State:
        """Return the state of an analysis for a version, or an empty one."""
        return self._read_json("SELECT state FROM states WHERE analysis = ? AND key = ?", analysis, key)

    def set_state(self, analysis: str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the state of an analysis for a version."""
        values = analysis, key, json.dumps(state, allow_nan=False)
        self._connection.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", values)

    def _read_json(self, query: str, analysis: str, key: str) -> State:
        row = self._connection.execute(query, (analysis, key)).fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    def increase(self, name: str, by: int = 1, label: str = "") -> None:
        """Add to a count, which may have a label."""
        query = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (name, label) DO UPDATE SET value = value + excluded.value"
        self._connection.execute(query, (name, label, by))

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """Yield name, label and value of each count."""
        yield from self._connection.execute("SELECT name, label, value FROM counts ORDER BY name, label")
