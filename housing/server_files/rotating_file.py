"""Log files of one process, rotated by size and each day."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

PREDICTIONS, FEEDBACK, JOINED = "predictions", "feedback", "joined"  # kinds of files
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class RotatingFile:
    """Appends to the newest file of its name: <name>-<start time>.jsonl. No other process may write to this name.

    A new file starts when the current one would exceed `max_bytes`, and at midnight UTC. Files are never renamed, so readers
    can follow them. The newest file and `backups` older ones stay, and none for longer than `retention_days`.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int, backups: int, retention_days: int) -> None:
        self.folder, self._name, self._max_bytes = folder, name, max_bytes
        self._backups, self._retention_days = backups, retention_days
        self._handle: int | None = None
        self._size, self._day = 0, date.min
        self._lock = threading.Lock()

    def append(self, data: bytes) -> None:
        """Append complete lines, either all or none. Raises OSError on failure."""
        with self._lock:
            self._append(data)

    def append_durably(self, data: bytes) -> None:
        """Append as `append` does and return once the lines are on disk.

        Raises OSError if they may not be; the file then has either all or none of them.
        """
        with self._lock:
            os.fsync(self._append(data))

    def _append(self, data: bytes) -> int:
        handle = self._open()
        if self._size and (self._size + len(data) > self._max_bytes or self._day != _today()):
            handle = self._start_file()
        try:
            if os.write(handle, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(handle, self._size)  # remove a partial line; this file has no other writer
            raise
        self._size += len(data)
        return handle

    def _open(self) -> int:
        """Return the handle of the current file, which may be a predecessor's."""
        if self._handle is not None:
            return self._handle
        paths = list_files(self.folder, self._name)
        if not paths:
            return self._start_file()
        self._handle = os.open(paths[-1], os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        status = os.fstat(self._handle)
        self._size, self._day = status.st_size, datetime.fromtimestamp(status.st_mtime, UTC).date()
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            return self._start_file()  # the predecessor was killed while it wrote a line
        return self._handle

    def _start_file(self) -> int:
        """Start a new file, make its directory entry durable and remove old files."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._name}-{datetime.now(UTC).strftime(TIMESTAMP_FORMAT)}.jsonl"
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size, self._day = 0, _today()
        _fsync_directory(self.folder)
        self._remove_old()
        return self._handle

    def _remove_old(self) -> None:
        oldest, kind = time.time() - self._retention_days * 86400, self._name.partition("-")[0]
        for path in list_files(self.folder, self._name)[: -1 - self._backups]:
            path.unlink(missing_ok=True)
        for path in list_files(self.folder, kind):  # includes those of former workers
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:
                pass  # another worker has removed it

    def close(self) -> None:
        """Close the current file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def list_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a name (`predictions-0`) or of a kind (`predictions`), sorted by name and start time."""
    return sorted(folder.glob(f"{name}-*.jsonl"))


def iter_lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the complete lines of a file from an offset. A removed file has none."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        pass  # it was removed for its age


def started_at(path: Path) -> float:
    """Return the start time of a file (Unix seconds); its entries are newer. Raises ValueError for other file names."""
    return datetime.strptime(path.stem.rpartition("-")[2], TIMESTAMP_FORMAT).replace(tzinfo=UTC).timestamp()


def _today() -> date:
    return datetime.now(UTC).date()


def _fsync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
