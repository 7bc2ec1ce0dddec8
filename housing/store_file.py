"""An MLflow store that is a file on this machine, and the lock without which several processes break it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock

SQLITE = "sqlite:///"
LOCK_SECONDS = 120


def store_file(tracking_uri: str) -> Path | None:
    """Give the file of a store, or None for a store that is a server."""
    return Path(tracking_uri.removeprefix(SQLITE)) if tracking_uri.startswith(SQLITE) else None


def store_lock(tracking_uri: str) -> AbstractContextManager[object]:
    """Give the lock under which a file store is made: MLflow runs its migrations in each process that sees it first.

    Entering raises filelock.Timeout after LOCK_SECONDS.
    """
    file = store_file(tracking_uri)
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock", timeout=LOCK_SECONDS)
