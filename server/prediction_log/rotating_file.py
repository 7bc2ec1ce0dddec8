"""Files of lines that one process appends to, and begins anew by size and each day."""

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
    """Appends to the newest file of a name that no other process writes: <name>-<when it was begun>.jsonl.

    Another is begun where one would grow beyond `max_bytes`, and when the day (UTC) ends. A file keeps its name, so that
    nobody who follows it loses it. Besides the newest, `keep` files of the name stay; none stays longer than `days`.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int, backups: int, retention_days: int) -> None:
        self._folder, self._name, self._max_bytes, self._backups, self._retention_days = (
            folder,
            name,
            max_bytes,
            backups,
            retention_days,
        )
        self._handle: int | None = None
        self._size, self._day = 0, date.min
        self._lock = threading.Lock()

    def append(self, data: bytes) -> None:
        """Append whole lines, all of them or none. Raises OSError where that fails."""
        with self._lock:
            self._append(data)

    def append_durably(self, data: bytes) -> None:
        """Append as `append` does, and return when the lines are on the disk.

        Raises OSError where they may not be: then they are in the file or not, each of them whole.
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
            os.ftruncate(handle, self._size)  # no half line stays; this file has no other writer
            raise
        self._size += len(data)
        return handle

    def _open(self) -> int:
        """Give the file in use: that of a predecessor, where it left one."""
        if self._handle is not None:
            return self._handle
        found = list_files(self._folder, self._name)
        if not found:
            return self._start_file()
        self._handle = os.open(found[-1], os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        status = os.fstat(self._handle)
        self._size, self._day = status.st_size, datetime.fromtimestamp(status.st_mtime, UTC).date()
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            return self._start_file()  # the predecessor was killed in the middle of a line
        return self._handle

    def _start_file(self) -> int:
        """Begin another file, which is in its folder whatever happens then, and remove what is too old."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{datetime.now(UTC).strftime(TIMESTAMP_FORMAT)}.jsonl"
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size, self._day = 0, _today()
        _fsync_directory(self._folder)
        self._remove_old()
        return self._handle

    def _remove_old(self) -> None:
        oldest, kind = time.time() - self._retention_days * 86400, self._name.partition("-")[0]
        for path in list_files(self._folder, self._name)[: -1 - self._backups]:
            path.unlink(missing_ok=True)
        for path in list_files(self._folder, kind):  # of workers that are gone, too
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:
                pass  # another worker was quicker

    def close(self) -> None:
        """Close the file in use."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def list_files(folder: Path, name: str) -> list[Path]:
    """Give the files of a name (`predictions-0`), oldest first, or those of all names of a kind (`predictions`)."""
    return sorted(folder.glob(f"{name}-*.jsonl"))


def iter_lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Give the whole lines of a file from a place on; a last one without an end is being written, or will never be."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        pass  # it has become too old, and was removed


def started_at(path: Path) -> float:
    """Give when a file was begun (unix seconds): nothing in it is older. Raises ValueError for another kind of file."""
    return datetime.strptime(path.stem.rpartition("-")[2], TIMESTAMP_FORMAT).replace(tzinfo=UTC).timestamp()


def _today() -> date:
    return datetime.now(UTC).date()


def _fsync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
