"""Checksums of files and atomic writes."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW_FILE_MODE = 0o644


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file in hexadecimal digits, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory; it replaces `path` if the block succeeds and is removed if it fails.

    A symbolic link stays: the file that it points to is replaced. The new file keeps the mode of the file that it replaces.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(target.stat().st_mode & 0o7777 if target.exists() else NEW_FILE_MODE)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
