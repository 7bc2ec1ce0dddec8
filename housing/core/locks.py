"""Locks between processes and threads of this machine: `flock` on files.

The kernel releases a lock when its process exits, so a killed process never blocks the others.
"""

import fcntl
import hashlib
import logging
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from housing.core.errors import ConfigError, HousingError, LockError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
SQLITE_PREFIX = "sqlite:///"
STORE_TIMEOUT_SECONDS = 120.0
URL_CHARACTERS = "%?#"  # MLflow and SQLAlchemy read them in different ways, so the database would be elsewhere


class LockTimeout(HousingError):
    """A lock that another process held for the whole waiting time."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__(f"Another process has held {path} for over {timeout_seconds:g} s.")
        self.path = path


def try_lock(path: Path) -> int | None:
    """Lock a file without waiting.

    Parameters
    ----------
    path
        The lock file. It is created if it does not exist; its directory must exist.

    Returns
    -------
    int or None
        The open file descriptor, or None if the file is locked. The lock ends when the descriptor is closed.

    Raises
    ------
    LockError
        If the file cannot be opened: it belongs to another user, is a link, or its directory is read-only.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            state = f"Could not open the lock file {path} ({_describe_owner(path)}): {error.strerror}."
            fix = f"Make the folder {path.parent} writable for this user"
            raise LockError(f"{state} {f'Remove it as its owner. {fix}' if os.path.lexists(path) else fix}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if _is_file_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # the previous holder removed this file after it was opened here


@contextmanager
def file_lock(path: Path, timeout_seconds: float = math.inf, waiting_message: str = "") -> Iterator[None]:
    """Hold the lock of a file for the duration of the block, and remove the file afterwards.

    Parameters
    ----------
    path
        The lock file.
    timeout_seconds
        Maximum time to wait for another process or thread.
    waiting_message
        Warning to log if the lock is not free at once.

    Raises
    ------
    LockTimeout
        If the lock is still taken after `timeout_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _wait_for_lock(path, timeout_seconds, waiting_message)
    try:
        yield
    finally:
        if _is_file_at(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def machine_lock(key: str, kind: str = "runs") -> AbstractContextManager[None]:
    """Return the lock of a key for this user on this machine; entering it waits for as long as another process holds it."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = _lock_directory() / f"{kind}-{digest}.lock"
    return file_lock(path, waiting_message=f"Another process is doing the same work ({kind}). Waiting for its result.")


def _lock_directory() -> Path:
    """Return the directory of this user's locks, to which nobody else can write. Create it if it does not exist.

    Raises
    ------
    LockError
        If another user made it, or if it is a link or a file.
    """
    path = Path(tempfile.gettempdir()) / f"housing-locks-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            path.chmod(0o700)
            return path
        reason = "it must be a directory of this user"
    except OSError as error:
        reason = str(error.strerror)
    raise LockError(
        f"Could not use the lock directory {path} ({_describe_owner(path)}): {reason}. Remove it as its owner, or set TMPDIR to a"
        " directory of your own."
    )


def _describe_owner(path: Path) -> str:
    """Return which user owns a file, without following a link."""
    try:
        return f"owner: user ID {path.lstat().st_uid}, this user: {os.getuid()}"
    except OSError:
        return "it does not exist"


def store_file(tracking_uri: str) -> Path | None:
    """Return the file of an SQLite store, or None if the store is a server. Raises ConfigError if no URL can name the file."""
    if not tracking_uri.startswith(SQLITE_PREFIX):
        return None
    path = tracking_uri.removeprefix(SQLITE_PREFIX)
    require_url_path(path)
    return Path(path)


def require_url_path(path: str) -> None:
    """Raise ConfigError if a path has a character that has a meaning in URLs."""
    if any(character in path for character in URL_CHARACTERS):
        raise ConfigError(
            f"The path of a store must not contain {' or '.join(URL_CHARACTERS)} (got {path!r})."
            " Set HOUSING_HOME to another folder, or choose another path."
        )


def store_lock(tracking_uri: str) -> AbstractContextManager[None]:
    """Return the lock under which an SQLite store is created, or a context that does nothing if the store is a server.

    MLflow runs its migrations in each process that opens a new file first; without a lock they collide.
    """
    file = store_file(tracking_uri)
    return nullcontext() if file is None else file_lock(file.with_name(f"{file.name}.lock"), STORE_TIMEOUT_SECONDS)


def _wait_for_lock(path: Path, timeout_seconds: float, waiting_message: str) -> int:
    deadline = time.monotonic() + timeout_seconds
    descriptor = try_lock(path)
    if descriptor is None and waiting_message:
        log.warning(waiting_message)
    while descriptor is None:
        if time.monotonic() >= deadline:
            raise LockTimeout(path, timeout_seconds)
        time.sleep(POLL_SECONDS)
        descriptor = try_lock(path)
    return descriptor


def _is_file_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
