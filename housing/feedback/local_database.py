"""Local SQLite databases of the processes beside a server: transactions, and how a damaged file is set aside."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DAMAGED = "damaged"  # followed by the time, in the name of a database that was set aside
COMPANIONS = ("-wal", "-shm")  # suffixes of the files that SQLite keeps beside a database


class LocalDatabase:
    """A SQLite file with write-ahead log. A transaction that is cut off, by `kill -9` or a power failure, changes nothing."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open the database, or create it with the statements of `schema`. Raises sqlite3.Error if that fails."""
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk: a row is never counted twice
        if self._connection.execute("PRAGMA user_version").fetchone() == (0,):
            self._connection.executescript(f"BEGIN; {schema} COMMIT;")

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
        """Return how many bytes of each log file are read."""
        return dict(self._connection.execute("SELECT file, bytes_read FROM offsets"))


def is_intact(path: Path, version: int, tables: list[str], is_complete: Callable[[sqlite3.Connection], bool]) -> bool:
    """Return whether a database is just created, or sound with this version, these tables and a complete content.

    Raises sqlite3.Error if it cannot be read at present, for example while the disk is full.
    """
    connection = sqlite3.connect(path)
    try:
        actual_version = connection.execute("PRAGMA user_version").fetchone()[0]
        actual = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        if not actual and actual_version == 0:
            return True  # just created
        is_known = (actual_version, actual) == (version, tables) and is_complete(connection)
        return is_known and connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError as error:
        if is_transient(error):
            raise
        return False
    finally:
        connection.close()


def set_aside(path: Path) -> Path:
    """Rename a damaged database with the files beside it, and return its new path. Raises OSError if that fails."""
    target = path.with_name(f"{path.name}.{DAMAGED}-{time.time_ns()}")
    for suffix in COMPANIONS:  # of this database: SQLite would apply them to the new one
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(target.with_name(target.name + suffix))
    return path.rename(target)


def count_damaged(path: Path) -> int:
    """Return the number of databases of this path that were set aside and still exist."""
    return sum(not damaged.name.endswith(COMPANIONS) for damaged in path.parent.glob(f"{path.name}.{DAMAGED}-*"))


def is_transient(error: sqlite3.Error) -> bool:
    """Return whether an error comes from the disk, memory or another process, and not from the file's content."""
    codes = ("BUSY", "LOCKED", "NOMEM", "READONLY", "INTERRUPT", "IOERR", "FULL", "CANTOPEN", "PERM", "PROTOCOL")
    code = getattr(error, "sqlite_errorcode", None)  # of this module's own errors, such as invalid UTF-8, there is none
    return code is not None and code & 0xFF in {getattr(sqlite3, f"SQLITE_{name}") for name in codes}
