"""An MLflow store that is a file on this machine, and the lock without which several processes break it."""

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


@contextmanager
def machine_lock(key: str, kind: str = "runs") -> Iterator[None]:
    """Hold the claim of a key on this machine for as long as the block lasts; wait, and say so, while another process has it.

    The system takes the claim back when its process ends, however that ends. It is one byte of a file in the temporary
    folder of this machine, locked. A process holds one claim of a kind at a time.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    path = Path(tempfile.gettempdir()) / f"housing-{kind}-{os.getuid()}"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            log.warning("another process is at this very work (%s); waiting for its result", kind)
            fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
        yield


SQLITE_PREFIX = "sqlite:///"


LOCK_TIMEOUT_SECONDS = 120


def store_file(tracking_uri: str) -> Path | None:
    """Give the file of a store, or None for a store that is a server."""
    return Path(tracking_uri.removeprefix(SQLITE_PREFIX)) if tracking_uri.startswith(SQLITE_PREFIX) else None


def store_lock(tracking_uri: str) -> AbstractContextManager[object]:
    """Give the lock under which a file store is made: MLflow runs its migrations in each process that sees it first.

    Entering raises filelock.Timeout after LOCK_SECONDS.
    """
    file = store_file(tracking_uri)
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock", timeout=LOCK_TIMEOUT_SECONDS)
