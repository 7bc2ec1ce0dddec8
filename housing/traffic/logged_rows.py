"""Rows of the prediction log in batches, so that memory does not grow with the log."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from housing.feedback.log_reader import Entry, LogFilter, parse_entry
from housing.schema.column import Vector
from housing.server_files.rotating_file import PREDICTIONS, list_files, started_at

BATCH_ROWS = 8192
MAX_GROUPS = 256  # versions and orders of columns in memory at once: a batch ends when there are more

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Batch:
    """Logged rows of one version with the same columns, and the predictions that their callers got."""

    version: str
    columns: tuple[str, ...]
    rows: list[list[Any]]
    predictions: Vector


@dataclass
class LogCounts:
    """The number of entries that were selected, and of damaged lines."""

    entries: int = 0
    malformed: int = 0


class Batcher:
    """Groups entries of the log by version and columns."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, tuple[str, ...]], tuple[list[list[Any]], list[float]]] = {}
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether `drain` is due."""
        return self._size >= BATCH_ROWS or len(self._groups) > MAX_GROUPS

    def add(self, entry: Entry) -> None:
        """Add an entry of the log. Raises ValueError if the names of its columns are damaged."""
        columns = tuple(entry["columns"])
        if set(map(type, columns)) != {str} or len(set(columns)) < len(columns):
            raise ValueError("The columns must have different names.")
        rows, predictions = self._groups.setdefault((entry["version"], columns), ([], []))
        rows += entry["rows"]
        predictions += entry["predictions"]
        self._size += len(entry["rows"])

    def drain(self) -> list[Batch]:
        """Return all rows since the last call."""
        groups, self._groups, self._size = self._groups, {}, 0
        return [Batch(*key, rows, np.array(predictions, dtype=np.float64)) for key, (rows, predictions) in groups.items() if rows]


def make_batches(lines: Iterable[bytes], log_filter: LogFilter, counts: LogCounts) -> Iterator[Batch]:
    """Yield the rows of the selected entries in batches. Count damaged lines."""
    batcher = Batcher()
    for line in lines:
        try:
            entry = parse_entry(line)
            if not log_filter.matches(entry):
                continue
            batcher.add(entry)
        except ValueError:
            counts.malformed += 1
            continue
        counts.entries += 1
        if batcher.is_full:
            yield from batcher.drain()
    yield from batcher.drain()


def select_files(folder: Path, log_filter: LogFilter) -> list[Path]:
    """Return the files of a log that can hold selected entries: none is older than its file or newer than the last change."""
    return [path for path in list_files(folder, PREDICTIONS) if _overlaps(path, log_filter)]


def _overlaps(path: Path, log_filter: LogFilter) -> bool:
    try:
        return path.stat().st_mtime >= log_filter.since and started_at(path) < log_filter.until
    except FileNotFoundError:  # it was removed for its age
        return False
    except ValueError:  # a person renamed it
        return True


def read_lines(paths: Iterable[Path], on_bytes: OnBytes) -> Iterator[bytes]:
    """Yield all lines of files, also one that was cut off. Report the number of bytes of each piece that was read."""
    for path in paths:
        try:
            with path.open("rb") as file:
                while lines := file.readlines(1 << 20):
                    yield from lines
                    on_bytes(sum(map(len, lines)))
        except FileNotFoundError:
            pass  # it was removed for its age
