"""Checksums of files, short paths, files that must exist, who can read a file, and atomic writes."""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from housing.core.errors import DiskFullError, HousingError, WriteError

NEW_FILE_MODE = 0o644
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file in hexadecimal digits, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_path(path: Path) -> str:
    """Return a path as seen from the working directory, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def require_file(path: Path, expected: str) -> None:
    """Raise HousingError, with what the override `file` is expected to name, if a path is no file."""
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise HousingError(f"File {path} {reason}. Set file= to {expected}.")


def exposed_secret(path: Path) -> str:
    """Return a sentence if users other than the owner of a file of secrets can read it, else an empty string."""
    mode = stat.S_IMODE(path.stat().st_mode)
    readers = [name for name, bit in (("its group", stat.S_IRGRP), ("all users", stat.S_IROTH)) if mode & bit]
    return f"{path} can be read by {' and '.join(readers)} (mode {mode:04o})" if readers else ""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory; it replaces `path` if the block succeeds and is removed if it fails.

    A symbolic link stays: the file that it points to is replaced. The new file keeps the mode of the file that it replaces, and
    its owner if this process is root.

    Raises
    ------
    DiskFullError
        If the disk is full.
    WriteError
        If no file can be created in the folder of `path`.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise write_error(path, error) from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        replaced = target.stat() if target.exists() else None
        if replaced is not None and os.geteuid() == 0:
            os.chown(partial, replaced.st_uid, replaced.st_gid)
        partial.chmod(NEW_FILE_MODE if replaced is None else replaced.st_mode & 0o7777)  # after chown, which clears some bits
        partial.replace(target)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise write_error(path, error) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> HousingError:
    """Return the error, for a user, that a file or folder could not be written."""
    reason = f"Could not write {path}: {error.strerror}."
    if error.errno in DISK_FULL:
        return DiskFullError(f"{reason} Free some space and run the command again.")
    return WriteError(f"{reason} Choose another path, or make its folder writable for this user.")


def timestamp() -> str:
    """Return the present time as the name of a folder, as conf/train.yaml names those of runs and sweeps."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


@contextmanager
def atomic_write_unnamed(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that has no name until the block succeeds, and then replaces `path`. Even a killed process leaves nothing.

    On a file system without unnamed files, this is `atomic_write`.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    descriptor = _open_unnamed(path.parent)
    if descriptor is None:
        with atomic_write(path) as partial, partial.open("wb") as file:
            yield file
        return
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        with atomic_write(path) as partial:
            partial.unlink()
            # src_dir_fd has no effect on an absolute path, but only with it does Python follow the link
            os.link(f"/proc/self/fd/{descriptor}", partial, src_dir_fd=descriptor, follow_symlinks=True)


def _open_unnamed(folder: Path) -> int | None:
    """Open a file without a name, or return None if the file system or the system has no such files."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, NEW_FILE_MODE)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise
