"""Files: checksums and atomic writes."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW_FILE_MODE = 0o644  # mkstemp creates files with 0600, which other users cannot read


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, as sha256sum prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write `path` atomically: yield a temporary file that replaces `path` on success and is deleted on error.

    The mode of a file that is replaced is kept. If `path` is a symbolic link, its target is replaced and the link is kept.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(_mode(target))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Return the permission bits of a file, or those of a new file if it does not exist."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return NEW_FILE_MODE
