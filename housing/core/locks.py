"""Locks between the processes of one machine: a lock per key, and a lock of an MLflow store that is a file."""

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

SQLITE_PREFIX = "sqlite:///"
LOCK_TIMEOUT_SECONDS = 120


@contextmanager
def machine_lock(key: str, kind: str = "runs") -> Iterator[None]:
    """Hold the lock of a key on this machine during the block. If another process holds it, log a warning and wait.

    The operating system releases the lock when the process ends, even if it is killed. The lock covers one byte of a
    file in the temporary folder. A process can hold one lock per kind at a time: closing the file releases all its locks.
    """
    byte_offset = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    path = Path(tempfile.gettempdir()) / f"housing-{kind}-{os.getuid()}"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte_offset)
        except BlockingIOError:
            log.warning("Another process is already doing the same work (%s); waiting for its result", kind)
            fcntl.lockf(file, fcntl.LOCK_EX, 1, byte_offset)
        yield


def store_file(tracking_uri: str) -> Path | None:
    """Return the file of an SQLite store, or None if the store is a server."""
    return Path(tracking_uri.removeprefix(SQLITE_PREFIX)) if tracking_uri.startswith(SQLITE_PREFIX) else None


def store_lock(tracking_uri: str) -> AbstractContextManager[object]:
    """Return a lock for the creation of a file store, since MLflow runs the migrations of a new store in each process.

    Entering it raises filelock.Timeout after LOCK_TIMEOUT_SECONDS. For a server, the lock does nothing.
    """
    file = store_file(tracking_uri)
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock", timeout=LOCK_TIMEOUT_SECONDS)
